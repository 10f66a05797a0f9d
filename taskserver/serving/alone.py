"""One process that does everything: the default."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from taskserver.config import LISTEN_BACKLOG, Settings
from taskserver.serving.firstkey import ensure_admin
from taskserver.serving.listening import cannot_listen, url_of
from taskserver.serving.process import make_runner
from taskserver.stores import open_store, open_wakeup
from taskserver.wakeup import Wakeup
from taskserver.web.app import make_app, make_services


async def serve_alone(settings: Settings, say: Callable[[str], None], stop: asyncio.Event) -> None:
    """Serve until ``stop``. Raises StartupError."""
    store = await open_store(settings.database, synchronous=settings.synchronous)
    wakeup: Wakeup | None = None
    try:
        wakeup = await open_wakeup(store, settings.listen_database)
        services = make_services(settings, store, wakeup)
        await ensure_admin(settings, services.keys, say)
        runner = make_runner(make_app(services), settings)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, settings.host, settings.port, backlog=LISTEN_BACKLOG).start()
            except OSError as error:
                raise cannot_listen(settings, error) from error
            say(f"listening on {url_of(runner.addresses[0])}")
            await stop.wait()
            say("stopping")
        finally:
            await runner.cleanup()
    finally:
        if wakeup is not None:
            await wakeup.close()
        await store.close()
