"""Health checks, and the answers under paths that belong to no protocol."""

from __future__ import annotations

from aiohttp import web
from marshmallow import fields

from taskserver.errors import Draining, StoreUnavailable, TaskServerError
from taskserver.keys import Caller
from taskserver.web.context import services
from taskserver.web.failures import headers, status
from taskserver.web.rooms import Answer, AnswerSchema, Room, Route


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


class Health(AnswerSchema):
    """How the server is."""

    status = fields.String(required=True)
    error = fields.String()


class Failure(AnswerSchema):
    """An error under a path that belongs to no protocol."""

    error = fields.String(required=True)


HEALTH = Health()

ROUTES = (
    Route("GET", "/healthz", healthz, None, answers=(Answer(schema=HEALTH),)),
    Route("GET", "/readyz", readyz, None, answers=(Answer(schema=HEALTH), Answer(503, HEALTH))),
)


def health_room(*others: Route) -> Room:
    """The room of everything that belongs to no protocol, ``others`` included."""
    return Room(
        "other",
        ("",),
        (*ROUTES, *others),
        _nobody,
        _refuse,
        about="Health checks, and this documentation.",
        error=Failure(),
        unbounded=True,
    )


async def _nobody(request: web.Request) -> Caller:
    raise AssertionError("no route of this room needs a key")


def _refuse(error: TaskServerError) -> web.Response:
    return web.json_response({"error": error.message}, status=status(error))
