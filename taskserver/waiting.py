"""Waits: the only waiting loop of the program.

Every wait follows one order: subscribe, then read, then wait for "look again",
so that nothing can happen unseen between the reading and the waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from taskserver.config import Limits, Timing
from taskserver.errors import TooManyWaiters
from taskserver.keys import Caller
from taskserver.wakeup import Wakeup

T = TypeVar("T")

Look = Callable[[], Awaitable[tuple[T, bool]]]
"""Reads what is waited for; the flag says that it needs no more waiting."""


class Waits:
    """The open waits of this process; they end together when the server drains."""

    def __init__(self, wakeup: Wakeup, limits: Limits, timing: Timing) -> None:
        self._wakeup = wakeup
        self._limits = limits
        self._timing = timing
        self._draining = False
        self._count = 0

    @property
    def draining(self) -> bool:
        """Whether the server is shutting down."""
        return self._draining

    @property
    def count(self) -> int:
        """How many waits are open."""
        return self._count

    def drain(self) -> None:
        """Let every wait return what it saw last, at once, and let no new one begin."""
        self._draining = True
        self._wakeup.wake_all()

    async def until(self, caller: Caller, topic: str, timeout: float, look: Look[T]) -> T:
        """Look until there is no more to wait for, ``timeout`` seconds have passed or the server drains.

        Returns what was seen last. Raises BadCredential as soon as the caller's
        key is revoked or expires, TooManyWaiters, and what ``look`` raises.
        """
        answer, done = await look()
        if done or timeout <= 0 or self._draining:
            return answer
        if self._count >= self._limits.waiters:
            raise TooManyWaiters(f"{self._count} requests are waiting already, which is the limit; try again later")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        self._count += 1
        try:
            with self._wakeup.subscribe(topic, caller.topic) as subscription:
                while True:
                    subscription.clear()
                    caller.check()
                    answer, done = await look()
                    left = deadline - loop.time()
                    if done or left <= 0 or self._draining:
                        return answer
                    await subscription.wait(min(left, self._timing.reread, caller.seconds_left()))
        finally:
            self._count -= 1

    async def ticks(self, caller: Caller, topic: str, interval: float, look: Look[T]) -> AsyncIterator[T]:
        """What ``look`` sees: at once, then every ``interval`` seconds, and at once when there is no more to wait for.

        Ends after that, or when the server drains. Raises as ``until`` does.
        """
        answer, done = await look()
        yield answer
        while not done and not self._draining:
            answer = await self.until(caller, topic, interval, look)
            _, done = await look()
            yield answer
