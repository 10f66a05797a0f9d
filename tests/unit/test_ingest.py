"""ingest: what is refused because it is too long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskserver.api.tasks.ingest import from_text
from taskserver.encoding import split_text
from taskserver.errors import TooLarge

LIMIT = 12  # bytes of a line


@given(st.lists(st.sampled_from(["a", "é", "𝄞", "\n", "\r\n", "aaaaaaaaaaa"])).map("".join))
def test_raw_output_is_refused_exactly_where_a_line_is_too_long(text: str) -> None:
    data = text.encode()
    if any(len(line.encode()) > LIMIT for line in split_text(data)):
        with pytest.raises(TooLarge):
            from_text(data, LIMIT)
    else:
        assert from_text(data, LIMIT).count == len(split_text(data))


def test_what_is_no_utf8_counts_as_what_it_becomes() -> None:
    assert from_text(b"\xff" * 4 + b"\n" + b"\xff" * 4, LIMIT).count == 2
    with pytest.raises(TooLarge):
        from_text(b"\xff" * 5, LIMIT)
