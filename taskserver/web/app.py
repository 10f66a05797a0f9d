"""The wiring: opens the services, builds the rooms and closes everything in order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from aiohttp import HttpVersion11, web

from taskserver.api.airflow import airflow_rooms
from taskserver.api.dashboard import DASHBOARD_ROUTES
from taskserver.api.docs import DOCS_ROUTES
from taskserver.api.executions import executions_room
from taskserver.api.health import health_room
from taskserver.api.tasks import tasks_room
from taskserver.audience import Audiences
from taskserver.config import Settings
from taskserver.feed import Feed
from taskserver.keys import Keys
from taskserver.runs import Runs
from taskserver.store import AnyChange, Change, RunChange, Store
from taskserver.tasks import Tasks
from taskserver.tokens import Tokens
from taskserver.upkeep import Upkeep
from taskserver.waiting import Waits
from taskserver.wakeup import LocalWakeup, Wakeup
from taskserver.web.context import SERVICES, Services
from taskserver.web.endpoint import endpoint, no_endpoint
from taskserver.web.openapi import DOCUMENT, encode_document
from taskserver.web.rooms import Room


def make_services(settings: Settings, store: Store, wakeup: Wakeup | None = None, *, upkeep: bool = True) -> Services:
    """The services over an open store; ``make_app`` starts and stops them.

    ``wakeup`` is the store's, if other processes change it by themselves. Without
    ``upkeep`` another process looks after the store.
    """
    wakeup = wakeup or LocalWakeup()
    waits = Waits(wakeup, settings.limits, settings.timing)
    tasks = Tasks(store, wakeup, waits, settings)
    runs = Runs(store, wakeup, waits, settings)
    keys = Keys(store, wakeup)
    feed = Feed(store, wakeup)
    keeper = Upkeep(store, settings.timing) if upkeep else None

    def committed(changes: Sequence[AnyChange]) -> None:
        tasks.committed([change for change in changes if isinstance(change, Change)])
        runs.committed([change for change in changes if isinstance(change, RunChange)])
        keys.committed(changes)
        feed.committed(changes)
        if keeper is not None:
            keeper.committed(changes)

    store.listen(committed)
    tokens, audiences = Tokens(store, keys), Audiences(waits)
    return Services(settings, store, wakeup, waits, tasks, runs, keys, tokens, audiences, feed, keeper)


def make_rooms() -> tuple[list[Room], Room]:
    """The room of each protocol, and the one of what belongs to none."""
    return [tasks_room(), *airflow_rooms(), executions_room()], health_room(*DASHBOARD_ROUTES, *DOCS_ROUTES)


def make_app(services: Services) -> web.Application:
    """The application with all rooms. The store stays its opener's to close."""
    rooms, other = make_rooms()
    app = web.Application(client_max_size=services.settings.limits.body_bytes)
    app[SERVICES] = services
    app[DOCUMENT] = encode_document([*rooms, other])
    for room in [*rooms, other]:
        add_room(app, room)
    app.router.add_route("*", "/{path:.*}", no_endpoint(services, rooms, fallback=other), expect_handler=_expect)
    app.cleanup_ctx.append(_running)
    app.on_shutdown.append(_drain)
    return app


def add_room(app: web.Application, room: Room) -> None:
    """Serve a room's routes under each of its prefixes."""
    for prefix in room.prefixes:
        # One resource a path: aiohttp tries one after the other.
        paths = dict.fromkeys(route.path for route in room.routes)
        resources = {path: app.router.add_resource(prefix + path) for path in paths}
        for route in room.routes:
            handler = endpoint(app[SERVICES], room, route)
            for method in ("GET", "HEAD") if route.method == "GET" else (route.method,):
                resources[route.path].add_route(method, handler, expect_handler=_expect)


async def _expect(request: web.Request) -> None:
    """Answer ``Expect: 100-continue``; what else a client may expect is ignored (RFC 9110, 10.1.1)."""
    wanted = request.version == HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue"
    if wanted and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def _running(app: web.Application) -> AsyncIterator[None]:
    services = app[SERVICES]
    if services.upkeep is not None:
        await services.upkeep.start()
    yield
    services.waits.drain()
    services.feed.close()
    if services.upkeep is not None:
        await services.upkeep.close()
    await services.wakeup.close()


async def _drain(app: web.Application) -> None:
    """Called when no new connection is accepted any more: lets every open wait answer."""
    app[SERVICES].waits.drain()
