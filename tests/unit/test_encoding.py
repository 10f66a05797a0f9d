"""encoding: lines in, lines out, and the JSON around them."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskserver.encoding import (
    SEPARATOR,
    TASK_TAIL,
    cut,
    decode_side,
    decode_texts,
    encode_lines,
    encode_records,
    encode_text,
    encode_texts,
    expand_side,
    isotime,
    merge_lines,
    parse_time,
    raw_text,
    shorten_side,
    split_text,
    task_head,
    task_summary,
)
from taskserver.model import Chunk, Lines, Stream, Task, TaskState

NOW = 1_800_000_000_000_000

TEXT = st.text(st.characters(exclude_categories=["Cs"]))  # anything that UTF-8 can carry
TEXTS = st.lists(TEXT, max_size=12)
RECORDS = st.lists(st.tuples(TEXT, st.integers(0, 2**62), st.sampled_from(Stream)), min_size=1, max_size=12)


def chunk(first: int, lines: Lines) -> Chunk:
    return Chunk(first, lines.count, lines.payload, lines.side)


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
        assert (encode_texts([]), decode_texts(b""), raw_text(b"")) == (b"", [], b"")
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

    @given(st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"])), max_size=8))
    def test_raw_text_is_what_was_printed(self, texts: list[str]) -> None:
        assert raw_text(encode_texts(texts)) == "".join(text + "\n" for text in texts).encode()


class TestSide:
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
    @given(RECORDS, st.integers(0, 20), st.data())
    def test_it_is_the_part_that_was_asked_for(
        self, records: list[tuple[str, int, Stream]], first: int, data: st.DataObject
    ) -> None:
        whole = chunk(first, encode_records(records))
        start = data.draw(st.integers(0, first + len(records) + 3))
        end = data.draw(st.integers(start, first + len(records) + 3))
        part = cut(whole, start, end)
        wanted = records[max(0, start - first) : max(0, end - first)]
        assert part.count == len(wanted)
        assert decode_texts(part.payload) == [text for text, _, _ in wanted]
        if wanted:
            assert part.first == max(start, first)
            assert decode_side(part.side, part.count) == [(time, stream) for _, time, stream in wanted]

    def test_of_all_of_it_is_the_chunk_itself(self) -> None:
        whole = chunk(5, encode_lines(["a", "b"], NOW))
        assert cut(whole, 5, 7) is whole
        assert cut(whole, 0, 100) is whole


class TestTime:
    def test_it_is_written_in_utc_with_microseconds(self) -> None:
        assert isotime(None) is None
        assert isotime(0) == "1970-01-01T00:00:00.000000Z"
        assert isotime(1_763_667_719_830_168) == "2025-11-20T19:41:59.830168Z"

    @given(st.integers(0, 253_402_300_799_999_999))
    def test_what_is_written_can_be_read(self, time_us: int) -> None:
        text = isotime(time_us)
        assert text is not None
        assert parse_time(text) == time_us

    @given(
        st.datetimes(datetime(1971, 1, 1), datetime(9998, 12, 31)),
        st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
    )
    def test_any_offset_is_understood(self, moment: datetime, zone: timezone) -> None:
        aware = moment.replace(tzinfo=zone)
        expected = (aware - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(microseconds=1)
        assert parse_time(aware.isoformat()) == expected

    @pytest.mark.parametrize(
        ("text", "fraction"),
        [
            ("", 0),
            (".1", 100_000),
            (".000001", 1),
            (".123456", 123_456),
            (".1234567", 123_456),
            (".999999999", 999_999),
        ],
    )
    def test_any_precision_is_understood_and_what_is_below_microseconds_cut(self, text: str, fraction: int) -> None:
        for letters in ("T{}Z", "t{}z", " {}Z", "T{}+00:00", "T{}-00:00"):
            assert parse_time("1970-01-02" + letters.format("00:00:00" + text)) == 86_400_000_000 + fraction

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "now",
            "2026-11-20",
            "2026-11-20T19:41:59",
            "2026-11-20T19:41Z",
            "2026-11-20T19:41:59.Z",
            "2026-11-20T19:41:59.1234567890Z",
            "2026-11-20T19:41:59+0100",
            "2026-13-20T19:41:59Z",
            "2026-02-30T19:41:59Z",
            "2026-11-20T25:41:59Z",
            "2026-11-20T19:41:60Z",
            "2026-11-20T19:41:59+24:00",
            "2026-11-20T19:41:59Z ",
            "2026-11-20T19:41:59Z\n",
            "٢026-11-20T19:41:59Z",
            "1969-12-31T23:59:59.999999Z",
            "1970-01-01T00:00:00+00:01",
            "0000-01-01T00:00:00Z",
        ],
    )
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"."):
            parse_time(text)


class TestTaskAnswer:
    TASK = Task(
        id="build",
        log=7,
        owner="ann",
        name="nightly",
        state=TaskState.FAILED,
        created_at=0,
        last=2,
        code=3,
        error='"no"',
        result=b'{"type":"x","data":[1]}',
        labels={"a": "b"},
        finished_at=1,
        lease_us=1_500_000,
    )

    def test_head_lines_and_tail_are_one_object(self) -> None:
        answer = json.loads(task_head(self.TASK) + encode_texts(["a", "b"]) + TASK_TAIL)
        assert answer.pop("output") == ["a", "b"]
        assert answer.pop("result") == {"type": "x", "data": [1]}
        assert answer == task_summary(self.TASK)
        assert (answer["lease"], answer["labels"], answer["error"]) == (1.5, {"a": "b"}, '"no"')
        assert (answer["started_at"], answer["finished_at"]) == (None, "1970-01-01T00:00:00.000001Z")

    def test_without_lines_and_result_too(self) -> None:
        answer = json.loads(task_head(Task("a", 1, "o", "", TaskState.QUEUED, 0)) + TASK_TAIL)
        assert (answer["output"], answer["result"], answer["finished"]) == ([], None, False)

    def test_it_does_not_tell_owner_and_log(self) -> None:
        assert not {"owner", "log"} & task_summary(self.TASK).keys()
