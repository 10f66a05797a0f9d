"""What every process does that answers requests."""

from __future__ import annotations

import contextlib
import logging
import resource

from aiohttp import web

from taskserver.config import BODY_BUFFER, PARSER_LINE_LIMIT, Settings
from taskserver.serving.logs import AccessLog


def allow_connections() -> None:
    """Each waiter is an open file: raise this process's limit from the usual 1,024 to what it is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS names a hard limit that it does not grant
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def make_runner(app: web.Application, settings: Settings) -> web.AppRunner:
    """What runs the application, wherever its connections come from."""
    return web.AppRunner(
        app,
        # Without it every departed client would hold its wait open until the wait's end.
        handler_cancellation=True,
        access_log=logging.getLogger("taskserver.access") if settings.access_log else None,
        access_log_class=AccessLog.behind(settings.trusted_proxies),
        # aiohttp waits so long for a handler, and once more for its cancellation.
        shutdown_timeout=settings.timing.shutdown / 2,
        auto_decompress=False,  # compressed bodies are refused, with an answer in the room's shape
        max_line_size=PARSER_LINE_LIMIT,
        max_field_size=PARSER_LINE_LIMIT,
        read_bufsize=BODY_BUFFER // 2,  # aiohttp stops reading at twice of it
    )
