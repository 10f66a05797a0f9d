"""HTTP for the load generator: requests built once, and a reader that does only what it must."""

from __future__ import annotations

from dataclasses import dataclass

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"
_CHUNKED = b"\r\ntransfer-encoding: chunked"
_EVENTS = b"\r\ncontent-type: text/event-stream"
_EVENT_END = b"\n\n"


class ProtocolError(Exception):
    """The server sent what the load generator does not understand."""


@dataclass(slots=True)
class Response:
    """A status and a whole body."""

    status: int
    body: bytes


def build_request(method: str, target: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """A request with a body of known length (none for a GET)."""
    length = {"Content-Length": str(len(body))} if body or method != "GET" else {}
    return build_head(method, target, {**headers, **length}) + body


def build_head(method: str, target: str, headers: dict[str, str]) -> bytes:
    """A request up to its body."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode("ascii") + _HEAD_END


def build_chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; an empty one ends it."""
    return b"%x\r\n%s\r\n" % (len(data), data)


class ResponseReader:
    """Puts responses together, by Content-Length or chunked, one request being under way at a time.

    Of a chunked body that goes on, ``take_chunks`` gives what is there. So it
    does of server-sent events in a body that ends with the connection only, as
    nchan sends them: each whole event counts as a chunk.
    """

    __slots__ = ("_at", "_buffer", "_chunked", "_endless", "_length", "_parts", "_status")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._start()

    def _start(self) -> None:
        self._status = 0  # 0: the head is not complete yet
        self._at = 0  # where the body, or what is left of it, begins
        self._length = 0
        self._chunked = False
        self._endless = False
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> Response | None:
        """Take what arrived; the response if that was its last byte. Raises ProtocolError."""
        self._buffer += data
        if not self._status and not self._read_head():
            return None
        if self._endless:
            self._read_events()
            return None
        if self._chunked:
            if not self._read_chunks():
                return None
            body = b"".join(self._parts)
        else:
            end = self._at + self._length
            if len(self._buffer) < end:
                return None
            body = bytes(self._buffer[self._at : end])
            self._at = end
        if len(self._buffer) != self._at:
            raise ProtocolError(f"{len(self._buffer) - self._at} bytes came behind a response")
        response = Response(self._status, body)
        self._buffer.clear()
        self._start()
        return response

    def take_chunks(self) -> list[bytes]:
        """The chunks of an unfinished body that have come since the last call; they will not be in the response."""
        if not self._parts:
            return []
        parts, self._parts = self._parts, []
        del self._buffer[: self._at]
        self._at = 0
        return parts

    def _read_head(self) -> bool:
        end = self._buffer.find(_HEAD_END)
        if end < 0:
            return False
        head = bytes(self._buffer[: end + 2]).lower()
        if not head.startswith(b"http/1.1 "):
            raise ProtocolError(f"not a response: {head[:40]!r}")
        self._status = int(head[9:12])
        self._at = end + len(_HEAD_END)
        found = head.find(_LENGTH)
        if found >= 0:
            start = found + len(_LENGTH)
            self._length = int(head[start : head.index(b"\r\n", start)])
        elif _CHUNKED in head:
            self._chunked = True
        elif _EVENTS in head:
            self._endless = True
        elif self._status != 204:
            raise ProtocolError("a response without Content-Length and not chunked")
        return True

    def _read_chunks(self) -> bool:
        """Move on over the chunks that are complete; True at the end of the last one. Trailers are not understood."""
        buffer = self._buffer
        while (line_end := buffer.find(b"\r\n", self._at)) >= 0:
            start = line_end + 2
            end = start + int(buffer[self._at : line_end], 16)
            if len(buffer) < end + 2:
                return False
            self._at = end + 2
            if start == end:
                return True
            self._parts.append(bytes(buffer[start:end]))
        return False

    def _read_events(self) -> None:
        while (end := self._buffer.find(_EVENT_END, self._at)) >= 0:
            end += len(_EVENT_END)
            self._parts.append(bytes(self._buffer[self._at : end]))
            self._at = end
