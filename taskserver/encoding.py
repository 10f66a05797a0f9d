"""Pure functions: lines to stored fragments and back.

Rules of the stored form:

- A payload is the JSON strings of its lines joined by ``,\\n``. A raw newline
  cannot stand inside a JSON string (RFC 8259, section 7), so the separator is
  found without parsing, an answer is a join of bytes, and a part of a payload
  is a payload.
- A *bare* payload leaves out the quotes and the commas, so only newlines are
  left between the lines. Without a backslash it is the text as it was printed,
  and it becomes JSON by replacing one byte, where the opposite takes five times
  as long. What is read as a whole, the output of tasks that have ended, is kept
  so; what is told line by line to those who wait is quoted already.
- A side column keeps time and stream of each line: one little-endian unsigned
  64-bit number per line, ``time in microseconds << 1 | stream``. A single
  number stands for all lines of the chunk: lines that came in one request
  without times of their own.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence

import orjson

from taskserver.model import Chunk, Lines, Stream

SEPARATOR = b",\n"

# What JSON escapes of what programs print; the backslash first, since the others bring one.
_ESCAPES = ((b"\\", b"\\\\"), (b'"', b'\\"'), (b"\t", b"\\t"), (b"\r", b"\\r"), (b"\x1b", b"\\u001b"))

SIDE_WIDTH = 8  # bytes of a number in a side column
_STREAMS = tuple(Stream)


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
    payload = b"\n".join(lines)
    if not chunk.bare:
        payload = payload.removesuffix(b",")
    return Chunk(first, count, payload, cut_side(chunk.side, start, count), chunk.bare)


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


def bare(payload: bytes) -> bytes:
    """The bare form of a payload that is not empty."""
    return payload[1:-1].replace(b'",\n"', b"\n")


def json_pieces(chunks: Sequence[Chunk], newline: bytes = b"\n") -> list[bytes]:
    """The lines of chunks as one payload, in pieces to be joined; ``newline`` takes the place of its newlines.

    Pieces, because a large answer is best put together in one go with what stands around it.
    """
    pieces: list[bytes] = []
    for chunk in chunks:
        if pieces:
            pieces += (b",", newline)
        if chunk.bare:
            pieces += (b'"', chunk.payload.replace(b"\n", b'",' + newline + b'"'), b'"')
        else:
            pieces.append(chunk.payload if newline == b"\n" else chunk.payload.replace(b"\n", newline))
    return pieces


def quoted(chunk: Chunk) -> bytes:
    """A chunk's payload, if need be from its bare form."""
    return b"".join(json_pieces([chunk])) if chunk.bare else chunk.payload


def raw_text(chunk: Chunk) -> bytes:
    """The lines of a chunk as they were printed, without the last one's newline."""
    if not chunk.bare:
        return "\n".join(decode_texts(chunk.payload)).encode()
    if b"\\" not in chunk.payload:
        return chunk.payload
    text: str = orjson.loads(b'"' + chunk.payload.replace(b"\n", b"\\n") + b'"')  # all lines are one string
    return text.encode()


def decode_side(side: bytes, count: int) -> list[tuple[int, Stream]]:
    """Time (microseconds) and stream of each of ``count`` lines."""
    values = array("Q", expand_side(side, count))
    if sys.byteorder == "big":  # pragma: no cover - no such machine in CI
        values.byteswap()
    return [(value >> 1, _STREAMS[value & 1]) for value in values]


def side_runs(side: bytes, count: int) -> Iterator[tuple[int, int, Stream]]:
    """Time (microseconds) and stream of ``count`` lines: how many lines in a row share them, and what they are.

    Lines that came together do, so a few comparisons of long parts find where a run ends.
    """
    if len(side) == SIDE_WIDTH:
        yield count, *_side(side)
        return
    start = 0
    while start < count:
        one = side[start * SIDE_WIDTH : (start + 1) * SIDE_WIDTH]
        end, step = start + 1, 1
        while step:
            if side.startswith(one * step, end * SIDE_WIDTH):
                end += step
                step *= 2
            else:
                step //= 2
        yield end - start, *_side(one)
        start = end


def _side(one: bytes) -> tuple[int, Stream]:
    value = int.from_bytes(one, "little")
    return value >> 1, _STREAMS[value & 1]


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
