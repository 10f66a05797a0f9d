"""Waits: what ends a wait, and that nothing can happen unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from taskserver.config import Limits, Timing
from taskserver.errors import BadCredential, TooManyWaiters
from taskserver.keys import Caller
from taskserver.meters import Waiter
from taskserver.model import ApiKey, Scope
from taskserver.waiting import Waits
from taskserver.wakeup import LocalWakeup
from tests.eventually import eventually

TOPIC = "kettle"
LONG = 60.0  # seconds; a test that waits so long has failed
LIMIT = 20.0
NOW = 1_800_000_000_000_000


class Kettle:
    """What is waited for: counts the looks, and runs what a test wants to happen during one."""

    def __init__(self) -> None:
        self.boils = False
        self.looks = 0
        self.during: Callable[[], None] = lambda: None

    async def look(self) -> tuple[int, bool]:
        self.looks += 1
        seen, number = self.boils, self.looks
        self.during()
        await asyncio.sleep(0)
        return number, seen


class Clock:
    """The caller's clock, in microseconds."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


class Place:
    """Waits of one caller for one kettle."""

    def __init__(self, limits: Limits | None = None, reread: float = LONG, expires_at: int | None = None) -> None:
        self.wakeup = LocalWakeup()
        self.waits = Waits(self.wakeup, limits or Limits(), Timing(reread=reread))
        self.clock = Clock()
        key = ApiKey("id", "ann", "ann", frozenset({Scope.READ}), b"", NOW, expires_at)
        self.caller = Caller(key, self.clock)
        self.kettle = Kettle()

    def boil(self) -> None:
        self.kettle.boils = True
        self.wakeup.publish([TOPIC])

    def revoke(self) -> None:
        self.caller.revoked = True
        self.wakeup.publish([self.caller.topic])

    async def until(self, timeout: float = LONG) -> int:
        return await asyncio.wait_for(self.waits.until(self.caller, TOPIC, timeout, self.kettle.look), LIMIT)

    async def begin(self, timeout: float = LONG) -> asyncio.Task[int]:
        """A wait that waits by now."""
        before = self.waits.count
        waiting = asyncio.ensure_future(self.until(timeout))
        await eventually(lambda: self.waits.count > before)
        looks = self.kettle.looks
        await eventually(lambda: self.kettle.looks > looks or looks >= 2)
        for _ in range(5):  # past the look's own pause, to the wait itself
            await asyncio.sleep(0)
        assert not waiting.done()
        return waiting

    def is_empty(self) -> bool:
        return self.waits.count == 0 and self.wakeup.subscribers(TOPIC) == 0


class TestUntil:
    async def test_what_has_come_needs_no_waiting(self) -> None:
        place = Place(Limits(waiters=0))
        place.kettle.boils = True
        assert await place.until() == 1

    async def test_without_time_it_looks_once(self) -> None:
        place = Place(Limits(waiters=0))
        assert await place.until(0) == 1
        assert place.is_empty()

    async def test_a_wake_up_makes_it_look_again(self) -> None:
        place = Place()
        waiting = await place.begin()
        place.wakeup.publish([TOPIC])
        looks = place.kettle.looks
        await eventually(lambda: place.kettle.looks > looks)
        assert not waiting.done()
        place.boil()
        assert await waiting == place.kettle.looks
        assert place.is_empty()

    async def test_what_it_is_told_after_a_wake_up_is_counted(self) -> None:
        place = Place(reread=0.01)
        meters = place.waits.meters
        waiting = await place.begin()
        assert meters.waiters.value(Waiter.POLL) == 1
        place.boil()
        await waiting
        assert meters.waiters.value(Waiter.POLL) == 0
        assert sum(meters.wakes.counts()) == 1
        place.kettle.boils = False
        waiting = await place.begin()
        place.kettle.boils = True  # it finds out by itself
        await waiting
        await place.until()  # there was nothing to wait for
        assert sum(meters.wakes.counts()) == 1

    async def test_what_happens_during_a_look_is_not_missed(self) -> None:
        place = Place()
        # Each look sees a cold kettle, and then it boils before the look is over.
        place.kettle.during = place.boil
        await place.until()
        assert place.kettle.looks == 2

    async def test_what_happens_during_the_last_look_before_waiting_is_not_missed(self) -> None:
        place = Place()
        place.kettle.during = lambda: place.boil() if place.kettle.looks == 2 else None
        await place.until()
        assert place.kettle.looks == 3

    async def test_a_lost_wake_up_costs_no_more_than_the_interval(self) -> None:
        place = Place(reread=0.01)
        waiting = await place.begin()
        place.kettle.boils = True
        await waiting

    async def test_when_the_time_is_up_it_returns_what_it_saw_last(self) -> None:
        place = Place(reread=0.01)
        assert await place.until(0.1) == place.kettle.looks > 2
        assert place.is_empty()

    async def test_it_raises_what_the_look_raises(self) -> None:
        place = Place()
        waiting = await place.begin()

        def vanish() -> None:
            raise LookupError("no kettle")

        place.kettle.during = vanish
        place.boil()
        with pytest.raises(LookupError):
            await waiting
        assert place.is_empty()

    async def test_one_that_is_given_up_leaves_its_place(self) -> None:
        place = Place()
        waiting = await place.begin()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert place.is_empty()

    async def test_only_so_many_may_wait(self) -> None:
        place = Place(Limits(waiters=2))
        waiting = [await place.begin() for _ in range(2)]
        with pytest.raises(TooManyWaiters):
            await place.until()
        assert place.waits.count == 2
        place.boil()
        await asyncio.gather(*waiting)
        place.kettle.boils = False
        await place.until(0.01)

    async def test_a_revoked_key_ends_it_at_once(self) -> None:
        place = Place()
        waiting = await place.begin()
        place.revoke()
        with pytest.raises(BadCredential):
            await waiting
        assert place.is_empty()

    async def test_an_expired_key_ends_it_without_a_wake_up(self) -> None:
        place = Place(expires_at=NOW + 50_000)
        waiting = await place.begin()
        place.clock.now += 50_000
        with pytest.raises(BadCredential):
            await waiting


class TestDraining:
    async def test_open_waits_return_what_they_saw(self) -> None:
        place = Place()
        waiting = [await place.begin() for _ in range(3)]
        place.waits.drain()
        await asyncio.gather(*waiting)
        assert place.waits.draining
        assert place.is_empty()

    async def test_new_ones_return_at_once(self) -> None:
        place = Place(Limits(waiters=0))
        place.waits.drain()
        assert await place.until() == 1


class TestOpen:
    async def test_a_place_is_kept_between_waits(self) -> None:
        place = Place(Limits(waiters=1))
        with place.waits.open(place.caller, TOPIC) as wait:
            assert await wait.until(0, place.kettle.look) == (1, False)
            with pytest.raises(TooManyWaiters):
                await place.until()
            place.boil()
            answer, done = await wait.until(LONG, place.kettle.look)
            assert done
            assert answer == place.kettle.looks
        assert place.is_empty()

    async def test_what_happens_between_waits_is_not_missed(self) -> None:
        place = Place()
        with place.waits.open(place.caller, TOPIC) as wait:
            await wait.until(0, place.kettle.look)
            place.boil()
            _, done = await asyncio.wait_for(wait.until(LONG, place.kettle.look), LIMIT)
            assert done

    async def test_a_key_that_was_revoked_between_waits_is_refused(self) -> None:
        place = Place()
        with place.waits.open(place.caller, TOPIC) as wait:
            place.revoke()
            with pytest.raises(BadCredential):
                await wait.until(0, place.kettle.look)
