"""Encoders: how one page of a followed output looks in each format (PROTOCOLS.md, A5).

Pure functions over pages; the loop that brings the pages is ``Tasks.follow``.

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
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, cycle

from taskserver.encoding import SEPARATOR, SIDE_WIDTH, cut, decode_side, dumps, isotime, raw_text
from taskserver.model import Chunk, Stream, Task

RETRY_MS = (1000, 3000)  # clients of a restarted server come back spread over this time
END_SUFFIX = "-end"
# A page of very short lines is twenty times as large in NDJSON, and encoding it whole would hold up everybody.
PORTION_LINES = 8192
STREAM_NAMES = {stream: stream.name.lower() for stream in Stream}
_EVENT_ID = re.compile(rf"(\d{{1,10}})({END_SUFFIX})?", re.ASCII)


@dataclass(frozen=True)
class Encoder:
    """A format: its content type, and bytes for the beginning, for lines, for a quiet moment and for the end."""

    name: str
    content_type: str
    begin: Callable[[], bytes]
    lines: Callable[[Sequence[Chunk]], bytes]
    idle: Callable[[], bytes]
    end: Callable[[Task], bytes]


def portions(chunks: Sequence[Chunk]) -> Iterator[list[Chunk]]:
    """The chunks in portions of at most PORTION_LINES lines: what one step of a stream encodes and sends."""
    portion: list[Chunk] = []
    room = PORTION_LINES
    for chunk in chunks:
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
    return b"".join(raw_text(chunk.payload) for chunk in chunks)


def ndjson_lines(chunks: Sequence[Chunk]) -> bytes:
    """``{"n", "text", "stream", "time"}`` a line."""
    parts: list[str] = []
    for chunk in chunks:
        texts = chunk.payload.decode().split(SEPARATOR.decode())
        # One side for each line, or one for all.
        tails = cycle([_ndjson_tail(*side) for side in decode_side(chunk.side, len(chunk.side) // SIDE_WIDTH)])
        parts += [f'{{"n":{n},"text":{text}{tail}' for n, text, tail in zip(count(chunk.first), texts, tails)]
    return "".join(parts).encode()


@lru_cache(maxsize=1024)  # lines that came together have their time in common
def _ndjson_tail(time_us: int, stream: Stream) -> str:
    return f',"stream":"{STREAM_NAMES[stream]}","time":"{isotime(time_us)}"}}\n'


def ndjson_end(task: Task) -> bytes:
    """How the task stands."""
    return dumps({"finished": task.finished, "code": task.code, "error": task.error, "last": task.last}) + b"\n"


def sse_begin() -> bytes:
    """When to come back after a broken connection; part of the first event, as some clients take it alone for one."""
    return b"retry: %d\n" % random.randint(*RETRY_MS)  # noqa: S311 - spreads clients, guards nothing


def sse_lines(chunks: Sequence[Chunk]) -> bytes:
    """``event: output`` with a JSON array of lines."""
    payload = SEPARATOR.join(chunk.payload for chunk in chunks).replace(b"\n", b"\ndata: ")
    return b"id: %d\nevent: output\ndata: [%b]\n\n" % (chunks[-1].end, payload)


def sse_idle() -> bytes:
    """A comment, so that proxies see that the connection lives."""
    return b":\n"


def sse_end(task: Task) -> bytes:
    """``event: end`` with the final state."""
    state = {"state": task.state.value, "finished": task.finished, "code": task.code, "error": task.error}
    data = dumps({**state, "last": task.last})
    return b"id: %d%b\nevent: end\ndata: %b\n\n" % (task.last, END_SUFFIX.encode(), data)


TEXT = Encoder("text", "text/plain; charset=utf-8", _nothing, text_lines, _nothing, _nothing)
NDJSON = Encoder("ndjson", "application/x-ndjson", _nothing, ndjson_lines, _nothing, ndjson_end)
SSE = Encoder("sse", "text/event-stream", sse_begin, sse_lines, sse_idle, sse_end)
ENCODERS = {encoder.name: encoder for encoder in (TEXT, NDJSON, SSE)}
