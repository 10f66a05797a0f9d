"""Audiences: who is told, who is released instead, and that nobody is forgotten."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from taskserver.audience import RELEASED_AT_ONCE, Audiences, Seat, Subject
from taskserver.config import Limits, Timing
from taskserver.errors import TaskNotFound, TooManyWaiters
from taskserver.keys import Caller, SessionCaller
from taskserver.meters import Waiter
from taskserver.model import ApiKey, Scope
from taskserver.waiting import Waits
from taskserver.wakeup import LocalWakeup
from tests.eventually import eventually

TOPIC = "play"
LONG = 60.0  # seconds; a test that waits so long has failed
LIMIT = 20.0
NOW = 1_800_000_000_000_000


class Play(Subject[str]):
    """What is waited for: ``acts`` are told one after the other, and with the last one it is over."""

    def __init__(self, heartbeat: float = math.inf) -> None:
        self.topics = (TOPIC,)
        self.heartbeat = heartbeat
        self.acts: list[str] = []
        self.looks = 0
        self.during: Callable[[], None] = lambda: None
        self.last = "end"

    async def look(self) -> tuple[str | None, bool]:
        self.looks += 1
        act = self.acts.pop(0) if self.acts else None
        self.during()
        await asyncio.sleep(0)
        return act, act == self.last

    def idle(self) -> str | None:
        return "…"


class Person(Seat[str]):
    """One who waits; ``heard`` is what was told, ``awake`` whether the handler has gone on."""

    __slots__ = ("awake", "deaf", "heard", "waits")

    def __init__(self, caller: Caller) -> None:
        super().__init__(caller)
        self.heard: list[str] = []
        self.deaf = self.awake = False
        self.waits: asyncio.Task[None] | None = None

    def tell(self, news: str) -> bool:
        if not self.deaf:
            self.heard.append(news)
        return not self.deaf

    async def sit(self, timeout: float) -> None:
        await self.wait(timeout)
        self.awake = True

    async def woken(self) -> None:
        """Return when the wait has ended."""
        assert self.waits is not None
        await asyncio.wait_for(self.waits, LIMIT)


class Theatre:
    """One play, and people with keys."""

    def __init__(self, limits: Limits | None = None, reread: float = LONG, heartbeat: float = math.inf) -> None:
        self.now = NOW
        self.wakeup = LocalWakeup()
        self.waits = Waits(self.wakeup, limits or Limits(), Timing(reread=reread))
        self.audiences = Audiences(self.waits)
        self.play = Play(heartbeat)
        self.ann, self.bob = self.caller("ann"), self.caller("bob")

    def caller(self, name: str, expires_at: int | None = None) -> Caller:
        key = ApiKey(name, name, name, frozenset({Scope.READ}), b"", NOW, expires_at)
        return Caller(key, lambda: self.now)

    def join(self, caller: Caller | None = None, timeout: float = LONG) -> Person:
        """Somebody takes a seat and waits."""
        person = Person(caller or self.ann)
        assert self.audiences.join(TOPIC, person, lambda: self.play) is self.play
        person.waits = asyncio.ensure_future(person.sit(timeout))
        return person

    async def settled(self) -> None:
        """Return when everybody waits, the audience too."""
        looks = -1
        while looks != self.play.looks:
            looks = self.play.looks
            for _ in range(20):
                await asyncio.sleep(0)

    def act(self, *acts: str, quietly: bool = False) -> None:
        """Something happens; ``quietly``: the wake-up is lost."""
        self.play.acts += acts
        if not quietly:
            self.wakeup.publish([TOPIC])

    def revoke(self, caller: Caller) -> None:
        caller.revoked = True
        self.wakeup.publish([caller.topic])

    def is_empty(self) -> bool:
        """Whether nobody and nothing waits any more."""
        topics = (TOPIC, self.ann.topic, self.bob.topic)
        return self.waits.count == 0 and not any(self.wakeup.subscribers(topic) for topic in topics)


@asynccontextmanager
async def seated(theatre: Theatre, count: int) -> AsyncIterator[list[Person]]:
    """So many who wait, of both keys in turn; they leave at the end."""
    people = [theatre.join((theatre.ann, theatre.bob)[number % 2]) for number in range(count)]
    await theatre.settled()
    try:
        yield people
    finally:
        for person in people:
            person.leave()
        await theatre.settled()
        assert theatre.is_empty()


# --- told ------------------------------------------------------------------------


async def test_all_are_told_before_any_of_them_goes_on() -> None:
    theatre = Theatre()
    async with seated(theatre, 200) as people:
        assert theatre.play.looks == 1, "one look for all"

        async def told_when_awake(person: Person) -> int:
            await person.woken()
            return sum(other.heard == ["end"] for other in people)

        watching = [asyncio.ensure_future(told_when_awake(person)) for person in people]
        theatre.act("end")
        assert set(await asyncio.gather(*watching)) == {200}
        assert theatre.play.looks == 2


async def test_other_work_has_its_turn_while_the_told_go_on() -> None:
    theatre = Theatre()
    turns: list[int] = []

    async def other_work(people: list[Person]) -> None:
        while not people[-1].awake:
            turns.append(sum(person.awake for person in people))
            await asyncio.sleep(0)

    async with seated(theatre, RELEASED_AT_ONCE * 6) as people:
        theatre.act("end")
        await asyncio.wait_for(other_work(people), LIMIT)
        steps = [after - before for before, after in itertools.pairwise(turns)]
        assert max(steps) <= 2 * RELEASED_AT_ONCE


async def test_news_that_are_not_the_end_are_told_without_waking_anybody() -> None:
    theatre = Theatre()
    async with seated(theatre, 3) as people:
        theatre.act("one", "two")
        await eventually(lambda: people[2].heard == ["one", "two"])
        theatre.act("three")
        await eventually(lambda: people[2].heard == ["one", "two", "three"])
        assert not any(person.awake for person in people)
        theatre.act("end")
        for person in people:
            await person.woken()
            assert person.heard == ["one", "two", "three", "end"]


async def test_a_lost_wake_up_costs_time_only() -> None:
    theatre = Theatre(reread=0.02)
    async with seated(theatre, 3) as people:
        theatre.act("end", quietly=True)
        for person in people:
            await person.woken()
            assert person.heard == ["end"]


async def test_what_is_told_after_a_wake_up_is_counted_by_how_long_it_took() -> None:
    theatre = Theatre(reread=0.02)
    async with seated(theatre, 3) as people:
        meters = theatre.waits.meters
        assert meters.waiters.value(Waiter.POLL) == 3
        theatre.act("one", "two")
        await eventually(lambda: people[2].heard == ["one", "two"])
        # The second one had no wake-up of its own: it was found because there was a first.
        assert sum(meters.wakes.counts()) == 3
        people[0].deaf = True
        theatre.act("three")
        await people[0].woken()
        assert sum(meters.wakes.counts()) == 5
        theatre.act("end", quietly=True)
        await people[1].woken()
        assert sum(meters.wakes.counts()) == 5, "nobody was late by a wake-up's time"
        assert 0 < meters.wakes.sum() < LIMIT
    assert meters.waiters.value(Waiter.POLL) == 0


async def test_who_comes_while_the_audience_looks_is_told_too() -> None:
    theatre = Theatre()
    async with seated(theatre, 1) as (first,):
        late: list[Person] = []
        theatre.play.during = lambda: late.append(theatre.join(theatre.bob))
        theatre.act("end")
        await first.woken()
        await late[0].woken()
        assert first.heard == late[0].heard == ["end"]
        late[0].leave()


async def test_who_comes_when_all_is_told_is_in_another_audience() -> None:
    theatre = Theatre()
    async with seated(theatre, 1) as (first,):
        theatre.act("end")
        await first.woken()
        assert first.adrift
        again = theatre.join()
        await theatre.settled()
        assert not again.adrift
        theatre.act("end")
        await again.woken()
        assert (first.heard, again.heard) == (["end"], ["end"])
        again.leave()


async def test_a_quiet_audience_is_told_so() -> None:
    theatre = Theatre(heartbeat=0.02)
    async with seated(theatre, 2) as people:
        await eventually(lambda: len(people[1].heard) >= 3)
        assert set(people[0].heard) == {"…"}
        assert not people[0].awake


async def test_looking_again() -> None:
    theatre = Theatre()
    async with seated(theatre, 1) as (person,):
        theatre.act("end", quietly=True)
        person.look_again()
        await person.woken()
        assert person.heard == ["end"]


# --- released --------------------------------------------------------------------


async def test_the_time_ends_each_wait_by_itself() -> None:
    theatre = Theatre()
    async with seated(theatre, 1) as (patient,):
        loop = asyncio.get_running_loop()
        began = loop.time()
        people = [theatre.join(timeout=timeout) for timeout in (0.06, 0.02, 0.04)]
        for person, timeout in zip(people, (0.06, 0.02, 0.04), strict=True):
            await person.woken()
            assert loop.time() - began >= timeout
            assert person.heard == []
            person.leave()
        assert not patient.awake


async def test_a_seat_can_wait_again() -> None:
    theatre = Theatre()
    person = theatre.join(timeout=0.01)
    await person.woken()
    person.waits = asyncio.ensure_future(person.sit(LONG))
    await theatre.settled()
    theatre.act("end")
    await person.woken()
    assert person.heard == ["end"]
    await asyncio.wait_for(person.wait(LONG), LIMIT)  # its audience is over: there is nothing to wait for
    person.leave()
    await asyncio.wait_for(person.wait(LONG), LIMIT)


async def test_the_times_of_those_who_left_are_forgotten() -> None:
    theatre = Theatre()
    async with seated(theatre, 1) as (stays,):
        for _ in range(2000):
            person = theatre.join()
            await asyncio.sleep(0)
            person.leave()
        audience = stays._audience
        assert audience is not None
        assert len(audience._deadlines) < 200


async def test_who_cannot_be_told_is_released_and_the_others_stay() -> None:
    theatre = Theatre()
    async with seated(theatre, 3) as people:
        people[1].deaf = True
        theatre.act("one")
        await people[1].woken()
        theatre.act("two")
        await eventually(lambda: people[0].heard == ["one", "two"])
        assert [person.awake for person in people] == [False, True, False]
        assert people[1].heard == []


async def test_a_revoked_key_releases_its_seats_only() -> None:
    theatre = Theatre()
    async with seated(theatre, 4) as people:
        theatre.revoke(theatre.bob)
        await people[1].woken()
        await people[3].woken()
        theatre.act("end")
        await people[0].woken()
        await people[2].woken()
        assert [person.heard for person in people] == [["end"], [], ["end"], []]


async def test_a_key_that_was_revoked_with_the_news_hears_nothing() -> None:
    theatre = Theatre()
    async with seated(theatre, 2) as (ann, bob):

        def revoke() -> None:
            theatre.bob.revoked = True

        theatre.play.during = revoke
        theatre.act("end")
        await ann.woken()
        await bob.woken()
        assert (ann.heard, bob.heard) == (["end"], [])


async def test_a_key_that_expires_releases_its_seats() -> None:
    theatre = Theatre()
    async with seated(theatre, 1) as (stays,):
        short = theatre.join(theatre.caller("short", expires_at=NOW + 20_000))
        await theatre.settled()
        theatre.now += 20_000
        await short.woken()
        assert (short.heard, stays.awake) == ([], False)
        short.leave()


async def test_a_session_that_ends_releases_its_seats_and_its_key_keeps_its_own() -> None:
    theatre = Theatre()
    async with seated(theatre, 1) as (stays,):
        session = theatre.join(SessionCaller(theatre.ann, NOW + 20_000, lambda: theatre.now))
        await theatre.settled()
        theatre.now += 20_000
        await session.woken()
        assert (session.heard, stays.awake) == ([], False)
        session.leave()
        await theatre.settled()
        theatre.revoke(theatre.ann)  # of which the one that stays is told all the same
        await stays.woken()
        assert stays.heard == []


async def test_a_drain_releases_all_and_tells_nobody() -> None:
    theatre = Theatre()
    async with seated(theatre, 100) as people:
        theatre.play.acts.append("end")
        theatre.waits.drain()
        for person in people:
            await person.woken()
            assert person.heard == []


@pytest.mark.parametrize("error", [TaskNotFound("there is no play"), ZeroDivisionError("a bug")])
async def test_an_audience_that_fails_leaves_nobody_waiting(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    theatre = Theatre()
    async with seated(theatre, 3) as people:

        def fail() -> None:
            raise error

        theatre.play.during = fail
        theatre.act("one")
        for person in people:
            await person.woken()
            assert person.heard == []
            assert person.adrift
    assert ("an audience failed" in caplog.text) == isinstance(error, ZeroDivisionError)


# --- seats -----------------------------------------------------------------------


async def test_who_left_is_told_nothing() -> None:
    theatre = Theatre()
    async with seated(theatre, 2) as (stays, leaves):
        leaves.leave()
        leaves.leave()
        theatre.act("end")
        await stays.woken()
        assert (stays.heard, leaves.heard) == (["end"], [])


async def test_when_all_have_left_nothing_is_looked_at_any_more() -> None:
    theatre = Theatre(reread=0.01)
    async with seated(theatre, 2):
        pass
    looks = theatre.play.looks
    theatre.wakeup.publish([TOPIC])
    await asyncio.sleep(0.05)
    assert theatre.play.looks == looks


async def test_there_are_no_more_seats_than_places() -> None:
    theatre = Theatre(Limits(waiters=2))
    async with seated(theatre, 2):
        for key in (TOPIC, "another"):
            with pytest.raises(TooManyWaiters, match="2 requests are waiting"):
                theatre.audiences.join(key, Person(theatre.ann), lambda: theatre.play)
        assert theatre.waits.count == 2
