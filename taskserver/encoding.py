"""Pure functions: lines to stored fragments and back, and the JSON that leaves the server.

Rules of the stored form:

- A payload is the JSON strings of its lines joined by ``,\\n``. A raw newline
  cannot stand inside a JSON string (RFC 8259, section 7), so the separator is
  found without parsing, an answer is a join of bytes, and a part of a payload
  is a payload.
- A side column keeps time and stream of each line: one little-endian unsigned
  64-bit number per line, ``time in microseconds << 1 | stream``. A single
  number stands for all lines of the chunk: lines that came in one request
  without times of their own.
"""

from __future__ import annotations

import re
import sys
from array import array
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

import orjson

from taskserver.dagmodel import Run
from taskserver.model import MICROSECONDS, Chunk, Lines, Place, Stream, Task

SEPARATOR = b",\n"

# What JSON escapes of what programs print; the backslash first, since the others bring one.
_ESCAPES = ((b"\\", b"\\\\"), (b'"', b'\\"'), (b"\t", b"\\t"), (b"\r", b"\\r"), (b"\x1b", b"\\u001b"))

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
SIDE_WIDTH = 8  # bytes of a number in a side column
_STREAMS = tuple(Stream)
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


# --- lines in ------------------------------------------------------------------


def split_text(data: bytes) -> list[str]:
    """Split raw output into lines (CONTRACTS A4).

    ``\\n`` and ``\\r\\n`` end a line, a last line without newline counts, and what
    is not UTF-8 becomes U+FFFD. A lone ``\\r`` (progress bars) stays in its line.
    """
    text = data.decode("utf-8", "replace")
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return lines


def encode_lines(texts: Sequence[str], time_us: int, stream: Stream = Stream.STDOUT) -> Lines:
    """Encode lines that share one time and one stream.

    Raises TypeError if a text holds a lone surrogate, which UTF-8 cannot carry.
    """
    return Lines(len(texts), encode_texts(texts), _one_side(time_us, stream) if texts else b"")


def encode_text(data: bytes, time_us: int, stream: Stream = Stream.STDOUT) -> Lines:
    """Encode raw output: what ``encode_lines`` makes of ``split_text``, at a third of the cost.

    What programs print is nearly JSON already. What is to be escaped is replaced
    in all lines at once; whether that was everything, the length of orjson's own
    encoding tells, which is quickly made of a single string. (A newline counts
    two there; any character that was left out would make it longer.)
    """
    if b"\r" in data:  # looking for one byte is ten times faster
        data = data.replace(b"\r\n", b"\n")
    if data.endswith(b"\n"):
        data = data[:-1]
    elif not data:
        return Lines(0, b"", b"")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
        data = text.encode()
    newlines = data.count(b"\n")
    size = len(orjson.dumps(text)) - newlines - 2
    if size > len(data):
        for character, escaped in _ESCAPES:
            data = data.replace(character, escaped)
    if size != len(data):
        return encode_lines(text.split("\n"), time_us, stream)
    return Lines(newlines + 1, b'"' + data.replace(b"\n", b'",\n"') + b'"', _one_side(time_us, stream))


def encode_records(records: Sequence[tuple[str, int, Stream]]) -> Lines:
    """Encode lines that bring their own time (microseconds) and stream each."""
    side = _pack(time_us << 1 | stream for _, time_us, stream in records)
    return Lines(len(records), encode_texts([text for text, _, _ in records]), shorten_side(side))


def encode_texts(texts: Sequence[str]) -> bytes:
    """The payload of some lines.

    One call into orjson for all of them: its indentation puts each string on a
    line of its own, fifteen times faster than encoding them one by one. The
    replacement is safe because no string can contain a raw newline.
    """
    if not texts:
        return b""
    return orjson.dumps(texts, option=orjson.OPT_INDENT_2)[4:-2].replace(b"\n  ", b"\n")


def merge_lines(parts: Sequence[Lines]) -> Lines:
    """Join several appends into one; their order is kept."""
    if len(parts) == 1:
        return parts[0]
    return Lines(
        sum(part.count for part in parts),
        SEPARATOR.join(part.payload for part in parts),
        shorten_side(b"".join(expand_side(part.side, part.count) for part in parts)),
    )


# --- lines out -----------------------------------------------------------------


def cut(chunk: Chunk, first: int, end: int) -> Chunk:
    """The part of a chunk that lies in ``[first, end)``; the chunk itself if that is all of it."""
    first, end = max(first, chunk.first), min(end, chunk.end)
    if first == chunk.first and end == chunk.end:
        return chunk
    if first >= end:
        return Chunk(first, 0, b"")
    start, count = first - chunk.first, end - first
    # Looking for one byte is ten times faster than for two, and only the lines up to the nearer end are looked at.
    if end - chunk.first <= chunk.end - first:
        lines = chunk.payload.split(b"\n", start + count)[start : start + count]
    else:
        lines = chunk.payload.rsplit(b"\n", chunk.count - start)[1 : 1 + count]
    return Chunk(first, count, b"\n".join(lines).removesuffix(b","), cut_side(chunk.side, start, count))


def cut_side(side: bytes, start: int, count: int) -> bytes:
    """The part of a side column that belongs to ``count`` lines from the ``start``-th on."""
    return side if len(side) == SIDE_WIDTH else side[start * SIDE_WIDTH : (start + count) * SIDE_WIDTH]


def count_lines(payload: bytes) -> int:
    """How many lines a payload has that is not empty."""
    return payload.count(b"\n") + 1


