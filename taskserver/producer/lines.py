"""Raw output to NDJSON records, as ``POST /v1/tasks/{id}/output`` takes them (PROTOCOLS.md, A4). Pure functions.

Rules:

- A line ends at ``\\n`` or ``\\r\\n``; a lone ``\\r`` (progress bars) stays in its line.
- What is not UTF-8 becomes U+FFFD.
- A line longer than the limit becomes several, cut between characters.
- All lines that one read completed share its time.
- What has stood for a while without a newline can be told before it has one (``partial``).
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from taskserver.config import PARTIAL_PAUSE, Limits
from taskserver.encoding import SEPARATOR, encode_texts, split_text
from taskserver.jsontext import isotime
from taskserver.model import MICROSECONDS, Stream
from taskserver.partial import unfinished_text

LINE_BYTES = Limits().line_bytes
LONGEST_CHARACTER = 4  # bytes of UTF-8
REPLACEMENT_BYTES = 3  # U+FFFD in UTF-8: what one undecodable byte may grow to
PARTIAL_AGE = round(PARTIAL_PAUSE * MICROSECONDS)  # that a line must have without being whole


@dataclass(frozen=True)
class Records:
    """``count`` NDJSON records, each ended by a newline."""

    count: int
    data: bytes


class LineCutter:
    """Cuts one stream into lines; what is not a whole line yet is kept for the next call."""

    def __init__(self, stream: Stream, line_bytes: int = LINE_BYTES) -> None:
        self._stream = stream
        self._limit = line_bytes
        self._rest = bytearray()
        self._since = 0
        """When the rest began."""

    def feed(self, data: bytes, time_us: int) -> Records:
        """The lines that ``data`` completes."""
        end = data.rfind(b"\n") + 1
        if end or not self._rest:
            self._since = time_us
        if not end:
            self._rest += data
            return self._records(self._cut_rest(), time_us)
        whole = bytes(self._rest + data[:end])
        self._rest = bytearray(data[end:])
        return self._records(self._split(whole) + self._cut_rest(), time_us)

    def partial(self, time_us: int | None = None) -> bytes:
        """The record of what is unfinished, if it has been for long enough at that time (None: for however long).

        Empty if there is nothing. It may be called in any thread: what is being
        fed meanwhile is in it or not.
        """
        if time_us is not None and time_us - self._since < PARTIAL_AGE:
            return b""
        text = unfinished_text(self._rest)
        return orjson.dumps({"partial": text, "stream": self._stream.name.lower()}) + b"\n" if text else b""

    def end(self, time_us: int) -> Records:
        """The last line, if it has no newline."""
        texts = self._split(bytes(self._rest))
        self._rest.clear()
        return self._records(texts, time_us)

    def _split(self, data: bytes) -> list[str]:
        texts = split_text(data)
        if len(data) * REPLACEMENT_BYTES <= self._limit:
            return texts
        return [piece for text in texts for piece in split_long(text, self._limit)]

    def _cut_rest(self) -> list[str]:
        """The beginning of an unfinished line that is too long already."""
        texts = []
        # One byte more is let in, because it may be the \r of the line's end.
        while len(self._rest) > self._limit + 1:
            end = character_start(self._rest, self._limit)
            texts += split_long(self._rest[:end].decode("utf-8", "replace"), self._limit)
            del self._rest[:end]
        return texts

    def _records(self, texts: list[str], time_us: int) -> Records:
        if not texts:
            return Records(0, b"")
        stream = b'"stream":"stderr",' if self._stream is Stream.STDERR else b""  # stdout is what goes without saying
        head = b'{%b"time":"%b","text":' % (stream, str(isotime(time_us)).encode())
        # The same replacement as in `encode_texts`, and as safe: no JSON string holds a raw newline.
        body = encode_texts(texts).replace(SEPARATOR, b"}\n" + head)
        return Records(len(texts), head + body + b"}\n")


def split_long(text: str, limit: int) -> list[str]:
    """The text in pieces of at most ``limit`` bytes of UTF-8, cut between characters."""
    if len(text) * LONGEST_CHARACTER <= limit:
        return [text]
    data = text.encode()
    pieces, start = [], 0
    while len(data) - start > limit:
        end = character_start(data, start + limit)
        pieces.append(data[start:end].decode())
        start = end
    pieces.append(data[start:].decode())
    return pieces


def character_start(data: bytes | bytearray, position: int) -> int:
    """The nearest position at or before ``position`` that does not lie inside a UTF-8 character."""
    for candidate in range(position, max(position - LONGEST_CHARACTER, 0), -1):
        if data[candidate] & 0b1100_0000 != 0b1000_0000:  # not a continuation byte
            return candidate
    return position  # not UTF-8 at all, so no cut is better than another
