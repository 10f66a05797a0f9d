"""The server's figures, for Prometheus (PROTOCOLS.md, "Metrics")."""

from __future__ import annotations

import asyncio

from aiohttp import web

from taskserver.errors import StoreUnavailable
from taskserver.model import Scope
from taskserver.web.context import services
from taskserver.web.exposition import CONTENT_TYPE, expose
from taskserver.web.rooms import Answer, Route
from taskserver.web.streaming import NO_STORE


async def get_metrics(request: web.Request) -> web.StreamResponse:
    """Figures of all processes of this server in Prometheus' text format. They name no task, owner or key."""
    core = services(request)
    try:
        live_tasks = await core.store.count_live_tasks()
    except StoreUnavailable:  # when the store fails the other figures are wanted most
        live_tasks = None
    body = await asyncio.to_thread(expose, core.board, live_tasks)
    return web.Response(body=body, headers={**NO_STORE, "Content-Type": CONTENT_TYPE})


def metrics_route(*, open_to_all: bool) -> Route:
    """The endpoint. It needs a key that may read, unless it is open to all."""
    scope = None if open_to_all else Scope.READ
    return Route("GET", "/metrics", get_metrics, scope, answers=(Answer(types=("text/plain",)),))
