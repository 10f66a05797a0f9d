"""Health checks, and the answers under paths that belong to no protocol."""

from __future__ import annotations

from aiohttp import web

from taskserver.errors import Draining, StoreUnavailable, TaskServerError
from taskserver.keys import Caller
from taskserver.web.context import services
from taskserver.web.failures import headers, status
from taskserver.web.rooms import Room, Route


async def healthz(request: web.Request) -> web.StreamResponse:
    """The process runs and its event loop turns."""
    return web.json_response({"status": "ok"})


async def readyz(request: web.Request) -> web.StreamResponse:
    """The server takes requests: the store answers, and no shutdown is under way."""
    if services(request).waits.draining:
        return web.json_response({"status": "draining"}, status=503, headers=headers(Draining("")))
    try:
        await services(request).store.ping()
    except StoreUnavailable as error:
        body = {"status": "store unavailable", "error": error.message}
        return web.json_response(body, status=503, headers=headers(error))
    return web.json_response({"status": "ok"})


def health_room() -> Room:
    """The room of everything that belongs to no other."""
    routes = (Route("GET", "/healthz", healthz, None), Route("GET", "/readyz", readyz, None))
    return Room("health", ("",), routes, _nobody, _refuse)


async def _nobody(request: web.Request) -> Caller:
    raise AssertionError("no route of this room needs a key")


def _refuse(error: TaskServerError) -> web.Response:
    return web.json_response({"error": error.message}, status=status(error))
