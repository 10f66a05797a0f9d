"""Wakeup: the interface of "look again at X", and the implementation within one process.

A wake-up carries no data and promises nothing: it may come without a cause,
and a lost one costs latency only, because every wait looks again by itself at
a slow interval. What is true stands in the store.
"""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Iterable
from time import perf_counter


class Subscription:
    """One waiter's interest in some topics. Use it as a context manager.

    The order that loses nothing: ``clear``, then read, then ``wait``. What is
    published after ``clear`` makes the next ``wait`` return at once.
    """

    __slots__ = ("_flag", "_future", "_since", "_topics", "_wakeup")

    def __init__(self, wakeup: LocalWakeup, topics: tuple[str, ...]) -> None:
        self._wakeup = wakeup
        self._topics = topics
        self._flag = False
        self._since: float | None = None
        self._future: asyncio.Future[None] | None = None

    def __enter__(self) -> Subscription:
        self._wakeup.add(self, self._topics)
        return self

    def __exit__(self, *exc: object) -> None:
        self._wakeup.discard(self, self._topics)

    def listen(self, topic: str) -> None:
        """Be woken by one more topic. Whoever adds one has to ``ignore`` it again."""
        self._wakeup.add(self, (topic,))

    def ignore(self, topic: str) -> None:
        """Be woken by a topic no more."""
        self._wakeup.discard(self, (topic,))

    def clear(self) -> float | None:
        """Forget the wake-ups so far; call it before reading.

        Returns when the first of them was published, by ``time.perf_counter``; None if there was none.
        """
        since, self._since = self._since, None
        self._flag = False
        return since

    def wake(self, published: float | None = None) -> None:
        """Let ``wait`` return."""
        self._flag = True
        if self._since is None:
            self._since = published
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def wait(self, timeout: float) -> bool:
        """Wait for a wake-up since ``clear``, at most ``timeout`` seconds; tell whether one came."""
        if self._flag:
            return True
        loop = asyncio.get_running_loop()
        self._future = future = loop.create_future()
        # A timer that wakes the future is a fifth of what asyncio.wait_for costs.
        timer = loop.call_later(timeout, _set_if_waiting, future)
        try:
            await future
        finally:
            timer.cancel()
            self._future = None
        return self._flag


def _set_if_waiting(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Wakeup(abc.ABC):
    """Tells waiters, here and in other processes, to look again."""

    @abc.abstractmethod
    def subscribe(self, *topics: str) -> Subscription:
        """Interest in any of the topics. It counts from entering the context on."""

    @abc.abstractmethod
    def publish(self, topics: Iterable[str]) -> None:
        """Wake all that subscribe to any of the topics. Never blocks, never raises; a repeat is harmless."""

    @abc.abstractmethod
    def publish_here(self, topics: Iterable[str]) -> None:
        """The same for the waiters of this process only: the others find out by themselves."""

    @abc.abstractmethod
    def wake_all(self) -> None:
        """Wake every waiter of this process, for example when it shuts down."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Let go of connections. A repeat does nothing."""


class LocalWakeup(Wakeup):
    """Wake-ups within one process."""

    def __init__(self) -> None:
        # Dictionaries as ordered sets: waiters are woken in the order in which they came.
        self._topics: dict[str, dict[Subscription, None]] = {}

    def subscribe(self, *topics: str) -> Subscription:
        return Subscription(self, topics)

    def publish(self, topics: Iterable[str]) -> None:
        now = perf_counter()
        for topic in topics:
            for subscription in self._topics.get(topic, ()):
                subscription.wake(now)

    def publish_here(self, topics: Iterable[str]) -> None:
        self.publish(topics)

    def wake_all(self) -> None:
        self.publish(list(self._topics))

    async def close(self) -> None:
        self.wake_all()

    def subscribers(self, topic: str) -> int:
        """How many waits are open on a topic."""
        return len(self._topics.get(topic, ()))

    def add(self, subscription: Subscription, topics: tuple[str, ...]) -> None:
        """Called by a subscription that begins."""
        for topic in topics:
            self._topics.setdefault(topic, {})[subscription] = None

    def discard(self, subscription: Subscription, topics: tuple[str, ...]) -> None:
        """Called by a subscription that ends."""
        for topic in topics:
            subscribers = self._topics.get(topic)
            if subscribers is not None:
                subscribers.pop(subscription, None)
                if not subscribers:
                    del self._topics[topic]
