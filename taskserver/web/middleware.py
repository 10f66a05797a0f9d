"""What happens to every request: bounds, and failures turned into answers of the room that was asked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

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

CLIENT_LEFT = 499  # nginx' number for it; seen in the access log only


def answer_failures(rooms: Sequence[Room], fallback: Room) -> Middleware:
    """A middleware that lets no failure leave the server in another shape than its room's.

    ``fallback`` answers under paths that belong to no room.
    """
    find_room = _room_finder(rooms, fallback)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            _check_bounds(request)
            response = await handler(request)
        except ConnectionError:
            # The client has left; there is nobody to answer, and nothing to log.
            return web.Response(status=CLIENT_LEFT)
        except Exception as error:
            failure = _as_failure(request, error)
            response = find_room(request.path).refuse(failure)
            response.headers.extend(headers(failure))
            if request.body_exists and not request.content.is_eof():
                response.force_close()  # nobody will read the rest of the body
        if request.app[SERVICES].waits.draining and not response.prepared:
            response.force_close()
        return response

    return middleware


def _room_finder(rooms: Sequence[Room], fallback: Room) -> Callable[[str], Room]:
    """A function from a path to its room; the longest prefix counts."""
    by_prefix = sorted(((prefix, room) for room in rooms for prefix in room.prefixes), key=lambda pair: -len(pair[0]))

    def find(path: str) -> Room:
        for prefix, room in by_prefix:
            if path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/"):
                return room
        return fallback

    return find


def _check_bounds(request: web.Request) -> None:
    if len(request.raw_path) > MAX_URL_LENGTH:
        raise UrlTooLong(f"the URL is longer than {MAX_URL_LENGTH} bytes")
    for name, value in request.raw_headers:
        if len(value) > MAX_HEADER_LENGTH:
            field = name.decode("ascii", "replace")
            raise HeadersTooLarge(f"the header {field} is longer than {MAX_HEADER_LENGTH} bytes")


def _as_failure(request: web.Request, error: Exception) -> TaskServerError:
    if isinstance(error, TaskServerError):
        return error
    if isinstance(error, web.HTTPMethodNotAllowed):
        return MethodNotAllowed(request.method, request.path, sorted(error.allowed_methods))
    if isinstance(error, web.HTTPNotFound):
        return NoSuchEndpoint(f"there is no {request.method} {request.path}")
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return TooLarge(f"the body is larger than {request.app[SERVICES].settings.limits.body_bytes} bytes")
    if isinstance(error, web.HTTPException):
        return BadRequest(error.reason)
    if isinstance(error, (web.RequestPayloadError, HttpProcessingError)):
        return BadRequest("the body cannot be read: its encoding is broken")
    failure = InternalError("internal error; the server's log has the details")
    log.error("%s %s failed (%s)", request.method, request.path, failure.correlation_id, exc_info=error)
    return failure
