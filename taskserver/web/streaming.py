"""Answers that are written in parts, with bounded memory however long they are."""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable, Mapping
from dataclasses import dataclass

from aiohttp import web
from aiohttp.http import StreamWriter

from taskserver.config import KIB, MIB
from taskserver.web.requests import leave_untimed

NO_STORE = {"Cache-Control": "no-store"}
UNSENT_BYTES = 128 * KIB  # that the kernel takes for a reader; without a bound it takes megabytes for one that stopped
TURN = 0.001  # seconds for which a stream may write before others have a turn
# Proxies must hand each part on at once: nginx' word for it, and the standard's (RFC 10036).
LIVE = {**NO_STORE, "X-Accel-Buffering": "no", "Incremental": "?1"}


async def stream(
    request: web.Request, parts: AsyncIterator[bytes], content_type: str, headers: Mapping[str, str] = NO_STORE
) -> web.StreamResponse:
    """Answer 200 with the parts as they come.

    The first part is awaited before the headers are sent, so what fails there
    is still answered with its true status; it may be empty, to have the headers
    sent. What fails later cuts the connection: the client must not take half an
    answer for a whole one.
    """
    leave_untimed(request)
    first, loop = await anext(parts, b""), asyncio.get_running_loop()
    _bound_unsent(request)
    response = web.StreamResponse(headers={**headers, "Content-Type": content_type})
    await response.prepare(request)
    try:
        if request.method != "HEAD":
            if first:
                await response.write(first)
            turn = loop.time() + TURN
            async for part in parts:
                await response.write(part)  # waits while the client is slow
                if loop.time() >= turn:  # otherwise it need not wait: others have a turn all the same
                    await asyncio.sleep(0)
                    turn = loop.time() + TURN
    except Exception:
        abort(request)
        raise ConnectionResetError("the answer broke off") from None
    await response.write_eof()
    return response


def _bound_unsent(request: web.Request) -> None:
    sock = None if request.transport is None else request.transport.get_extra_info("socket")
    if sock is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def abort(request: web.Request) -> None:
    """Cut the connection."""
    if request.transport is not None:
        request.transport.abort()


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a stream, made once for many connections; with the ``last`` one the body ends."""

    plain: bytes
    chunked: bytes
    last: bool


def make_part(data: bytes, *, last: bool = False) -> Part:
    """Data as it is, and as a chunk of a chunked body (RFC 9112, 7.1)."""
    chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
    return Part(data, chunk + b"0\r\n\r\n" if last else chunk, last)


def write_part(request: web.Request, part: Part) -> bool:
    """Write a part now, for a handler that waits with its response prepared and finds nothing left to do.

    False, and nothing is written, if the client has left or is slow.
    """
    writer = request.writer
    assert isinstance(writer, StreamWriter)
    transport = writer.transport
    if transport is None or transport.is_closing() or request.protocol.writing_paused:  # uvloop raises on a closed one
        return False
    data = part.chunked if writer.chunked else part.plain
    if data:
        transport.write(data)
        writer.output_size += len(data)
    if part.last:
        writer.chunked = False  # the body's end is written: aiohttp must not write it again
        writer.set_eof()
    return True


class EncodeOnce:
    """Encoded pages and answers of the last moments: those who ask for the same get the same bytes.

    A key names what can never change, so an entry is never wrong. Only a few are
    kept, because those who follow one task ask at almost the same time.
    """

    ENTRIES = 1024
    MAX_BYTES = 8 * MIB

    def __init__(self) -> None:
        self._entries: OrderedDict[Hashable, bytes] = OrderedDict()
        self._size = 0

    def find(self, key: Hashable) -> bytes | None:
        """What was kept under a key and is still here."""
        return self._entries.get(key)

    def keep(self, key: Hashable, encoded: bytes) -> bytes:
        """Keep bytes for a while; returns them."""
        self._size += len(encoded) - len(self._entries.pop(key, b""))
        self._entries[key] = encoded
        while self._size > self.MAX_BYTES or len(self._entries) > self.ENTRIES:
            self._size -= len(self._entries.popitem(last=False)[1])
        return encoded

    def get(self, key: Hashable, encode: Callable[[], bytes]) -> bytes:
        """The bytes for a key, made by ``encode`` if they are not here."""
        encoded = self._entries.get(key)
        return self.keep(key, encode()) if encoded is None else encoded
