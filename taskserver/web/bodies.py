"""Request bodies, before anything is known of what they hold."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from aiohttp import web

from taskserver.errors import BadBody, TooLarge, UnsupportedMediaType
from taskserver.web.context import services
from taskserver.web.requests import leave_untimed

LOOK = 0.5  # seconds between two looks at whether a quiet body can still go on

T = TypeVar("T")


async def read_body(request: web.Request) -> bytes:
    """The whole body, within the limit. Raises TooLarge, UnsupportedMediaType, and BadBody if it is broken."""
    check_encoding(request)
    limit = services(request).settings.limits.body_bytes
    if request.content_length is not None and request.content_length > limit:
        raise TooLarge(f"the body is larger than {limit} bytes")
    # aiohttp counts while it reads (after decompression too) and gives up at client_max_size, which is the same limit.
    if request.content_length is not None or not request.body_exists:
        if request.content.is_eof():  # it came with the head, as small ones do: there is nothing to wait for
            return request.content.read_nowait()
        leave_untimed(request)
        return await request.read()
    return await read_watched(request, request.read(), LOOK, _nothing_more)


async def read_watched(
    request: web.Request, reading: Coroutine[Any, Any, T], pause: float, look: Callable[[], Awaitable[float]]
) -> T:
    """What ``reading`` of a chunked body gives; while there is nothing ``look`` is called, after ``pause`` seconds.

    It tells after how many more it is to be called again. Raises BadBody if the
    body cannot be understood any more, and what ``look`` raises.
    """
    leave_untimed(request)
    # Not wait_for: before Python 3.12 it can lose a cancellation that comes with the reading's own failure.
    task = asyncio.ensure_future(reading)
    try:
        while not task.done():
            await asyncio.wait([task], timeout=pause)
            if not task.done():
                _check_chunks(request)
                pause = await look()
        return task.result()
    finally:
        task.cancel()


def _check_chunks(request: web.Request) -> None:
    """Raise BadBody if the parser has given the body up.

    aiohttp (3.14) then queues an error as the connection's next message and does
    not tell the reader of the body, who would wait until its client leaves. No
    other message can be there before a body has ended.
    """
    if request.protocol._messages and not request.content.is_eof():  # noqa: SLF001 - there is no public sign of it
        raise BadBody("the body's chunked encoding is broken")


async def _nothing_more() -> float:
    return LOOK


def check_encoding(request: web.Request) -> None:
    """Raise UnsupportedMediaType for a compressed body: one that is cut off would look whole, and lose lines."""
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedMediaType(f"the body must not be compressed (Content-Encoding: {encoding})")


def declared_type(request: web.Request) -> str | None:
    """The body's media type in lower case without parameters, or None if the client did not say."""
    header = request.headers.get("Content-Type")
    return None if header is None else header.partition(";")[0].strip().lower()
