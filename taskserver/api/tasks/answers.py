"""The room's JSON answers."""

from __future__ import annotations

from aiohttp import web

from taskserver.encoding import dumps
from taskserver.web.streaming import NO_STORE

JSON = "application/json; charset=utf-8"


def json_answer(value: object, status: int = 200) -> web.Response:
    """A value as the room's JSON."""
    return web.Response(body=dumps(value), status=status, headers={**NO_STORE, "Content-Type": JSON})
