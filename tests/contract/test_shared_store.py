"""Processes that share a store: what one of them commits is told to all, in order, and nothing true is unknown to any.

The changes are the wake-ups that cross between processes: each publishes their topics for its own waiters.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from taskserver.config import Settings, Timing
from taskserver.encoding import decode_texts
from taskserver.errors import AppendConflict, BadCredential, StoreUnavailable
from taskserver.keys import Caller
from taskserver.model import ApiKey, Outcome, Scope
from taskserver.partial import Partial, Unfinished
from taskserver.store import SharedStore, Store
from taskserver.stores import join_store, open_shared_store
from taskserver.stores.sqlite import hub
from taskserver.web.app import make_services
from tests.contract.helpers import NOW, SECOND, Recorder, create, lines
from tests.contract.run_helpers import register, trigger
from tests.eventually import eventually

LONG = 20.0  # seconds; reached only by a failure


@dataclass
class Party:
    """A store that others have joined, as each in a process of its own would; here they share an event loop."""

    shared: SharedStore
    joined: list[Store] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)

    async def join(self) -> Store:
        number = len(self.joined)
        store = await join_store(await self.shared.invite(), lambda: self.lost.append(number))
        self.joined.append(store)
        return store


Open = Callable[[Path], Awaitable[SharedStore]]


async def open_sqlite(folder: Path) -> SharedStore:
    return await open_shared_store(f"sqlite:///{folder}/tasks.db")


@pytest.fixture(params=[pytest.param(open_sqlite, id="sqlite")])
async def party(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Party]:
    opened = Party(await request.param(tmp_path))
    yield opened
    for store in opened.joined:
        await store.close()
    await opened.shared.close()


@pytest.fixture
async def one(party: Party) -> Store:
    return await party.join()


@pytest.fixture
async def other(party: Party) -> Store:
    return await party.join()


def recorder(store: Store) -> Recorder:
    found = Recorder()
    store.listen(found)
    return found


async def test_all_are_told_of_what_any_commits_in_the_same_order(party: Party, one: Store, other: Store) -> None:
    stores = [party.shared, one, other]
    told = [recorder(store) for store in stores]
    await create(one)

    async def produce(store: Store, name: str) -> None:
        for number in range(20):
            await store.append("build", lines(f"{name} {number}"), None, NOW)

    await asyncio.gather(*(produce(store, name) for store, name in zip(stores, "abc", strict=True)))
    for store in stores:
        await store.catch_up()
    everything = [
        [text for change in who.changes if change.chunk for text in decode_texts(change.chunk.payload)] for who in told
    ]
    assert len(everything[0]) == 60
    assert everything[0] == everything[1] == everything[2]
    assert [change.task.version for change in told[0].changes] == [change.task.version for change in told[2].changes]


async def test_who_commits_is_told_before_it_is_answered(one: Store, other: Store) -> None:
    told = recorder(one)
    await create(one)
    for number in range(50):
        appended = await one.append("build", lines("x"), number, NOW)
        assert told.changes[-1].task.last == appended.last
        assert not one.behind


async def test_what_one_was_answered_another_can_know_at_once(party: Party, one: Store, other: Store) -> None:
    told = recorder(other)
    await create(one)
    late = 0
    for number in range(200):
        await (one if number % 2 else party.shared).append("build", lines("x"), number, NOW)
        late += not told.changes or told.changes[-1].task.last != number + 1
        await other.catch_up()
        assert not other.behind
        assert told.changes[-1].task.last == number + 1
    assert late  # else this has shown nothing
    await asyncio.wait_for(other.catch_up(), LONG)  # and there is nothing to wait for now


async def test_who_joins_later_begins_with_the_present(party: Party, one: Store) -> None:
    await create(one)
    late = await party.join()
    assert not late.behind
    told = recorder(late)
    assert (await late.get_task("build")).last == 0
    await one.append("build", lines("x"), None, NOW)
    await late.catch_up()
    assert [change.task.last for change in told.changes] == [1]


async def test_a_revoked_key_is_told_to_all(one: Store, other: Store) -> None:
    told = [recorder(one), recorder(other)]
    await one.add_key(ApiKey("id", "ci", "ann", frozenset(Scope), b"hash", NOW))
    revoked = await other.revoke_key("id", NOW + 1)
    await one.catch_up()
    assert [[change.key for change in who.keys] for who in told] == [[revoked], [revoked]]


async def test_an_error_is_told_to_who_asked_only(one: Store, other: Store) -> None:
    await create(one)
    answers = await asyncio.gather(
        one.append("build", lines("a"), 0, NOW), other.append("build", lines("b"), 7, NOW), return_exceptions=True
    )
    assert isinstance(answers[1], AppendConflict)
    assert answers[1].payload == {"last": 1}
    assert not isinstance(answers[0], BaseException)


async def test_no_two_claims_get_the_same_run(party: Party, one: Store, other: Store) -> None:
    await register(one)
    triggered = [await trigger(one) for _ in range(10)]
    claims = [
        store.claim_run("ann", (), f"{name} {number}", SECOND, NOW)
        for number in range(10)
        for name, store in (("one", one), ("other", other))
    ]
    claimed = [run.id for run in await asyncio.gather(*claims) if run is not None]
    assert sorted(claimed) == sorted(run.id for run in triggered)


async def test_who_leaves_does_not_disturb_the_others(party: Party, one: Store, other: Store) -> None:
    await create(one)
    appending = asyncio.ensure_future(one.append("build", lines("last word"), None, NOW))
    await asyncio.sleep(0)
    await one.close()
    assert (await asyncio.wait_for(appending, LONG)).last == 1  # what was under way is finished first, not refused
    assert (await other.append("build", lines("x"), 1, NOW)).last == 2
    with pytest.raises(StoreUnavailable):
        await one.append("build", lines("x"), None, NOW)
    assert party.lost == []


async def test_those_who_are_left_alone_know_it(party: Party, one: Store) -> None:
    await create(one)
    await one.ping()
    await party.shared.close()
    await eventually(lambda: party.lost == [0], "it is told")
    assert not one.behind
    for asking in (one.ping(), one.catch_up(), one.heartbeat("build", NOW)):
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(asking, LONG)


async def test_what_was_under_way_when_it_was_left_alone_fails(party: Party, one: Store) -> None:
    await create(one)
    appending = asyncio.ensure_future(one.append("build", lines("x"), None, NOW))
    await asyncio.sleep(0)
    for member in list(party.shared._members):  # type: ignore[attr-defined]
        member.abort()
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(appending, LONG)


async def test_one_that_does_not_read_is_given_up(
    party: Party, one: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "MOST_UNREAD", 2**20)
    await create(one)
    one._remote._transport.pause_reading()  # type: ignore[attr-defined]
    for _ in range(10):
        await other.append("build", lines("x" * 2**19), None, NOW)
    one._remote._transport.resume_reading()  # type: ignore[attr-defined]
    await eventually(lambda: party.lost == [0], "it is cut off")
    assert (await other.append("build", lines("x"), None, NOW)).last == 11


async def test_a_wait_in_one_process_is_woken_by_a_commit_in_another(one: Store, other: Store) -> None:
    who = Caller(ApiKey("id", "ann", "ann", frozenset({Scope.READ, Scope.WRITE}), b"", NOW))
    settings = Settings(timing=Timing(reread=1000))  # only a wake-up can end a wait
    here, there = (make_services(settings, store, upkeep=False) for store in (one, other))
    await here.tasks.create(who, task_id="build")
    waits = [
        here.tasks.wait_output(who, "build", 0, LONG * 2),
        there.tasks.wait_output(who, "build", 0, LONG * 2),
        there.tasks.wait_end(who, "build", 0, LONG * 2),
    ]
    waiting = [asyncio.ensure_future(wait) for wait in waits]
    await eventually(lambda: here.waits.count + there.waits.count == 3)
    await here.tasks.append(who, "build", lines("x"))
    for wait in waiting[:2]:
        assert (await asyncio.wait_for(wait, LONG)).last == 1
    assert not waiting[2].done()
    await here.tasks.finish(who, "build", Outcome())
    assert (await asyncio.wait_for(waiting[2], LONG)).finished


async def test_what_was_acknowledged_in_one_process_is_true_in_another(one: Store, other: Store) -> None:
    who = Caller(ApiKey("id", "ann", "ann", frozenset({Scope.READ, Scope.WRITE}), b"", NOW))
    parties = [make_services(Settings(), store, upkeep=False) for store in (one, other)]
    for number in range(100):
        here, there = parties[number % 2].tasks, parties[1 - number % 2].tasks
        await here.create(who, task_id="build")
        assert (await there.get(who, "build")).last == 0
        last = (await there.append(who, "build", lines("a", "b"))).last
        assert (await here.wait_end(who, "build", last, 0)).last == last  # the new cursor is no error
        await here.finish(who, "build", Outcome())
        assert (await there.get(who, "build")).finished
        await there.delete(who, "build")


async def test_a_key_that_was_revoked_in_one_process_is_refused_in_another(one: Store, other: Store) -> None:
    here, there = (make_services(Settings(), store, upkeep=False).keys for store in (one, other))
    for _ in range(30):
        key, secret = await here.issue("ci", [Scope.READ])
        caller = await there.verify(secret)
        by_token = await there.verify_id(key.id)
        await here.revoke(key.id)
        for look in (there.verify(secret), there.verify_id(key.id)):
            with pytest.raises(BadCredential):
                await look
        assert caller.revoked
        assert by_token.revoked


async def test_what_any_tells_all_are_told_behind_the_lines_that_it_follows(
    party: Party, one: Store, other: Store
) -> None:
    stores = [party.shared, one, other]
    told = [recorder(store) for store in stores]
    task = await create(one)
    for number, store in enumerate(stores, 1):
        await store.append("build", lines(f"line {number}"), None, NOW)
        bar = Partial(task.log, number, Unfinished("", f"{number}0%"))
        store.tell(bar)
        for found in told:
            await eventually(lambda found=found, bar=bar: found.partials[-1:] == [bar], "the bar")  # type: ignore[misc]
            assert found.changes[-1].task.last == number
    await other.append("build", lines("the next"), None, NOW)
    await asyncio.gather(*(store.catch_up() for store in stores))
    assert [len(found.partials) for found in told] == [3, 3, 3]


async def test_who_has_lost_the_others_tells_nobody_and_does_not_fail(party: Party, one: Store) -> None:
    await party.shared.close()
    await eventually(lambda: party.lost == [0], "the loss")
    one.tell(Partial(1, 0, Unfinished("", "10%")))
