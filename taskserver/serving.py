"""A server's life: open the store, make sure that somebody has a key, listen, and stop in order."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from taskserver.config import LISTEN_BACKLOG, PARSER_LINE_LIMIT, Settings
from taskserver.errors import BadParameter, KeyNotFound, StartupError
from taskserver.keyfile import key_file_of, read_key, write_key
from taskserver.keys import Keys, key_id, new_secret
from taskserver.model import Scope
from taskserver.stores import open_store
from taskserver.web.app import make_app, make_services

Say = Callable[[str], None]

ADMIN = "admin"
BOOTSTRAP = "bootstrap"


async def serve(settings: Settings, say: Say) -> None:
    """Serve until SIGTERM or SIGINT. ``say`` gets a line for the operator when something is to be known.

    Raises StartupError if the server cannot start.
    """
    _allow_connections()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    store = await open_store(settings.database, synchronous=settings.synchronous)
    try:
        services = make_services(settings, store)
        if settings.bootstrap_key_file is not None:
            await _bootstrap(services.keys, Path(settings.bootstrap_key_file))
        else:
            await _first_key(services.keys, key_file_of(settings.database), say)
        await _listen(make_app(services), settings, say, stop)
    finally:
        await store.close()


def _allow_connections() -> None:
    """Each waiter is an open file: raise this process's limit from the usual 1,024 to what it is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS names a hard limit that it does not grant
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _listen(app: web.Application, settings: Settings, say: Say, stop: asyncio.Event) -> None:
    runner = web.AppRunner(
        app,
        # Without it every departed client would hold its wait open until the wait's end.
        handler_cancellation=True,
        access_log=web.access_logger if settings.access_log else None,  # type: ignore[attr-defined]
        # aiohttp waits so long for a handler, and once more for its cancellation.
        shutdown_timeout=settings.timing.shutdown / 2,
        auto_decompress=False,  # compressed bodies are refused, with an answer in the room's shape
        max_line_size=PARSER_LINE_LIMIT,
        max_field_size=PARSER_LINE_LIMIT,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port, backlog=LISTEN_BACKLOG)
        try:
            await site.start()
        except OSError as error:
            place = f"{settings.host} port {settings.port}"
            raise StartupError(f"cannot listen on {place}: {error.strerror or error}") from error
        say(f"listening on {_url(runner)}")
        await stop.wait()
        say("stopping")
    finally:
        await runner.cleanup()


def _url(runner: web.AppRunner) -> str:
    host, port = runner.addresses[0][:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _first_key(keys: Keys, path: Path, say: Say) -> None:
    """On a first start, make an admin key, show it once and leave it where the CLI finds it."""
    if await keys.list():
        return
    secret = new_secret()
    write_key(path, secret)  # first: a key that was kept and that nobody can read would lock everybody out
    await keys.issue(ADMIN, [Scope.ADMIN], secret=secret)
    say(f"created the API key {ADMIN!r}, also in {path} (shown only this once): {secret}")


async def _bootstrap(keys: Keys, path: Path) -> None:
    """Make the key in ``path`` an admin key; make the key, if there is none in it."""
    secret = read_key(path)
    if not secret:
        await _retire_bootstrap(keys)
        _, secret = await keys.issue(BOOTSTRAP, [Scope.ADMIN])
        write_key(path, secret)
        return
    try:
        known = await keys.find(key_id(secret))
    except KeyNotFound:
        await _retire_bootstrap(keys)
        try:
            await keys.issue(BOOTSTRAP, [Scope.ADMIN], secret=secret)
        except BadParameter as error:
            raise StartupError(f"cannot use the key in {path}: {error.message}") from error
        return
    if known.revoked_at is not None:
        raise StartupError(f"the key in {path} has been revoked; put another one there, or remove the file")


async def _retire_bootstrap(keys: Keys) -> None:
    """The file has another key than before: the one before must not stay valid."""
    try:
        await keys.revoke((await keys.find(BOOTSTRAP)).id)
    except KeyNotFound:
        pass
