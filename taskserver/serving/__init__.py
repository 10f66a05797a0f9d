"""A server's life: open the store, make sure that somebody has a key, listen, and stop in order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from taskserver.config import Settings
from taskserver.serving.alone import serve_alone
from taskserver.serving.logs import watch_loop
from taskserver.serving.process import allow_connections
from taskserver.serving.supervisor import serve_with_workers

Say = Callable[[str], None]


async def serve(settings: Settings, say: Say) -> None:
    """Serve until SIGTERM or SIGINT. ``say`` gets a line for the operator when something is to be known.

    Raises StartupError if the server cannot start.
    """
    allow_connections()
    stop = asyncio.Event()
    watch_loop()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if settings.workers == 1:
        await serve_alone(settings, say, stop)
    else:
        await serve_with_workers(settings, say, stop)
