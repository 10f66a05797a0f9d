"""Encoders: how one page of a followed output looks in each format (PROTOCOLS.md, A5).

Pure functions over pages; what brings the pages is ``Tasks.follow``, or an audience at the tail.

Rules of the formats:

- NDJSON: one object a line; the last one tells the task's state.
- SSE (WHATWG HTML, section 9.2): an event is ended by an empty line, a newline
  within data begins another ``data:`` field. ``id`` is the cursor after the
  event, so a reconnect's ``Last-Event-ID`` resumes there. The ``end`` event has
  an id of its own: a client that saw all output but not the end is told it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from taskserver.config import KIB
from taskserver.encoding import cut, json_pieces, raw_text, side_runs
from taskserver.escapes import strip_escapes
from taskserver.jsontext import dumps, isotime
from taskserver.model import Chunk, Stream, Task
from taskserver.partial import Partial, Unfinished

RETRY_MS = (1000, 3000)  # clients of a restarted server come back spread over this time
END_SUFFIX = "-end"
# A page of very short lines is twenty times as large in NDJSON, and encoding it whole would hold up everybody.
PORTION_LINES = 8192
# What is encoded and sent while it is in the processor's cache takes half of the time that a megabyte at once takes.
PORTION_BYTES = 64 * KIB
BLOCK = 1000  # lines of NDJSON whose numbers have all but the last three digits in common
STREAM_NAMES = {stream: stream.name.lower() for stream in Stream}
_EVENT_ID = re.compile(rf"(\d{{1,10}})({END_SUFFIX})?", re.ASCII)


@dataclass(frozen=True)
class Encoder:
    """A format: its content type, and bytes for the beginning, for lines, for a quiet moment and for the end.

    ``partial`` is for unfinished lines as they are now (None: there are none any
    more); it is None where they are not told.
    """

    name: str
    content_type: str
    begin: Callable[[], bytes]
    lines: Callable[[Sequence[Chunk]], bytes]
    idle: Callable[[], bytes]
    end: Callable[[Task], bytes]
    partial: Callable[[Partial | None], bytes] | None = None


def portions(chunks: Sequence[Chunk]) -> Iterator[list[Chunk]]:
    """The chunks in portions of at most PORTION_LINES lines: what one step of a stream encodes and sends.

    A portion ends with the chunk that makes it PORTION_BYTES. Only chunks of
    too many lines are cut, as cutting costs.
    """
    portion: list[Chunk] = []
    room, size = PORTION_LINES, 0
    for chunk in chunks:
        if portion and (room < chunk.count or size >= PORTION_BYTES):
            yield portion
            portion, room, size = [], PORTION_LINES, 0
        size += len(chunk.payload)
        first = chunk.first
        while first < chunk.end:
            portion.append(cut(chunk, first, first + room))
            room -= portion[-1].count
            first = portion[-1].end
            if not room:
                yield portion
                portion, room = [], PORTION_LINES
    if portion:
        yield portion


def parse_event_id(text: str) -> tuple[int, bool]:
    """The cursor in a ``Last-Event-ID``, and whether it is the ``end`` event's. Raises ValueError."""
    match = _EVENT_ID.fullmatch(text)
    if match is None:
        raise ValueError("must be the id of an earlier event")
    return int(match[1]), match[2] is not None


def _nothing(*_: object) -> bytes:
    return b""


def text_lines(chunks: Sequence[Chunk]) -> bytes:
    """The lines as they were printed."""
    return b"\n".join([*map(raw_text, chunks), b""])


def plain_lines(chunks: Sequence[Chunk]) -> bytes:
    """The lines without their escape codes."""
    return strip_escapes(text_lines(chunks).decode()).encode()


def ndjson_lines(chunks: Sequence[Chunk]) -> bytes:
    """``{"n", "text", "stream", "time"}`` a line."""
    return b"".join("".join(_ndjson_pieces(chunk)).encode() for chunk in chunks)


