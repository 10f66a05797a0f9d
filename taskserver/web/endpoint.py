"""What happens to every request: bounds, the key, and failures turned into answers of the room that was asked.

One function around each handler does all of it. aiohttp's middlewares would
cost each request two more coroutines, which a request that waits holds on to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from aiohttp import web
from aiohttp.http import HttpProcessingError

from taskserver.config import MAX_HEADER_LENGTH, MAX_URL_LENGTH
from taskserver.errors import BadCredential, TaskServerError, TooLarge
from taskserver.web.context import CALLER, SERVICES, Services
from taskserver.web.failures import (
    BadRequest,
    HeadersTooLarge,
    InternalError,
    MethodNotAllowed,
    NoSuchEndpoint,
    UrlTooLong,
    headers,
)
from taskserver.web.rooms import Handler, Room, Route

log = logging.getLogger(__name__)

CLIENT_LEFT = 499  # nginx' number for it; seen in the access log only


def endpoint(services: Services, room: Room, route: Route) -> Handler:
    """A route's handler as aiohttp is to call it."""
    handler, scope, recall = route.handler, route.scope, room.recall
    admit = None if services.throttle.off or room.unbounded else services.throttle.admit

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            _check_bounds(request)
            key_id = None
            if scope is not None:
                try:
                    caller = recall(request)
                    if caller is None:
                        caller = await room.authenticate(request)
                    caller.require(scope)
                except BadCredential as error:
                    raise services.sign_ins.failed(request, error) from None
                request[CALLER] = caller
                key_id = caller.key_id
            if admit is not None:
                admit(key_id)
            response = await handler(request)
        except Exception as error:
            response = _refuse(request, room, error)
        if services.waits.draining and not response.prepared:
            response.force_close()
        return response

    return answer


def no_endpoint(services: Services, rooms: Sequence[Room], fallback: Room) -> Handler:
    """The handler for paths and methods that no route has. ``fallback`` answers where no room's prefix fits."""
    find_room = _room_finder(rooms, fallback)

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            _check_bounds(request)
            allowed: set[str] = set()
            for resource in request.app.router.resources():
                if resource is not request.match_info.route.resource:
                    allowed |= (await resource.resolve(request))[1]
            if allowed:
                raise MethodNotAllowed(request.method, request.path, sorted(allowed))
            raise NoSuchEndpoint(f"there is no {request.method} {request.path}")
        except Exception as error:
            response = _refuse(request, find_room(request.path), error)
        if services.waits.draining:
            response.force_close()
        return response

    return answer


def _refuse(request: web.Request, room: Room, error: Exception) -> web.Response:
    if isinstance(error, ConnectionError):
        # The client has left; there is nobody to answer, and nothing to log.
        return web.Response(status=CLIENT_LEFT)
    failure = _as_failure(request, error)
    response = room.refuse(failure)
    response.headers.extend(headers(failure))
    if request.body_exists and not request.content.is_eof():
        response.force_close()  # nobody will read the rest of the body
    return response


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
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return TooLarge(f"the body is larger than {request.app[SERVICES].settings.limits.body_bytes} bytes")
    if isinstance(error, web.HTTPException):
        return BadRequest(error.reason)
    if isinstance(error, (web.RequestPayloadError, HttpProcessingError)):
        return BadRequest("the body cannot be read: its encoding is broken")
    failure = InternalError("internal error; the server's log has the details")
    log.error("%s %s failed (%s)", request.method, request.path, failure.correlation_id, exc_info=error)
    return failure