def decode_texts(payload: bytes) -> list[str]:
    """The lines of a payload as text."""
    texts: list[str] = orjson.loads(b"[" + payload + b"]")
    return texts


def raw_text(payload: bytes) -> bytes:
    """The lines of a payload as they were printed, each ended by a newline."""
    return ("\n".join(decode_texts(payload)) + "\n").encode() if payload else b""


def decode_side(side: bytes, count: int) -> list[tuple[int, Stream]]:
    """Time (microseconds) and stream of each of ``count`` lines."""
    values = array("Q", expand_side(side, count))
    if sys.byteorder == "big":  # pragma: no cover - no such machine in CI
        values.byteswap()
    return [(value >> 1, _STREAMS[value & 1]) for value in values]


def expand_side(side: bytes, count: int) -> bytes:
    """The long form of a side column: one number per line."""
    return side * count if len(side) == SIDE_WIDTH else side


def shorten_side(side: bytes) -> bytes:
    """The short form of a side column if all its numbers are equal, else the column itself."""
    one = side[:SIDE_WIDTH]
    return one if side == one * (len(side) // SIDE_WIDTH) else side


def _one_side(time_us: int, stream: Stream) -> bytes:
    return (time_us << 1 | stream).to_bytes(SIDE_WIDTH, "little")


def _pack(values: Iterable[int]) -> bytes:
    packed = array("Q", values)
    if sys.byteorder == "big":  # pragma: no cover - no such machine in CI
        packed.byteswap()
    return packed.tobytes()


# --- answers -------------------------------------------------------------------


def isotime(time_us: int | None) -> str | None:
    """RFC 3339 in UTC with microseconds, such as ``2026-11-20T19:41:59.830168Z``."""
    if time_us is None:
        return None
    seconds, microseconds = divmod(time_us, MICROSECONDS)
    return f"{_isosecond(seconds)}.{microseconds:06d}Z"


@lru_cache(maxsize=1024)  # lines of a second have all but the fraction in common, which is nine tenths of the work
def _isosecond(seconds: int) -> str:
    # Not strftime: it writes the year 374 with three digits.
    return (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()


@lru_cache(1024)  # lines that were printed together often have one time
def parse_time(text: str) -> int:
    """The microseconds of an RFC 3339 time with an offset, later than 1970. Raises ValueError."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError("not an RFC 3339 time with an offset, such as 2026-11-20T19:41:59.83Z")
    fraction = ((match[2] or "") + "000000")[:6]
    offset = "+00:00" if match[3] in "Zz" else match[3]
    moment = datetime.fromisoformat(f"{match[1]}.{fraction}{offset}")
    time_us = (moment - _EPOCH) // timedelta(microseconds=1)
    if time_us < 0:
        raise ValueError("lies before 1970")
    return time_us


def dumps(value: Any) -> bytes:
    """JSON as UTF-8 bytes. NaN and infinities become null, as JSON has no word for them."""
    return orjson.dumps(value)


def task_summary(task: Task) -> dict[str, Any]:
    """What lists tell of a task: all of A1 but its output and result."""
    return {
        "id": task.id,
        "name": task.name,
        "state": task.state.value,
        "finished": task.finished,
        "code": task.code,
        "error": task.error,
        "last": task.last,
        "labels": dict(task.labels),
        "created_at": isotime(task.created_at),
        "started_at": isotime(task.started_at),
        "finished_at": isotime(task.finished_at),
        "lease": None if task.lease_us is None else task.lease_us / 1_000_000,
        "cancel_requested": task.cancel_requested,
        "run": _place_summary(task.place),
    }


def _place_summary(place: Place | None) -> dict[str, Any] | None:
    if place is None:
        return None
    return {
        "id": str(place.run),
        "task_id": place.task_id,
        "map_index": place.map_index,
        "try_number": place.try_number,
    }


def run_summary(run: Run) -> dict[str, Any]:
    """A run as our own API tells it; the claim is between the server and its claimant."""
    return {
        "id": str(run.id),
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "state": run.state.value,
        "finished": run.finished,
        "error": run.error,
        "conf": orjson.Fragment(run.conf),
        "metadata": None if run.metadata is None else orjson.Fragment(run.metadata),
        "tag": run.tag,
        "note": run.note,
        "attempt": run.attempt,
        "queued_at": isotime(run.queued_at),
        "run_after": isotime(run.run_after),
        "started_at": isotime(run.started_at),
        "finished_at": isotime(run.finished_at),
        "cancel_requested": run.cancel_requested,
    }


def task_head(task: Task) -> bytes:
    """A task as JSON up to the opening bracket of its output (CONTRACTS A1).

    State and ``last`` come first, so that a large answer can be streamed behind
    them; ``task_tail`` closes it.
    """
    result = b"null" if task.result is None else task.result
    return dumps(task_summary(task))[:-1] + b',"result":' + result + b',"output":['


TASK_TAIL = b"]}"


def encode_event(task: Task) -> bytes:
    """A task's transition as a line of its run's event log: a JSON object, which can hold no raw newline either."""
    return dumps(event_fields(task))


def event_fields(task: Task) -> dict[str, Any]:
    """What a run's event says of a task (CONTRACTS C)."""
    assert task.place is not None
    duration = None
    if task.started_at is not None and task.finished_at is not None:
        duration = (task.finished_at - task.started_at) // 1000
    return {
        "execution_id": str(task.place.run),
        "task_id": task.place.task_id,
        "map_index": task.place.map_index,
        "status": task.state.value,
        "started_at": isotime(task.started_at),
        "completed_at": isotime(task.finished_at),
        "duration_ms": duration,
        "error": task.error,
    }
