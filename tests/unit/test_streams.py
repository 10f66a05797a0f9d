"""Encoders: every format is read back with a parser that is not ours, whatever the lines hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource, ServerSentEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from taskserver.encoding import cut, encode_lines, encode_records
from taskserver.model import Chunk, Stream, Task, TaskState
from taskserver.streams import (
    ENCODERS,
    NDJSON,
    PORTION_BYTES,
    PORTION_LINES,
    RETRY_MS,
    SSE,
    TEXT,
    Encoder,
    parse_event_id,
    portions,
)

NOW = 1_800_000_000_000_000  # 2027-01-15T08:00:00Z
TASK = Task("build", 1, "ann", "", TaskState.FAILED, NOW, last=23, code=3, error='no "disk"\nat all')
RUNNING = Task("build", 1, "ann", "", TaskState.RUNNING, NOW, last=7)

ODD = [
    "",
    " ",
    "plain",
    "10%\r20%\r100%",
    "ends with \r",
    "\0",
    "a\u2028b\u2029c\x85d\x0b\x0c\x1c\x1d\x1e",
    '"quoted" \\ and \\n',
    "data: x",
    ":comment",
    "id: 7",
    '",\\n"',
    "[1,2]",
    "\x1b[31mred\x1b[0m",
    "ünïcödé 🎉 \ufeff",
    "x" * 100_000,
]
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=20), min_size=1)


def chunked(texts: Sequence[str], size: int = 3, first: int = 0) -> list[Chunk]:
    """The lines in chunks of ``size``, the first of which has number ``first``."""
    chunks = []
    for start in range(0, len(texts), size):
        lines = encode_lines(texts[start : start + size], NOW)
        chunks.append(Chunk(first + start, lines.count, lines.payload, lines.side))
    return chunks


def sse(body: bytes) -> list[ServerSentEvent]:
    response = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=body)
    return list(EventSource(response).iter_sse())


def objects(body: bytes) -> list[Any]:
    assert body.endswith(b"\n")
    return [json.loads(line) for line in body[:-1].split(b"\n")]


class TestText:
    def test_lines_are_as_they_were_printed(self) -> None:
        assert TEXT.lines(chunked(ODD)) == b"".join(text.encode() + b"\n" for text in ODD)

    @given(TEXTS, st.integers(1, 5))
    def test_whatever_they_hold(self, texts: list[str], size: int) -> None:
        assert TEXT.lines(chunked(texts, size)).decode().split("\n") == [*texts, ""]

    def test_there_is_nothing_but_lines(self) -> None:
        assert (TEXT.begin(), TEXT.idle(), TEXT.end(TASK)) == (b"", b"", b"")


class TestNdjson:
    @given(TEXTS, st.integers(1, 5), st.integers(0, 2**32 - 1000))
    def test_each_line_is_an_object(self, texts: list[str], size: int, first: int) -> None:
        found = objects(NDJSON.lines(chunked(texts, size, first)))
        assert [item["text"] for item in found] == texts
        assert [item["n"] for item in found] == list(range(first, first + len(texts)))

    def test_odd_lines(self) -> None:
        assert [item["text"] for item in objects(NDJSON.lines(chunked(ODD)))] == ODD

    def test_the_fields_of_a_line(self) -> None:
        assert NDJSON.lines(chunked(["a"], first=12)) == (
            b'{"n":12,"text":"a","stream":"stdout","time":"2027-01-15T08:00:00.000000Z"}\n'
        )

    @given(st.lists(st.tuples(st.text(max_size=3), st.integers(0, 2**52), st.sampled_from(Stream)), min_size=1))
    def test_each_line_has_its_own_stream_and_time(self, records: list[tuple[str, int, Stream]]) -> None:
        records = [(text.replace("\n", ""), time_us, stream) for text, time_us, stream in records]
        lines = encode_records(records)
        found = objects(NDJSON.lines([Chunk(0, lines.count, lines.payload, lines.side)]))
        for item, (text, time_us, stream) in zip(found, records, strict=True):
            moment = datetime.fromisoformat(item["time"].replace("Z", "+00:00"))
            since = moment - datetime(1970, 1, 1, tzinfo=timezone.utc)
            told = since.days * 86_400_000_000 + since.seconds * 1_000_000 + since.microseconds
            assert (item["text"], item["stream"], told) == (text, stream.name.lower(), time_us)

    def test_a_part_of_a_chunk_keeps_its_numbers_and_times(self) -> None:
        lines = encode_records([(f"line {n}", NOW + n, Stream(n % 2)) for n in range(10)])
        whole = Chunk(100, lines.count, lines.payload, lines.side)
        assert objects(NDJSON.lines([cut(whole, 103, 107)])) == objects(NDJSON.lines([whole]))[3:7]

    def test_the_end(self) -> None:
        assert objects(NDJSON.end(TASK)) == [{"finished": True, "code": 3, "error": TASK.error, "last": 23}]
        assert objects(NDJSON.end(RUNNING)) == [{"finished": False, "code": 0, "error": "", "last": 7}]

    def test_a_quiet_moment_shows_nothing(self) -> None:
        assert (NDJSON.begin(), NDJSON.idle()) == (b"", b"")


class TestSse:
    @given(TEXTS, st.integers(1, 5))
    def test_an_event_holds_lines_and_the_cursor_after_them(self, texts: list[str], size: int) -> None:
        (event,) = sse(SSE.lines(chunked(texts, size, 40)))
        assert event.event == "output"
        assert event.id == str(40 + len(texts))
        assert json.loads(event.data) == texts

    def test_odd_lines(self) -> None:
        (event,) = sse(SSE.lines(chunked(ODD)))
        assert json.loads(event.data) == ODD

    def test_it_is_told_when_to_come_back_at_a_time_of_its_own(self) -> None:
        told = [event.retry for _ in range(100) for event in sse(SSE.begin() + SSE.lines(chunked(["a"])))]
        moments = {retry for retry in told if retry is not None}
        assert RETRY_MS[0] <= min(moments) < max(moments) <= RETRY_MS[1]
        assert len(told) == 100
        assert len(moments) > 20

    def test_a_quiet_moment_is_a_comment(self) -> None:
        assert SSE.idle().startswith(b":")
        assert sse(SSE.idle() * 3) == []

    def test_the_end_has_an_id_of_its_own(self) -> None:
        (event,) = sse(SSE.end(TASK))
        assert (event.event, event.id) == ("end", "23-end")
        assert json.loads(event.data) == {
            "state": "failed",
            "finished": True,
            "code": 3,
            "error": TASK.error,
            "last": 23,
        }

    def test_a_whole_stream_is_read_in_order(self) -> None:
        body = SSE.begin() + SSE.idle() + SSE.lines(chunked(["a", "b"])) + SSE.idle()
        body += SSE.lines(chunked(["c"], first=2)) + SSE.end(TASK)
        told = [(event.event, event.id) for event in sse(body)]
        assert told == [("output", "2"), ("output", "3"), ("end", "23-end")]


class TestPortions:
    @given(st.lists(st.integers(1, 3 * PORTION_LINES), min_size=1, max_size=5), st.integers(0, 1000))
    @settings(max_examples=20, deadline=None)
    def test_they_are_the_chunks_in_steps_of_a_bounded_length(self, counts: list[int], first: int) -> None:
        chunks = []
        for count in counts:
            lines = encode_lines(["x"] * count, NOW)
            chunks.append(Chunk(first, count, lines.payload, lines.side))
            first += count
        found = list(portions(chunks))
        sizes = [sum(chunk.count for chunk in portion) for portion in found]
        assert all(0 < size <= PORTION_LINES for size in sizes)
        assert TEXT.lines([chunk for portion in found for chunk in portion]) == TEXT.lines(chunks)
        edges = [(chunk.first, chunk.end) for portion in found for chunk in portion]
        assert [edge[0] for edge in edges[1:]] == [edge[1] for edge in edges[:-1]]

    def test_they_end_with_the_chunk_that_makes_them_large(self) -> None:
        chunks = [Chunk(first, 1, b"x" * (PORTION_BYTES - 1), bare=True) for first in range(5)]
        assert [len(portion) for portion in portions(chunks)] == [2, 2, 1]

    def test_what_is_short_is_left_as_it_is(self) -> None:
        chunks = chunked(ODD)
        (portion,) = portions(chunks)
        assert all(left is right for left, right in zip(portion, chunks, strict=True))
        assert list(portions([])) == []


class TestEventIds:
    @pytest.mark.parametrize(
        ("text", "cursor"),
        [
            ("0", (0, False)),
            ("23", (23, False)),
            ("23-end", (23, True)),
            ("007", (7, False)),
            ("9" * 10, (9999999999, False)),
        ],
    )
    def test_ids_are_cursors(self, text: str, cursor: tuple[int, bool]) -> None:
        assert parse_event_id(text) == cursor

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            "x",
            "-1",
            "+1",
            "1.0",
            "1e3",
            "0x10",
            "1_0",
            "٣",
            "1-",
            "1-END",
            "1 -end",
            "-end",
            "1-end-end",
            "9" * 11,
            "1\n",
        ],
    )
    def test_all_else_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="id of an earlier event"):
            parse_event_id(text)


@pytest.mark.parametrize("encoder", list(ENCODERS.values()), ids=list(ENCODERS))
def test_an_encoder_is_found_by_its_name_and_declares_utf_8_lines(encoder: Encoder) -> None:
    assert ENCODERS[encoder.name] is encoder
    assert encoder.content_type.partition(";")[0] in ("text/plain", "application/x-ndjson", "text/event-stream")
