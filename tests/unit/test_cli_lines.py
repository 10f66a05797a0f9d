"""How raw output becomes records (``producer.lines``)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orjson import loads

from taskserver.api.tasks.lineformats import from_ndjson
from taskserver.encoding import decode_side, decode_texts, split_text
from taskserver.model import Stream
from taskserver.producer.lines import PARTIAL_AGE, LineCutter, Records, split_long

NOW = 1_700_000_000_123_456


def texts(*records: Records) -> list[str]:
    """The lines of some records, as the server reads them."""
    found = [from_ndjson(one.data, 1 << 20).lines for one in records]
    assert [lines.count for lines in found] == [one.count for one in records]
    return [text for lines in found for text in decode_texts(lines.payload)]


def cut(parts: list[bytes], limit: int = 1 << 20) -> list[str]:
    """The lines of output that comes in these parts."""
    cutter = LineCutter(Stream.STDOUT, limit)
    return texts(*[cutter.feed(part, NOW) for part in parts], cutter.end(NOW))


def test_records_carry_text_stream_and_time() -> None:
    for stream in Stream:
        records = LineCutter(stream).feed(b'say "hi"\n\xff\n', NOW)
        lines = from_ndjson(records.data, 100).lines

        assert decode_texts(lines.payload) == ['say "hi"', "\ufffd"]
        assert decode_side(lines.side, 2) == [(NOW, stream), (NOW, stream)]


def test_a_line_has_the_time_of_the_read_that_completed_it() -> None:
    cutter = LineCutter(Stream.STDOUT)
    assert cutter.feed(b"begun", NOW).count == 0
    lines = from_ndjson(cutter.feed(b" and ended\n", NOW + 5).data, 100).lines
    assert decode_side(lines.side, 1) == [(NOW + 5, Stream.STDOUT)]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([b""], []),
        ([b"\n"], [""]),
        ([b"a\n\nb"], ["a", "", "b"]),
        ([b"a\r", b"\nb\r\n"], ["a", "b"]),
        ([b"10%\r20%\r", b"100%\n"], ["10%\r20%\r100%"]),
        ([b"\xe2", b"\x82", b"\xac\n"], ["€"]),
        ([b"\xe2\x82\n\xac\n"], ["\ufffd", "\ufffd"]),
        ([b"\0\x1b[0m\n"], ["\0\x1b[0m"]),
        ([b'},\n{"text":1}\n'], ["},", '{"text":1}']),
    ],
)
def test_what_is_a_line(parts: list[bytes], expected: list[str]) -> None:
    assert cut(parts) == expected


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_lines_do_not_depend_on_how_the_output_was_read(parts: list[bytes]) -> None:
    assert cut(parts) == split_text(b"".join(parts))


@given(st.lists(st.text("aé€🐍\n", max_size=40), max_size=6), st.integers(4, 20))
def test_long_lines_are_split_and_nothing_else_happens_to_them(parts: list[str], limit: int) -> None:
    pieces = cut([part.encode() for part in parts], limit)

    assert all(len(piece.encode()) <= limit for piece in pieces)
    assert "".join(pieces) == "".join(parts).replace("\n", "")
    assert len(pieces) >= len(split_text("".join(parts).encode()))


@given(st.lists(st.binary(max_size=60), max_size=6), st.integers(4, 20))
def test_no_piece_is_too_long_whatever_the_bytes(parts: list[bytes], limit: int) -> None:
    assert all(len(piece.encode()) <= limit for piece in cut(parts, limit))


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_a_line_of_exactly_the_limit_is_one_line(ending: bytes) -> None:
    assert cut([b"x" * 16 + ending], 16) == ["x" * 16]
    assert cut([b"x" * 16, ending[:1], ending[1:]], 16) == ["x" * 16]
    assert cut([b"x" * 17, ending], 16) == ["x" * 16, "x"]


def test_an_endless_line_is_not_kept_in_memory() -> None:
    cutter = LineCutter(Stream.STDOUT, 1000)
    records = [cutter.feed(b"x" * 300, NOW) for _ in range(100)]

    assert sum(len(text) for text in texts(*records)) > 28_000
    assert len(texts(cutter.end(NOW))[0]) <= 1000


def test_pieces_are_as_long_as_they_may_be() -> None:
    assert split_long("aaaa", 16) == ["aaaa"]
    assert split_long("a" * 10, 4) == ["aaaa", "aaaa", "aa"]
    assert split_long("€" * 4, 7) == ["€€", "€€"]


def test_a_line_can_be_told_when_it_has_been_unfinished_for_a_while() -> None:
    cutter = LineCutter(Stream.STDERR)
    assert cutter.partial() == b""
    cutter.feed(b"\r10%", NOW)
    assert cutter.partial() == b'{"partial":"10%","stream":"stderr"}\n'
    assert cutter.partial(NOW + PARTIAL_AGE - 1) == b""
    assert cutter.partial(NOW + PARTIAL_AGE) == cutter.partial()
    cutter.feed(b"\r20%", NOW + PARTIAL_AGE)
    assert loads(cutter.partial(NOW + PARTIAL_AGE))["partial"] == "20%", "the line is as old as its beginning"
    cutter.feed(b"\nnext", NOW + PARTIAL_AGE)
    assert cutter.partial(NOW + PARTIAL_AGE) == b""
    assert loads(cutter.partial(NOW + 2 * PARTIAL_AGE))["partial"] == "next"
    cutter.feed(b"\n", NOW)
    assert cutter.partial() == b""
    cutter.feed(b"end", NOW)
    assert texts(cutter.end(NOW)) == ["end"]
    assert cutter.partial() == b""
