"""Answers that are written in parts, with bounded memory however long they are."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping

from aiohttp import web

from taskserver.config import MIB

NO_STORE = {"Cache-Control": "no-store"}
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
    first = await anext(parts, b"")
    response = web.StreamResponse(headers={**headers, "Content-Type": content_type})
    await response.prepare(request)
    try:
        if request.method != "HEAD":
            if first:
                await response.write(first)
            async for part in parts:
                await response.write(part)  # waits while the client is slow
    except Exception:
        abort(request)
        raise ConnectionResetError("the answer broke off") from None
    await response.write_eof()
    return response


def abort(request: web.Request) -> None:
    """Cut the connection."""
    if request.transport is not None:
        request.transport.abort()


class EncodeOnce:
    """Encoded pages of the last moments: followers at the same cursor get the same bytes.

    Lines never change, so an entry is never wrong; only a few are kept, because
    followers of one task read the same page at almost the same time.
    """

    PAGES = 1024
    MAX_BYTES = 8 * MIB

    def __init__(self) -> None:
        self._pages: OrderedDict[tuple[str, int, int, int], bytes] = OrderedDict()
        self._size = 0

    def get(self, key: tuple[str, int, int, int], encode: Callable[[], bytes]) -> bytes:
        """The bytes for (format, log, first, end), made by ``encode`` if they are not here."""
        encoded = self._pages.get(key)
        if encoded is None:
            encoded = self._pages[key] = encode()
            self._size += len(encoded)
            while self._size > self.MAX_BYTES or len(self._pages) > self.PAGES:
                self._size -= len(self._pages.popitem(last=False)[1])
        return encoded
