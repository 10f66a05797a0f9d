"""Waits: who waits in this process, and the waiting loop of those who wait for themselves.

(``audience`` has the other one, of those who wait together.)

Every wait follows one order: subscribe, then read, then wait for "look again",
so that nothing can happen unseen between the reading and the waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from taskserver.config import Limits, Timing
from taskserver.errors import TooManyWaiters
from taskserver.keys import Caller
from taskserver.wakeup import Subscription, Wakeup

T = TypeVar("T")

Look = Callable[[], Awaitable[tuple[T, bool]]]
"""Reads what is waited for; the flag says that it needs no more waiting."""


class Wait:
    """A place among the waiters of this process, and what wakes it; ``Waits.open`` gives it."""

    __slots__ = ("_caller", "_reread", "_subscription", "_waits")

    def __init__(self, waits: Waits, caller: Caller, subscription: Subscription, reread: float) -> None:
        self._waits = waits
        self._caller = caller
        self._subscription = subscription
        self._reread = reread

    async def until(self, timeout: float, look: Look[T]) -> tuple[T, bool]:
        """Look until there is no more to wait for, ``timeout`` seconds have passed or the server drains.

        Returns what was seen last, and whether it needs no more waiting. Looks
        at least once, and may be called again. Raises BadCredential as soon as
        the caller's key is revoked or expires, and what ``look`` raises.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            self._subscription.clear()
            self._caller.check()
            answer, done = await look()
            left = deadline - loop.time()
            if done or left <= 0 or self._waits.draining:
                return answer, done
            await self._subscription.wait(min(left, self._reread, self._caller.seconds_left()))


class Waits:
    """The open waits of this process; they end together when the server drains."""

    def __init__(self, wakeup: Wakeup, limits: Limits, timing: Timing) -> None:
        self._wakeup = wakeup
        self._limits = limits
        self._timing = timing
        self._draining = False
        self._count = 0
        self._by_key: dict[str, int] = {}  # of keys that wait

    @property
    def draining(self) -> bool:
        """Whether the server is shutting down."""
        return self._draining

    @property
    def count(self) -> int:
        """How many waits are open."""
        return self._count

    @property
    def reread(self) -> float:
        """Seconds after which a wait looks again by itself."""
        return self._timing.reread

    def drain(self) -> None:
        """Let every wait return what it saw last, at once, and let no new one begin."""
        self._draining = True
        self._wakeup.wake_all()

    @contextmanager
    def open(self, caller: Caller, topic: str) -> Iterator[Wait]:
        """A wait for as long as the context lasts: a stream keeps its place also while it writes.

        Raises TooManyWaiters.
        """
        self.enter(caller)
        try:
            with self.subscribe(topic, caller.topic) as subscription:
                yield Wait(self, caller, subscription, self.reread)
        finally:
            self.leave(caller)

    def enter(self, caller: Caller) -> None:
        """Take a place among the waiters; whoever has one must ``leave``. Raises TooManyWaiters."""
        self.check_room(caller)
        self._count += 1
        self._by_key[caller.key_id] = self._by_key.get(caller.key_id, 0) + 1

    def leave(self, caller: Caller) -> None:
        """Give a place back."""
        self._count -= 1
        left = self._by_key[caller.key_id] - 1
        if left:
            self._by_key[caller.key_id] = left
        else:
            del self._by_key[caller.key_id]

    def check_room(self, caller: Caller) -> None:
        """Raise TooManyWaiters if there is no place left, or none for this key."""
        if self._count >= self._limits.waiters:
            raise TooManyWaiters(f"{self._count} requests are waiting already, which is the limit; try again later")
        most = self._limits.waiters_per_key
        if most is not None and self._by_key.get(caller.key_id, 0) >= most:
            raise TooManyWaiters(f"{most} requests are waiting with this key already, which is its limit")

    def subscribe(self, *topics: str) -> Subscription:
        """What wakes those who wait for something."""
        return self._wakeup.subscribe(*topics)

    async def until(self, caller: Caller, topic: str, timeout: float, look: Look[T]) -> T:
        """One wait; see ``Wait.until``. Raises TooManyWaiters, but takes no place if there is nothing to wait for."""
        answer, done = await look()
        if done or timeout <= 0 or self._draining:
            return answer
        with self.open(caller, topic) as wait:
            answer, _ = await wait.until(timeout, look)
            return answer
