"""The wiring: opens the services, builds the rooms and closes everything in order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

from aiohttp import HttpVersion11, web

from taskserver.api.airflow import airflow_rooms
from taskserver.api.dashboard import DASHBOARD_ROUTES
from taskserver.api.docs import DOCS_ROUTES
from taskserver.api.executions import executions_room
from taskserver.api.health import health_room
from taskserver.api.metrics import metrics_route
from taskserver.api.tasks import tasks_room
from taskserver.audience import Audiences
from taskserver.board import Board
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
from taskserver.web.addresses import TRUSTED_PROXIES
from taskserver.web.bounds import Throttle
from taskserver.web.context import SERVICES, Services
from taskserver.web.cors import Cors
from taskserver.web.endpoint import endpoint, no_endpoint
from taskserver.web.openapi import DOCUMENT, encode_document
from taskserver.web.rooms import Handler, Room
from taskserver.web.signins import SignIns


def make_services(
    settings: Settings,
    store: Store,
    wakeup: Wakeup | None = None,
    *,
    upkeep: bool = True,
    board: Board | None = None,
) -> Services:
    """The services over an open store; ``make_app`` starts and stops them.

    ``wakeup`` is the store's, if other processes change it by themselves. Without
    ``upkeep`` another process looks after the store. ``board`` is where this
    process counts, and the store's meters should be its.
    """
    settings = replace(settings, limits=settings.limits.share(settings.workers))
    wakeup = wakeup or LocalWakeup()
    board = board or Board()
    waits = Waits(wakeup, settings.limits, settings.timing, board.meters)
    tasks = Tasks(store, wakeup, waits, settings)
    runs = Runs(store, wakeup, waits, settings)
    keys = Keys(store, wakeup)
    feed = Feed(store, wakeup)
    keeper = None
    if upkeep:
        keeper = Upkeep(store, settings.timing, meters=board.meters, keep_finished=settings.keep_finished)

    def committed(changes: Sequence[AnyChange]) -> None:
        tasks.committed([change for change in changes if isinstance(change, Change)])
        runs.committed([change for change in changes if isinstance(change, RunChange)])
        keys.committed(changes)
        tasks.partials.committed(changes)
        feed.committed(changes)
        if keeper is not None:
            keeper.committed(changes)

    store.listen(committed)
    return Services(
        settings=settings,
        store=store,
        wakeup=wakeup,
        waits=waits,
        tasks=tasks,
        runs=runs,
        keys=keys,
        tokens=Tokens(store, keys),
        audiences=Audiences(waits),
        feed=feed,
        upkeep=keeper,
        throttle=Throttle(settings.limits),
        sign_ins=SignIns(settings.limits),
        board=board,
    )


def make_rooms(*, open_metrics: bool = False) -> tuple[list[Room], Room]:
    """The room of each protocol, and the one of what belongs to none."""
    other = health_room(metrics_route(open_to_all=open_metrics), *DASHBOARD_ROUTES, *DOCS_ROUTES)
    return [tasks_room(), *airflow_rooms(), executions_room()], other


def make_app(services: Services) -> web.Application:
    """The application with all rooms. The store stays its opener's to close."""
    rooms, other = make_rooms(open_metrics=services.settings.metrics == "open")
    app = web.Application(client_max_size=services.settings.limits.body_bytes)
    app[SERVICES] = services
    app[TRUSTED_PROXIES] = services.settings.trusted_proxies
    app[DOCUMENT] = encode_document([*rooms, other])
    around = _as_it_is
    if services.settings.cors_origins:
        cors = Cors(services.settings.cors_origins)
        app.on_response_prepare.append(cors.add_headers)
        around = cors.around
    for room in [*rooms, other]:
        add_room(app, room, around)
    nowhere = around(no_endpoint(services, rooms, fallback=other))
    app.router.add_route("*", "/{path:.*}", nowhere, expect_handler=_expect)
    app.cleanup_ctx.append(_running)
    app.on_shutdown.append(_drain)
    return app


def _as_it_is(handler: Handler) -> Handler:
    return handler


def add_room(app: web.Application, room: Room, around: Callable[[Handler], Handler] = _as_it_is) -> None:
    """Serve a room's routes under each of its prefixes. ``around`` may put something around each handler."""
    for prefix in room.prefixes:
        # One resource a path: aiohttp tries one after the other.
        paths = dict.fromkeys(route.path for route in room.routes)
        resources = {path: app.router.add_resource(prefix + path) for path in paths}
        for route in room.routes:
            handler = around(endpoint(app[SERVICES], room, route))
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
