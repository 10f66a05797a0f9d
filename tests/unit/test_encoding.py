"""encoding: lines in and lines out."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskserver.encoding import (
    SEPARATOR,
    bare,
    cut,
    decode_side,
    decode_texts,
    encode_lines,
    encode_records,
    encode_text,
    encode_texts,
    expand_side,
    json_pieces,
    merge_lines,
    quoted,
    raw_text,
    shorten_side,
    side_runs,
    split_text,
)
from taskserver.model import Chunk, Lines, Stream

NOW = 1_800_000_000_000_000

TEXT = st.text(st.characters(exclude_categories=["Cs"]))  # anything that UTF-8 can carry
TEXTS = st.lists(TEXT, max_size=12)
RECORDS = st.lists(st.tuples(TEXT, st.integers(0, 2**62), st.sampled_from(Stream)), min_size=1, max_size=12)


PRINTED = st.lists(st.one_of(TEXT, st.sampled_from(['",\n"', "\\", '"', ",", "", "\t"])), min_size=1, max_size=12)


def chunk(first: int, lines: Lines) -> Chunk:
    return Chunk(first, lines.count, lines.payload, lines.side)


def stripped(whole: Chunk) -> Chunk:
    """The same lines, as they are kept once their task has ended."""
    return Chunk(whole.first, whole.count, bare(whole.payload), whole.side, bare=True)


class TestSplitText:
    @pytest.mark.parametrize(
        ("data", "lines"),
        [
            (b"", []),
            (b"a", ["a"]),
            (b"a\n", ["a"]),
            (b"\n", [""]),
            (b"a\n\n", ["a", ""]),
            (b"a\r\nb", ["a", "b"]),
            (b"a\rb\n", ["a\rb"]),
            (b"a\r", ["a\r"]),
            (b"a\r\r\n", ["a\r"]),
            (b"\n\r", ["", "\r"]),
            (b"\xff\xc3\n\xbc", ["\ufffd\ufffd", "\ufffd"]),
            (b"\x00\x0b\x0c\x1c\xc2\x85\xe2\x80\xa8", ["\0\x0b\x0c\x1c\x85\u2028"]),
        ],
    )
    def test_only_newlines_end_lines(self, data: bytes, lines: list[str]) -> None:
        assert split_text(data) == lines

    @given(
        st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), max_size=8),
        st.sampled_from(["\n", "\r\n"]),
    )
    def test_lines_that_are_joined_come_apart_again(self, lines: list[str], end: str) -> None:
        assert split_text("".join(line + end for line in lines).encode()) == lines

    @given(st.binary(), st.binary())
    def test_a_newline_separates_what_is_before_from_what_is_behind(self, before: bytes, behind: bytes) -> None:
        assert split_text(before + b"\n" + behind) == split_text(before + b"\n") + split_text(behind)

    @given(st.binary())
    def test_any_bytes_become_lines_that_can_be_kept(self, data: bytes) -> None:
        lines = split_text(data)
        assert not any("\n" in line for line in lines)
        assert decode_texts(encode_texts(lines)) == lines


class TestPayload:
    @given(TEXTS)
    def test_texts_come_back(self, texts: list[str]) -> None:
        payload = encode_texts(texts)
        assert decode_texts(payload) == texts
        assert json.loads(b"[" + payload + b"]") == texts

    @given(TEXTS)
    def test_it_comes_apart_without_parsing(self, texts: list[str]) -> None:
        parts = encode_texts(texts).split(SEPARATOR) if texts else []
        assert [json.loads(part) for part in parts] == texts

    @pytest.mark.parametrize("text", ["\n  ", ",\n", '",\n"', "\n", '"', "\\", "\\n", "\u2028", "\0", "  a  ", ""])
    def test_texts_that_look_like_its_own_marks_come_back(self, text: str) -> None:
        assert decode_texts(encode_texts([text, text])) == [text, text]
        assert encode_texts([text, text]).count(SEPARATOR) == 1

    def test_of_nothing_is_nothing(self) -> None:
        assert (encode_texts([]), decode_texts(b"")) == (b"", [])
        assert encode_lines([], NOW) == Lines(0, b"", b"")

    @given(
        st.lists(st.sampled_from([*map(chr, range(0x21)), '"', "\\", "a", "\x7f", "é", "\u2028", "\r\n"])).map("".join)
    )
    def test_output_becomes_what_its_lines_become(self, text: str) -> None:
        assert encode_text(text.encode(), NOW) == encode_lines(split_text(text.encode()), NOW)

    @given(st.binary(), st.sampled_from(Stream))
    def test_any_bytes_become_what_their_lines_become(self, data: bytes, stream: Stream) -> None:
        assert encode_text(data, NOW, stream) == encode_lines(split_text(data), NOW, stream)

    @pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
    def test_a_lone_surrogate_is_refused(self, text: str) -> None:
        with pytest.raises(TypeError):
            encode_lines([text], NOW)

    @pytest.mark.parametrize("newline", [b"\n", b"\ndata: "])
    @given(PRINTED, PRINTED)
    def test_bare_lines_are_the_same_lines(self, newline: bytes, texts: list[str], more: list[str]) -> None:
        whole, after = chunk(0, encode_lines(texts, NOW)), chunk(len(texts), encode_lines(more, NOW))
        assert quoted(stripped(whole)) == quoted(whole) == whole.payload
        assert raw_text(stripped(whole)) == raw_text(whole) == "\n".join(texts).encode()

        wanted = encode_texts(texts + more).replace(b"\n", newline)
        for chunks in ([whole, after], [stripped(whole), after], [stripped(whole), stripped(after)]):
            assert b"".join(json_pieces(chunks, newline)) == wanted


class TestSide:
    @given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 3), st.sampled_from(Stream)), min_size=1))
    def test_runs_of_lines_that_came_together(self, runs: list[tuple[int, int, Stream]]) -> None:
        sides = [(time_us, stream) for length, time_us, stream in runs for _ in range(length)]
        lines = encode_records([("", *side) for side in sides])
        found = list(side_runs(lines.side, lines.count))
        assert [side for length, *side in found for _ in range(length)] == [list(side) for side in sides]
        assert all(one[1:] != other[1:] for one, other in pairwise(found))

    @given(RECORDS)
    def test_times_and_streams_come_back(self, records: list[tuple[str, int, Stream]]) -> None:
        lines = encode_records(records)
        assert lines.count == len(records)
        assert decode_texts(lines.payload) == [text for text, _, _ in records]
        assert decode_side(lines.side, lines.count) == [(time, stream) for _, time, stream in records]

    def test_lines_that_share_them_share_one_number(self) -> None:
        lines = encode_lines(["a"] * 1000, NOW, Stream.STDERR)
        assert len(lines.side) == 8
        assert decode_side(lines.side, 1000) == [(NOW, Stream.STDERR)] * 1000
        assert encode_records([("a", NOW, Stream.STDERR)] * 1000) == lines

    def test_it_is_little_endian(self) -> None:
        assert encode_lines(["a"], 1, Stream.STDERR).side == b"\x03" + bytes(7)

    @given(RECORDS)
    def test_its_two_forms_say_the_same(self, records: list[tuple[str, int, Stream]]) -> None:
        lines = encode_records(records)
        long = expand_side(lines.side, lines.count)
        assert len(long) == 8 * lines.count
        assert shorten_side(long) == lines.side
        assert decode_side(long, lines.count) == decode_side(lines.side, lines.count)

    def test_of_nothing_is_nothing(self) -> None:
        assert (expand_side(b"", 0), shorten_side(b""), decode_side(b"", 0)) == (b"", b"", [])


class TestMerge:
    @given(st.lists(RECORDS, min_size=1, max_size=4))
    def test_it_keeps_lines_and_sides_in_order(self, parts: list[list[tuple[str, int, Stream]]]) -> None:
        merged = merge_lines([encode_records(part) for part in parts])
        assert merged == encode_records([record for part in parts for record in part])

    def test_of_one_is_that_one(self) -> None:
        lines = encode_lines(["a"], NOW)
        assert merge_lines([lines]) is lines


class TestCut:
    @given(RECORDS, st.integers(0, 20), st.booleans(), st.data())
    def test_it_is_the_part_that_was_asked_for(
        self, records: list[tuple[str, int, Stream]], first: int, is_bare: bool, data: st.DataObject
    ) -> None:
        whole = chunk(first, encode_records(records))
        whole = stripped(whole) if is_bare else whole
        start = data.draw(st.integers(0, first + len(records) + 3))
        end = data.draw(st.integers(start, first + len(records) + 3))
        part = cut(whole, start, end)
        wanted = records[max(0, start - first) : max(0, end - first)]
        assert part.count == len(wanted)
        if wanted:
            assert decode_texts(quoted(part)) == [text for text, _, _ in wanted]
            assert part.first == max(start, first)
            assert decode_side(part.side, part.count) == [(time, stream) for _, time, stream in wanted]

    def test_of_all_of_it_is_the_chunk_itself(self) -> None:
        whole = chunk(5, encode_lines(["a", "b"], NOW))
        assert cut(whole, 5, 7) is whole
        assert cut(whole, 0, 100) is whole
