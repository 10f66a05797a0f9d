"""When to ask again, and how long to wait before."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from math import inf
from typing import TypeVar

from taskserver.client.answers import ApiError, Unreachable

BACKOFF_FIRST = 0.1  # seconds; a restarted server is found again quickly
BACKOFF_CAP = 5.0  # and one that is away for long is not hammered

TRANSIENT = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""Statuses that say "try again later" to whatever was asked."""

T = TypeVar("T")


class Backoff:
    """How long to wait before each further try: doubling up to ``cap`` seconds, with jitter of a half.

    The jitter keeps clients that lost the same server from coming back in step.
    """

    def __init__(self, first: float = BACKOFF_FIRST, cap: float = BACKOFF_CAP) -> None:
        self._next = first
        self._cap = cap

    def next(self, at_least: float | None = None) -> float:
        """Seconds to wait now; ``at_least`` is a server's wish, obeyed up to the cap."""
        pause = self._next * random.uniform(0.5, 1.0)  # noqa: S311 - jitter is no secret
        self._next = min(self._next * 2, self._cap)
        return max(pause, min(at_least or 0.0, self._cap))


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed later without anybody doing anything about it."""
    return isinstance(error, Unreachable) or (isinstance(error, ApiError) and error.status in TRANSIENT)


def is_away(error: Exception) -> bool:
    """The same for who must not give up: a server that fails (a full disk, a bug) may be repaired too."""
    return is_transient(error) or (isinstance(error, ApiError) and error.status >= HTTPStatus.INTERNAL_SERVER_ERROR)


async def insist(
    ask: Callable[[], Awaitable[T]],
    patience: float | None,
    heals: Callable[[Exception], bool] = is_transient,
    deadline: float = inf,
) -> T:
    """Ask until there is an answer, or an error that waiting does not heal.

    That is given up when ``patience`` seconds (None: no end of them) have passed
    since it first failed, or it is ``deadline`` by ``time.monotonic``. How long
    the request that failed first had been open does not count: a poll may wait
    for a minute, and be cut by a restart at its end.
    """
    failed_at, backoff = inf, Backoff()
    while True:
        try:
            return await ask()
        except (ApiError, Unreachable) as error:
            now, pause = time.monotonic(), backoff.next(getattr(error, "retry_after", None))
            failed_at = min(failed_at, now)
            end = deadline if patience is None else min(deadline, failed_at + patience)
            if now + pause > end or not heals(error):
                raise
        await asyncio.sleep(pause)
