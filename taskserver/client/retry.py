"""When to ask again, and how long to wait before."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
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
    ask: Callable[[], Awaitable[T]], patience: float | None, heals: Callable[[Exception], bool] = is_transient
) -> T:
    """Ask until there is an answer, or an error that waiting does not heal, or ``patience`` seconds are over."""
    began, backoff = time.monotonic(), Backoff()
    while True:
        try:
            return await ask()
        except (ApiError, Unreachable) as error:
            pause = backoff.next(getattr(error, "retry_after", None))
            over = patience is not None and time.monotonic() + pause > began + patience
            if over or not heals(error):
                raise
        await asyncio.sleep(pause)
