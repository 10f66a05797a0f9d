"""Line formats: what is refused, and what is unfinished."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskserver.api.tasks.lineformats import from_ndjson, from_text
from taskserver.encoding import decode_texts, split_text
from taskserver.errors import BadBody, TooLarge
from taskserver.jsontext import dumps
from taskserver.partial import Unfinished

LIMIT = 12  # bytes of a line


@given(st.lists(st.sampled_from(["a", "é", "𝄞", "\n", "\r\n", "aaaaaaaaaaa"])).map("".join))
def test_raw_output_is_refused_exactly_where_a_line_is_too_long(text: str) -> None:
    data = text.encode()
    if any(len(line.encode()) > LIMIT for line in split_text(data)):
        with pytest.raises(TooLarge):
            from_text(data, LIMIT)
    else:
        assert from_text(data, LIMIT).lines.count == len(split_text(data))


def test_what_is_no_utf8_counts_as_what_it_becomes() -> None:
    assert from_text(b"\xff" * 4 + b"\n" + b"\xff" * 4, LIMIT).lines.count == 2
    with pytest.raises(TooLarge):
        from_text(b"\xff" * 5, LIMIT)


@pytest.mark.parametrize(
    ("rows", "texts", "unfinished"),
    [
        ([{"text": "a"}], ["a"], None),
        ([{"partial": "10%"}], [], Unfinished("10%")),
        ([{"partial": "10%"}, {"partial": "20%"}], [], Unfinished("20%")),
        ([{"partial": "10%", "stream": "stderr"}, {"partial": "b"}], [], Unfinished("b", "10%")),
        ([{"text": "a"}, {"partial": "1%\r10%\r"}, {"partial": ""}], ["a"], Unfinished()),
        ([{"partial": "10%"}, {"text": "a"}], ["a"], Unfinished()),
        ([{"partial": "10%"}, {"text": "a"}, {"partial": "b", "stream": "stderr"}], ["a"], Unfinished("", "b")),
    ],
)
def test_rows_tell_what_is_unfinished_behind_the_last_line(
    rows: list[dict[str, str]], texts: list[str], unfinished: Unfinished | None
) -> None:
    found = from_ndjson(b"\n".join(map(dumps, rows)), LIMIT)
    assert decode_texts(found.lines.payload) == texts
    assert found.unfinished == unfinished


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"partial": "a", "text": "b"}, "must look like"),
        ({"partial": "a", "time": "2026-11-20T19:41:59Z"}, "must look like"),
        ({"partial": 7}, "partial must be a string"),
        ({"partial": None}, "partial must be a string"),
        ({"partial": "a\nb"}, "partial holds a newline$"),
        ({"text": "a\nb"}, "holds a newline; send two lines"),
        ({"partial": "a", "stream": "log"}, "stream must be one of stdout, stderr"),
    ],
)
def test_a_row_that_tells_nothing_is_refused(row: dict[str, object], error: str) -> None:
    with pytest.raises(BadBody, match=error):
        from_ndjson(dumps(row), LIMIT)


def test_an_unfinished_line_is_bounded_as_any_other() -> None:
    with pytest.raises(TooLarge):
        from_ndjson(dumps({"partial": "x" * (LIMIT + 1)}), LIMIT)
