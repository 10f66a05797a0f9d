"""What happens to every request: bounds, and failures turned into answers of the room that was asked."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from taskserver.config import MAX_HEADER_LENGTH, MAX_URL_LENGTH
from taskserver.errors import TaskServerError, TooLarge
from taskserver.web.context import SERVICES
from taskserver.web.failures import (
    BadRequest,
    HeadersTooLarge,
    InternalError,
    MethodNotAllowed,
    NoSuchEndpoint,
    UrlTooLong,
    headers,
)
from taskserver.web.rooms import Room

log = logging.getLogger(__name__)

NextHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Middleware = Callable[[web.Request, NextHandler], Awaitable[web.StreamResponse]]


def answer_failures(rooms: Sequence[Room], fallback: Room) -> Middleware:
    """A middleware that lets no failure leave the server in another shape than its room's.

    ``fallback`` answers under paths that belong to no room.
    """
    by_prefix = sorted(((prefix, room) for room in rooms for prefix in room.prefixes), key=lambda pair: -len(pair[0]))

    def room_of(path: str) -> Room:
        for prefix, room in by_prefix:
            if path.startswith(prefix) and (len(path) == len(prefix) or path[len(prefix)] == "/"):
                return room
        return fallback

    @web.middleware
    async def middleware(request: web.Request, handler: NextHandler) -> web.StreamResponse:
        try:
            _check_bounds(request)
            response = await handler(request)
        except TaskServerError as error:
            failure = error
        except web.HTTPException as error:
            failure = _from_aiohttp(request, error)
        except ConnectionError:
            raise  # the client has left; there is nobody to answer
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            failure = InternalError("internal error; the server's log has the details")
        else:
            if request.app[SERVICES].tasks.draining:
                response.force_close()
            return response
        response = room_of(request.path).refuse(failure)
        response.headers.extend(headers(failure))
        if request.can_read_body and not request.content.is_eof():
            response.force_close()  # the rest of the body would be taken for the next request's time
        return response

    return middleware


def _check_bounds(request: web.Request) -> None:
    if len(request.raw_path) > MAX_URL_LENGTH:
        raise UrlTooLong(f"the URL is longer than {MAX_URL_LENGTH} bytes")
    for name, value in request.raw_headers:
        if len(value) > MAX_HEADER_LENGTH:
            raise HeadersTooLarge(f"the header {name.decode('ascii', 'replace')} is longer than {MAX_HEADER_LENGTH} bytes")


def _from_aiohttp(request: web.Request, error: web.HTTPException) -> TaskServerError:
    if isinstance(error, web.HTTPMethodNotAllowed):
        return MethodNotAllowed(request.method, request.path, sorted(error.allowed_methods))
    if isinstance(error, web.HTTPNotFound):
        return NoSuchEndpoint(f"there is no {request.method} {request.path}")
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return TooLarge(f"the body is larger than {request.app[SERVICES].settings.limits.body_bytes} bytes")
    return BadRequest(error.reason)
