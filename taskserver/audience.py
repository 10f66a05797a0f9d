"""Audiences: those who wait for the same thing are told together, before any of their handlers goes on.

A handler that is woken takes a tenth of a millisecond to finish its answer, so
the last of ten thousand would be told after a second. Here the news are read
and encoded once and handed to all in one go; the handlers finish afterwards,
some at a time, so that other work has its turn.

An audience is a hint, like a wake-up: if something keeps it from telling, its
members are released and look by themselves. Nobody is told before the commit,
since what is told was read from it.
"""

from __future__ import annotations

import abc
import asyncio
import heapq
import itertools
import logging
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from time import perf_counter
from typing import Any, Generic, TypeVar, cast

from taskserver.errors import BadCredential, TaskServerError
from taskserver.keys import Caller
from taskserver.meters import Waiter
from taskserver.waiting import Waits

log = logging.getLogger(__name__)

RELEASED_AT_ONCE = 50  # handlers that finish before other work has its turn: some milliseconds
TICK = 0.01  # seconds between two looks at whose time is up: the waits of thousands end a few at a time

N = TypeVar("N")
S = TypeVar("S", bound="Subject[Any]")


class Subject(abc.ABC, Generic[N]):
    """What an audience waits for. ``topics`` are the wake-ups that concern it, ``waiter`` is who its members are."""

    topics: tuple[str, ...]
    waiter: Waiter = Waiter.POLL
    heartbeat: float = math.inf
    """After so many quiet seconds the news are ``idle()``."""
    woken: bool = False
    """Whether a wake-up has led to this look, and not the time."""

    @abc.abstractmethod
    async def look(self) -> tuple[N | None, bool]:
        """The news, if there are any that all can be told, and whether there is nothing more to wait for.

        What it raises ends the audience.
        """

    def idle(self) -> N | None:
        """What is told while nothing happens."""
        return None


class Seat(abc.ABC, Generic[N]):
    """A place in an audience: where one request waits. Whoever takes it must ``leave`` it."""

    __slots__ = ("_audience", "_deadline", "_future", "caller")

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self._audience: Audience[N] | None = None
        self._future: asyncio.Future[None] | None = None
        self._deadline = math.inf

    @abc.abstractmethod
    def tell(self, news: N) -> bool:
        """Hand the news on at once, to be called while the seat is taken. Must not raise.

        False if that is not possible: the seat is released, to look by itself.
        """

    @property
    def waiting(self) -> bool:
        """Whether its handler waits; only then it is told."""
        return self._future is not None and not self._future.done()

    @property
    def adrift(self) -> bool:
        """Whether its audience is over: the seat will be told nothing more."""
        return self._audience is None or self._audience.over

    def wait(self, timeout: float) -> asyncio.Future[None]:
        """To be awaited: done when all is told, when the seat is released or after ``timeout`` seconds.

        Which of them it was, and whether the key is still good, is the waiter's to find out.
        """
        future = self._future = asyncio.get_running_loop().create_future()
        if self._audience is None or self._audience.over:
            future.set_result(None)
        else:
            self._deadline = asyncio.get_running_loop().time() + timeout
            self._audience.note_deadline(self, self._deadline)
        return future

    def look_again(self) -> None:
        """Have the audience look: what this seat's owner has seen may be older than its seat."""
        if self._audience is not None:
            self._audience.wake()

    def leave(self) -> None:
        """Give the seat up: it is told nothing any more. A repeat does nothing."""
        audience, self._audience, self._future = self._audience, None, None
        self._deadline = math.inf
        if audience is not None:
            audience.discard(self)

    def release(self) -> None:
        """Let ``wait`` return."""
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def is_due(self, deadline: float) -> bool:
        """Whether this is still the time at which the present wait ends."""
        return deadline == self._deadline

    def take(self, audience: Audience[N]) -> None:
        """Called by the audience that the seat joins."""
        self._audience = audience