def _ndjson_pieces(chunk: Chunk) -> list[str]:
    # Text, not bytes: joining many short pieces of it is four times faster.
    payload, pieces = chunk.payload.decode(), []
    quote, texts = ('"', payload.split("\n")) if chunk.bare else ("", payload.split(",\n"))
    start = 0
    for length, time_us, stream in side_runs(chunk.side, chunk.count):
        end, tail = start + length, quote + _ndjson_tail(time_us, stream)
        while start < end:
            n = chunk.first + start
            part = texts[start : min(end, start + BLOCK - n % BLOCK)]
            pieces += _ndjson_block(n, part, quote, tail)
            start += len(part)
    return pieces


def _ndjson_block(n: int, texts: Sequence[str], quote: str, tail: str) -> list[str]:
    """Lines from number ``n`` on that end alike and whose numbers differ in the last three digits only, in pieces.

    Each line is three pieces that stand ready; slices put them in their places.
    """
    thousands, rest = divmod(n, BLOCK)
    head = f'{{"n":{thousands or ""}'
    pieces = [tail + head] * (3 * len(texts))
    pieces[0::3] = _ndjson_numbers(thousands > 0, quote)[rest : rest + len(texts)]
    pieces[1::3] = texts
    pieces[0] = head + pieces[0]
    pieces[-1] = tail
    return pieces


@lru_cache
def _ndjson_numbers(padded: bool, quote: str) -> list[str]:
    """The last three digits of a number and what stands between them and the text."""
    return [f'{n:{"03" if padded else ""}},"text":{quote}' for n in range(BLOCK)]


@lru_cache(maxsize=1024)  # lines that came together have their time in common
def _ndjson_tail(time_us: int, stream: Stream) -> str:
    return f',"stream":"{STREAM_NAMES[stream]}","time":"{isotime(time_us)}"}}\n'


def ndjson_end(task: Task) -> bytes:
    """How the task stands."""
    return dumps({"finished": task.finished, "code": task.code, "error": task.error, "last": task.last}) + b"\n"


def ndjson_partial(partial: Partial | None) -> bytes:
    """``{"partial": {"stdout", "stderr"}}``"""
    return b'{"partial":%b}\n' % _unfinished(partial)


def _unfinished(partial: Partial | None) -> bytes:
    return dumps((partial.unfinished if partial else Unfinished())._asdict())


def sse_begin() -> bytes:
    """When to come back after a broken connection; part of the first event, as some clients take it alone for one."""
    return b"retry: %d\n" % random.randint(*RETRY_MS)  # noqa: S311 - spreads clients, guards nothing


def sse_lines(chunks: Sequence[Chunk]) -> bytes:
    """``event: output`` with a JSON array of lines."""
    begin = b"id: %d\nevent: output\ndata: [" % chunks[-1].end
    return b"".join((begin, *json_pieces(chunks, b"\ndata: "), b"]\n\n"))


def sse_partial(partial: Partial | None) -> bytes:
    """``event: partial``; without an id, since the cursor stays where it is."""
    return b"event: partial\ndata: %b\n\n" % _unfinished(partial)


def sse_idle() -> bytes:
    """A comment, so that proxies see that the connection lives."""
    return b":\n"


def sse_end(task: Task) -> bytes:
    """``event: end`` with the final state."""
    state = {"state": task.state.value, "finished": task.finished, "code": task.code, "error": task.error}
    data = dumps({**state, "last": task.last})
    return b"id: %d%b\nevent: end\ndata: %b\n\n" % (task.last, END_SUFFIX.encode(), data)


TEXT = Encoder("text", "text/plain; charset=utf-8", _nothing, text_lines, _nothing, _nothing)
PLAIN = Encoder("plain", TEXT.content_type, _nothing, plain_lines, _nothing, _nothing)
NDJSON = Encoder("ndjson", "application/x-ndjson", _nothing, ndjson_lines, _nothing, ndjson_end)
SSE = Encoder("sse", "text/event-stream", sse_begin, sse_lines, sse_idle, sse_end)
ENCODERS = {encoder.name: encoder for encoder in (TEXT, NDJSON, SSE)}
WITH_PARTIALS = {
    NDJSON: replace(NDJSON, name="ndjson and partials", partial=ndjson_partial),
    SSE: replace(SSE, name="sse and partials", partial=sse_partial),
}
"""The formats that can, and those that tell of unfinished lines too."""
