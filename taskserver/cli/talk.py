"""Commands that talk to a server: each is a coroutine that gets a client and returns its exit code."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn

from taskserver.cli.exits import ExitCode, WrongUsage, leave, leave_for, leave_for_os
from taskserver.cli.options import connection_options, find_key
from taskserver.client import ApiError, TaskClient, Unreachable

Talk = Callable[..., Awaitable[int]]


def talks(command: Talk, run: Callable[[Coroutine[Any, Any, int]], int] = asyncio.run) -> Callable[..., None]:
    """Make ``async def command(client, **options) -> exit code`` a click callback, with the connection's options.

    ``run`` runs it in an event loop.
    """

    @functools.wraps(command)
    def callback(**options: Any) -> None:
        talk(command, run, **options)

    return connection_options(callback)


def talk(
    command: Talk,
    run: Callable[[Coroutine[Any, Any, int]], int] = asyncio.run,
    /,
    *,
    url: str,
    key: str | None,
    key_file: str | None,
    database: str,
    **options: Any,
) -> NoReturn:
    """Run such a command, and leave with its exit code. (One of them has an option that is named ``command``.)"""
    try:
        client = TaskClient(url, find_key(key, key_file, database))
    except ValueError as error:
        raise WrongUsage(str(error)) from None
    try:
        code = run(_talk(command, client, options))
        sys.stdout.flush()
    except ApiError as error:
        leave_for(error)
    except Unreachable as error:
        leave(ExitCode.UNAVAILABLE, str(error))
    except OSError as error:
        leave_for_os(error)
    except KeyboardInterrupt:
        sys.exit(ExitCode.KEYBOARD)
    sys.exit(code)


async def _talk(command: Talk, client: TaskClient, options: dict[str, Any]) -> int:
    async with client:
        return await command(client, **options)