class Audience(Generic[N]):
    """Those who wait for one thing. ``over``: nobody will be told any more."""

    def __init__(self, waits: Waits, subject: Subject[N], closed: Callable[[Audience[N]], None]) -> None:
        self._waits = waits
        self.subject = subject
        self._closed = closed
        self.over = False
        self._seats: dict[Seat[N], None] = {}  # ordered: who came first is told first
        self._callers: dict[Caller, int] = {}
        self._topics: Counter[str] = Counter()  # of the callers: a key and its sessions have the same
        self._deadlines: list[tuple[float, int, Seat[N]]] = []
        self._numbers = itertools.count()
        self._sleeps_until = 0.0
        self._subscription = waits.subscribe(*subject.topics)
        self._subscription.__enter__()
        self._task = asyncio.create_task(self._run())

    def add(self, seat: Seat[N]) -> None:
        """Give somebody a seat. Raises TooManyWaiters."""
        self._waits.enter(seat.caller, self.subject.waiter)
        seat.take(self)
        self._seats[seat] = None
        seats = self._callers[seat.caller] = self._callers.get(seat.caller, 0) + 1
        if seats == 1:
            self._topics[seat.caller.topic] += 1
            self._subscription.listen(seat.caller.topic)
            if seat.caller.ends_at is not None:
                self.wake()  # it may sleep for longer than the rights last

    def discard(self, seat: Seat[N]) -> None:
        """Called by a seat that is given up."""
        self._waits.leave(seat.caller, self.subject.waiter)
        del self._seats[seat]
        self._callers[seat.caller] -= 1
        if not self._callers[seat.caller]:
            del self._callers[seat.caller]
            topic = seat.caller.topic
            self._topics[topic] -= 1
            if not self._topics[topic]:
                del self._topics[topic]
                if not self.over:
                    self._subscription.ignore(topic)
        if not self._seats and not self.over:
            self._close()
            self._task.cancel()

    def wake(self) -> None:
        """Look again."""
        self._subscription.wake()

    def note_deadline(self, seat: Seat[N], deadline: float) -> None:
        """Release the seat at that time."""
        if deadline == math.inf:
            return
        if len(self._deadlines) > 2 * len(self._seats) + RELEASED_AT_ONCE:  # most of them left before their time
            self._deadlines = [entry for entry in self._deadlines if entry[2].is_due(entry[0])]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (deadline, next(self._numbers), seat))
        if deadline < self._sleeps_until:
            self._subscription.wake()

    async def _run(self) -> None:
        try:
            await self._tell_news()
        except TaskServerError as error:
            log.debug("%s: nobody is told: %s", self.subject.topics[0], error)
        except Exception:  # a bug of ours must not keep anybody waiting
            log.exception("%s: an audience failed", self.subject.topics[0])
        finally:
            self._close()
        await _release(list(self._seats))

    async def _tell_news(self) -> None:
        loop = asyncio.get_running_loop()
        beat = loop.time() + self.subject.heartbeat
        while True:
            woken = self._subscription.clear()
            self.subject.woken = woken is not None
            self._release_due(loop.time())
            news, over = await self.subject.look()
            if news is None and not over and loop.time() >= beat:
                news = self.subject.idle()
                beat = loop.time() + self.subject.heartbeat
            if news is not None and not self._waits.draining:  # else each answer must say that its connection closes
                told = self._tell(news)
                if woken is not None and told:
                    self._waits.meters.wakes.observe(perf_counter() - woken, told)
                beat = loop.time() + self.subject.heartbeat
            else:
                self._valid_callers()
            if over or self._waits.draining:
                return
            if news is not None:
                await asyncio.sleep(0)  # there may be more; others have a turn first
                continue
            self._sleeps_until = min(loop.time() + self._patience(), beat)
            if self._deadlines:
                self._sleeps_until = min(self._sleeps_until, max(self._deadlines[0][0], loop.time() + TICK))
            await self._subscription.wait(self._sleeps_until - loop.time())

    def _tell(self, news: N) -> int:
        """Tell all who can be told; how many they were."""
        valid = self._valid_callers()
        told, left_out = 0, []
        for seat in self._seats:
            if seat.waiting and seat.caller in valid:
                if seat.tell(news):
                    told += 1
                else:
                    left_out.append(seat)
        for seat in left_out:
            seat.release()
        return told

    def _valid_callers(self) -> set[Caller]:
        """Those whose keys are still good; the others' seats are released, to find out."""
        valid = set()
        for caller in self._callers:
            try:
                caller.check()
                valid.add(caller)
            except BadCredential:
                pass
        if len(valid) < len(self._callers):
            for seat in self._seats:
                if seat.caller not in valid:
                    seat.release()
        return valid

    def _release_due(self, now: float) -> None:
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, _, seat = heapq.heappop(self._deadlines)
            if seat.is_due(deadline):
                seat.release()

    def _patience(self) -> float:
        """Seconds until the next look without a cause: a wake-up may get lost, and keys expire."""
        expiring = (caller.seconds_left() for caller in self._callers if caller.ends_at is not None)
        return min((self._waits.reread, *expiring))

    def _close(self) -> None:
        if not self.over:
            self.over = True
            for topic in self._topics:
                self._subscription.ignore(topic)
            self._subscription.__exit__()
            self._closed(self)


async def _release(seats: Iterable[Seat[Any]]) -> None:
    for number, seat in enumerate(seats, 1):
        seat.release()
        if number % RELEASED_AT_ONCE == 0:
            await asyncio.sleep(0)


class Audiences:
    """The audiences of a server."""

    def __init__(self, waits: Waits) -> None:
        self._waits = waits
        self._open: dict[Hashable, Audience[Any]] = {}

    def join(self, key: Hashable, seat: Seat[N], subject: Callable[[], S]) -> S:
        """Take a seat in the audience for ``key``, which is opened for ``subject()`` if there is none.

        Returns the audience's subject. Look at what is waited for either before, in the same breath, or
        afterwards; else call ``look_again``. Raises TooManyWaiters.
        """
        audience = self._open.get(key)
        if audience is None:
            self._waits.check_room(seat.caller)

            def closed(which: Audience[N]) -> None:
                if self._open.get(key) is which:
                    del self._open[key]

            audience = self._open[key] = Audience(self._waits, subject(), closed)
        audience.add(seat)
        return cast(S, audience.subject)  # an audience's key says of what kind it is
