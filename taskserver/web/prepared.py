"""Prepared: an answer that goes out whole in one write, also before its handler knows of it.

aiohttp builds the head of each answer anew from a multidict, through four
coroutines. Most of ours differ in their body only, so the head stands ready
(``Head``), and head and body are one write (``Prepared``).

``write_first`` lets somebody else than the waiting handler write the answer:
those who wait for the same thing get it one after the other in one go, and
their handlers finish afterwards (DESIGN, "The hot path").

Rules (RFC 9112):

- The answer to HTTP/1.0 is HTTP/1.0, and its connection stays open only if the
  client asked for it; the answer then says so. In HTTP/1.1 only ``close`` is said.
- The answer to HEAD has the length of the body, but not the body.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import SERVER_SOFTWARE, HttpVersion10, HttpVersion11
from multidict import CIMultiDict

from taskserver.config import KIB

WITHOUT_BODY = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


class Head:
    """Status line and headers of answers that differ in their body only; for any status that has a body."""

    __slots__ = ("_fixed", "headers", "reason", "status")

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        """Raises ValueError if a header holds what would end it."""
        if status < HTTPStatus.OK or status in WITHOUT_BODY:
            raise ValueError(f"an answer of status {status} has no body")
        self.status = status
        self.reason = HTTPStatus(status).phrase
        self.headers = headers
        lines = [f"{status} {self.reason}", *(f"{name}: {value}" for name, value in headers.items())]
        if any(character in line for line in lines for character in "\r\n\0"):
            raise ValueError("a header must not hold a line's end")
        self._fixed = "\r\n".join(lines).encode()

    def encode(self, length: int, *, http10: bool = False, keep_alive: bool = True, more: bytes = b"") -> bytes:
        """The head of an answer with a body of ``length`` bytes, up to the empty line and with it.

        ``more`` are further header lines, each with its end.
        """
        if http10:
            version, connection = b"0", b"Connection: keep-alive\r\n" if keep_alive else b""
        else:
            version, connection = b"1", b"" if keep_alive else b"Connection: close\r\n"
        return b"HTTP/1.%b %b\r\nContent-Length: %d\r\n%b%b%b\r\n" % (
            version,
            self._fixed,
            length,
            _date_and_server(),
            connection,
            more,
        )


LARGE = 64 * KIB  # a body of which a copy costs more than a second write


OF_ITS_OWN = web.RequestKey("of_its_own", bool)
"""Set on a request whose answer will have header lines of its own (``Prepared.more``), so that nobody else's fits."""


class Prepared(web.StreamResponse):
    """A whole answer. Its headers are the head's, and the lines of ``more``, each with its end."""

    more = b""

    def __init__(self, head: Head, body: bytes) -> None:
        # Not aiohttp's: it makes a multidict and a dictionary that nobody asks for.
        self._head = head
        self._status = head.status
        self._reason = head.reason
        self._body = body

    @property
    def headers(self) -> CIMultiDict[str]:
        """A copy, for the access log."""
        return CIMultiDict(self._head.headers)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write everything, unless that was done already; wait if the client is slow.

        Raises ConnectionResetError if the client has left. Nothing is left to
        ``write_eof``.
        """
        if self._eof_sent:
            return None
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive
        body = self._body
        assert isinstance(body, bytes)
        http10 = request.version <= HttpVersion10
        data = self._head.encode(len(body), http10=http10, keep_alive=self._keep_alive, more=self.more)
        if request.method == "HEAD":
            body = b""
        if len(body) < LARGE:
            data, body = data + body, b""
        if not _write(request, data) or (body and not _write(request, body)):
            raise ConnectionResetError("the client has left")
        self._wrote(len(data) + len(body))
        if request.protocol.writing_paused:
            await request.writer.drain()
        return None

    def _wrote(self, size: int) -> None:
        self._eof_sent = True  # what aiohttp looks at before it prepares or ends a response
        self._body_length = size  # of the access log, which counts the head too


def first_bytes(head: Head, body: bytes) -> bytes:
    """An answer as all those get it that ``may_be_first`` allows for."""
    return head.encode(len(body)) + body


def may_be_first(request: web.BaseRequest) -> bool:
    """Whether the answer is the same for all: HTTP/1.1, with a body, on a connection that stays open."""
    same = request.version == HttpVersion11 and request.method == "GET" and request.keep_alive
    return same and OF_ITS_OWN not in request._state  # noqa: SLF001 - `in request` raises and catches a KeyError


def write_first(request: web.BaseRequest, data: bytes) -> bool:
    """Write a whole answer (``first_bytes``) now, for a handler that still waits.

    False, and nothing is written, if the client has left or does not take what
    it got before: the handler is then to answer by itself. After True it must
    return ``written``.
    """
    return not request.protocol.writing_paused and _write(request, data)


def written(head: Head, data: bytes) -> Prepared:
    """The response of a handler for which ``data`` was written first."""
    response = Prepared(head, b"")
    response._keep_alive = True  # noqa: SLF001 - its own module
    response._wrote(len(data))  # noqa: SLF001
    return response


def _write(request: web.BaseRequest, data: bytes) -> bool:
    transport = request.transport
    if transport is None or transport.is_closing():  # uvloop raises on a closed one
        return False
    transport.write(data)
    request.writer.output_size += len(data)  # tells aiohttp that no other answer can be sent
    return True


_second = 0
_stamp = b""


def _date_and_server() -> bytes:
    """The two headers that aiohttp adds to every answer, made once a second."""
    global _second, _stamp
    now = int(time.time())
    if now != _second:
        _stamp = f"Date: {formatdate(now, usegmt=True)}\r\nServer: {SERVER_SOFTWARE}\r\n".encode()
        _second = now
    return _stamp
