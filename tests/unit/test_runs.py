"""Runs: who may see what, claims, waits and events."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Collection
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from taskserver.config import Limits, Settings, Timing
from taskserver.dagmodel import NewRun, RunState, uuid7
from taskserver.encoding import decode_texts
from taskserver.errors import (
    BadCredential,
    DagExists,
    DagNotFound,
    Forbidden,
    RunNotFound,
    TaskServerError,
    TooLarge,
    TooManyWaiters,
)
from taskserver.model import Place, now_us
from taskserver.runs import EventPage
from taskserver.stores import open_store
from tests.unit.runs_world import ADMIN, ANN, BOB, CLAIM, LIMIT, LONG, READER, WRITER, World, caller


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    store = await open_store(f"sqlite:///{tmp_path}/tasks.db")
    yield World(store, Settings(timing=Timing(reread=LONG)))
    await store.close()


class TestVisibility:
    async def test_every_way_to_anothers_run_finds_nothing(self, world: World) -> None:
        dag = await world.register()
        run = await world.trigger(tag="nightly")
        task = await world.runs.create_task(ANN, Place(run.id, "extract"), claim=None)
        now = now_us()
        attempts: list[tuple[type[TaskServerError], Any]] = [
            (DagExists, world.register(who=BOB)),
            (DagNotFound, world.runs.dag(BOB, "etl")),
            (DagNotFound, world.runs.dag_of_config(BOB, dag.config_id)),
            (DagNotFound, world.runs.trigger(BOB, NewRun(uuid7(now), "x", "bob", "etl"))),
            (DagNotFound, world.runs.list_runs(BOB, "etl", 10, 0)),
            (RunNotFound, world.runs.get(BOB, run.id)),
            (RunNotFound, world.runs.find(BOB, "etl", run.run_id)),
            (RunNotFound, world.runs.find_tagged(BOB, "nightly")),
            (RunNotFound, world.runs.cancel(BOB, run.id)),
            (RunNotFound, world.runs.delete(BOB, run.id)),
            (RunNotFound, world.runs.heartbeat(BOB, run.id, CLAIM)),
            (RunNotFound, world.runs.finish(BOB, run.id, None, RunState.SUCCESS, "")),
            (RunNotFound, world.runs.create_task(BOB, Place(run.id, "load"), claim=None)),
            (RunNotFound, anext(world.runs.beats(BOB, run.id, LONG, 1))),
            (RunNotFound, anext(world.runs.events(BOB, run.id, 0, LONG, LONG))),
            (RunNotFound, world.runs.tasks(BOB, run)),
            (RunNotFound, world.runs.stats(BOB, run)),
        ]
        for expected, attempt in attempts:
            with pytest.raises(expected):
                await attempt
        assert await world.runs.dags(BOB) == []
        assert await world.runs.claim(BOB, (), None, LONG, 0) is None
        assert await world.runs.get(ANN, run.id) == await world.runs.find_tagged(ANN, "nightly")
        assert await world.runs.tasks(ANN, run) == [task]

    async def test_the_refusal_is_that_of_what_never_was(self, world: World) -> None:
        dag = await world.register()
        run = await world.trigger()
        for ask, known, unknown in (
            (lambda name: world.runs.get(BOB, name), run.id, uuid.UUID(int=7)),
            (lambda name: world.runs.find(BOB, "etl", name), run.run_id, "no-run"),
            (lambda name: world.runs.dag(BOB, name), "etl", "no-dag"),
            (lambda name: world.runs.dag_of_config(BOB, name), dag.config_id, uuid.UUID(int=7)),
        ):
            refusals = []
            for name in (known, unknown):
                with pytest.raises(TaskServerError) as refused:
                    await ask(name)
                refusals.append((refused.type, refused.value.message.replace(str(name), "NAME"), refused.value.payload))
            assert refusals[0] == refusals[1]

    async def test_an_admin_sees_all(self, world: World) -> None:
        run = await world.queued()
        await world.register("bobs", BOB)
        assert [dag.dag_id for dag in await world.runs.dags(ADMIN)] == ["bobs", "etl"]
        assert await world.runs.get(ADMIN, run.id) == run
        taken = await world.runs.claim(ADMIN, (), None, LONG, 0)
        assert taken is not None
        assert taken.owner == "ann"

    async def test_what_an_admin_triggers_belongs_to_the_dags_owner(self, world: World) -> None:
        await world.register()
        run = await world.trigger(who=ADMIN)
        task = await world.runs.create_task(ADMIN, Place(run.id, "extract"), claim=None)
        assert (run.owner, run.triggered_by, task.owner) == ("ann", "root", "ann")
        assert (await world.runs.get(ANN, run.id)).id == run.id

    async def test_each_call_needs_its_scope(self, world: World) -> None:
        run = await world.queued()
        reads = [world.runs.dags(WRITER), world.runs.dag(WRITER, "etl"), world.runs.get(WRITER, run.id)]
        writes = [
            world.register(who=READER),
            world.trigger(who=READER),
            world.runs.claim(READER, (), None, LONG, 0),
            world.runs.cancel(READER, run.id),
            world.runs.delete(READER, run.id),
            world.runs.finish(READER, run.id, None, None, ""),
            world.runs.heartbeat(READER, run.id, CLAIM),
            world.runs.create_task(READER, Place(run.id, "extract"), claim=None),
        ]
        for attempt in [*reads, *writes]:
            with pytest.raises(Forbidden):
                await attempt
        assert await world.runs.get(READER, run.id) == run

    @pytest.mark.parametrize("field", ["conf", "metadata"])
    async def test_what_is_too_large_is_refused(self, tmp_path: Path, field: str) -> None:
        store = await open_store(f"sqlite:///{tmp_path}/tasks.db")
        world = World(store, Settings(limits=Limits(result_bytes=10)))
        await world.register()
        with pytest.raises(TooLarge, match=field):
            await world.trigger("etl", ANN, **{field: b'{"a":12345}'})
        assert (await world.runs.list_runs(ANN, "etl", 10, 0))[1] == 0
        await world.trigger("etl", ANN, **{field: b'{"a":1234}'})
        await store.close()


class TestClaiming:
    async def test_one_who_waits_gets_the_run_when_it_is_queued(self, world: World) -> None:
        await world.register()
        waiting = asyncio.ensure_future(world.runs.claim(ANN, ["etl"], None, LONG, LONG))
        await world.waiting()
        run = await world.trigger()
        taken = await asyncio.wait_for(waiting, LIMIT)
        assert taken is not None
        assert (taken.id, taken.state) == (run.id, RunState.RUNNING)
        assert taken.claim is not None
        assert len(taken.claim) >= 16

    async def test_of_many_who_wait_one_gets_it(self, world: World) -> None:
        await world.register()
        waiting = {asyncio.ensure_future(world.runs.claim(ANN, (), None, LONG, LONG)) for _ in range(10)}
        await world.waiting(10)
        await world.trigger()
        done, others = await asyncio.wait(waiting, timeout=LIMIT, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        world.waits.drain()
        assert await asyncio.gather(*others) == [None] * 9

    async def test_one_who_waits_gets_a_run_whose_claimant_was_lost(self, world: World) -> None:
        await world.register(retries=1)
        run = await world.trigger()
        await world.runs.claim(ANN, (), CLAIM, LONG, 0)
        waiting = asyncio.ensure_future(world.runs.claim(ANN, (), None, LONG, LONG))
        await world.waiting()
        await world.store.expire_runs(now_us() + 2 * int(LONG * 1e6))
        taken = await asyncio.wait_for(waiting, LIMIT)
        assert taken is not None
        assert (taken.id, taken.attempt) == (run.id, 2)

    async def test_without_a_run_there_is_none_in_time(self, world: World) -> None:
        assert await world.runs.claim(ANN, (), None, LONG, 0.05) is None
        assert world.waits.count == 0

    async def test_a_claimant_whose_key_is_revoked_is_refused(self, world: World) -> None:
        mine = caller("ann")
        waiting = asyncio.ensure_future(world.runs.claim(mine, (), None, LONG, LONG))
        await world.waiting()
        mine.revoked = True
        await world.register()
        await world.trigger()
        with pytest.raises(BadCredential):
            await asyncio.wait_for(waiting, LIMIT)
        assert await world.runs.claim(ANN, (), None, LONG, 0) is not None


class TestWaiting:
    async def test_the_end_of_a_run_ends_a_wait(self, world: World) -> None:
        run = await world.claimed()
        waiting = asyncio.ensure_future(world.ended(run, READER))
        await world.waiting()
        await world.done(run, "extract")
        await world.runs.heartbeat(ANN, run.id, CLAIM)
        assert not waiting.done()
        ended = await world.end(run)
        assert await asyncio.wait_for(waiting, LIMIT) == ended

    async def test_a_run_that_is_deleted_is_gone(self, world: World) -> None:
        run = await world.claimed()
        waits = [
            asyncio.ensure_future(_last(world.runs.beats(ANN, run.id, LONG, LONG))),
            asyncio.ensure_future(_last(world.runs.events(ANN, run.id, 0, LONG, LONG))),
        ]
        await world.waiting(2)
        await world.runs.delete(ANN, run.id)
        for waiting in waits:
            with pytest.raises(RunNotFound):
                await asyncio.wait_for(waiting, LIMIT)
        assert world.waits.count == 0

    async def test_a_beat_reads_no_store(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        run = await world.claimed()
        reads = 0

        async def count(*_: object) -> None:
            nonlocal reads
            reads += 1

        for name in ("get_run", "find_run", "read", "run_tasks"):
            monkeypatch.setattr(world.store, name, count)
        async with aclosing(world.runs.beats(ANN, run.id, LONG, 0.001)) as beats:
            for _ in range(20):
                assert await anext(beats) == (run, False)
        assert reads == 0

    async def test_beats_come_until_the_time_is_up(self, world: World) -> None:
        run = await world.claimed()
        beats = [beat async for beat in world.runs.beats(ANN, run.id, 0.1, 0.02)]
        assert all(now == run for now, _ in beats)
        assert [over for _, over in beats].index(True) == len(beats) - 1 > 0

    async def test_too_many_are_refused_before_anything_is_told(self, tmp_path: Path) -> None:
        store = await open_store(f"sqlite:///{tmp_path}/tasks.db")
        world = World(store, Settings(limits=Limits(waiters=0)))
        run = await world.claimed()
        for attempt in (
            anext(world.runs.beats(ANN, run.id, LONG, LONG)),
            anext(world.runs.events(ANN, run.id, 0, LONG, LONG)),
            world.runs.claim(ANN, (), None, LONG, LONG),
        ):
            with pytest.raises(TooManyWaiters):
                await attempt
        await store.close()


async def _last(items: Any) -> Any:
    """The last of some items."""
    return [item async for item in items][-1]


def told(pages: Collection[EventPage]) -> list[tuple[str, str]]:
    """What some pages tell; checks that they are dense."""
    found: list[Any] = []
    first = min((page.first for page in pages), default=0)
    for page in pages:
        assert page.first == first
        first = page.end
        for chunk in page.chunks:
            found += decode_texts(chunk.payload)
    return [(event["task_id"], event["status"]) for event in found]


class TestEvents:
    async def test_past_ones_come_first_then_each_as_it_happens_then_the_end(self, world: World) -> None:
        run = await world.claimed()
        await world.done(run, "extract")
        pages = []
        async for page in world.runs.events(READER, run.id, 0, LONG, LONG):
            pages.append(page)
            assert not page.complete or page.run.finished
            if page.end == 2:
                await world.done(run, "load")
            if page.end == 4:
                await world.end(run)
        assert pages[-1].complete
        assert told(pages) == [(name, state) for name in ("extract", "load") for state in ("queued", "success")]

    async def test_they_begin_at_the_cursor(self, world: World) -> None:
        run = await world.claimed()
        for name in ("a", "b"):
            await world.done(run, name)
        await world.end(run)
        for first in range(5):
            pages = [page async for page in world.runs.events(ANN, run.id, first, LONG, LONG)]
            assert len(told(pages)) == 4 - first
            assert pages[-1].complete

    async def test_the_first_page_comes_at_once(self, world: World) -> None:
        run = await world.queued()
        async with aclosing(world.runs.events(ANN, run.id, 0, LONG, LONG)) as pages:
            page = await asyncio.wait_for(anext(pages), LIMIT)
        assert (page.run, page.first, page.end, page.chunks, page.complete) == (run, 0, 0, (), False)

    async def test_a_quiet_run_has_a_heart_that_beats(self, world: World) -> None:
        run = await world.queued()
        async with aclosing(world.runs.events(ANN, run.id, 0, LONG, 0.01)) as pages:
            for _ in range(3):
                assert (await asyncio.wait_for(anext(pages), LIMIT)).chunks == ()

    async def test_they_end_when_the_time_is_up(self, world: World) -> None:
        run = await world.queued()
        pages = [page async for page in world.runs.events(ANN, run.id, 0, 0.05, LONG)]
        assert not any(page.complete for page in pages)

    async def test_many_followers_miss_nothing_while_tasks_come_and_go(self, world: World) -> None:
        run = await world.claimed()

        async def follow(number: int) -> list[tuple[str, str]]:
            pages = []
            async for page in world.runs.events(ANN, run.id, 0, LONG, LONG):
                pages.append(page)
                await asyncio.sleep(0.0005 * (number % 4))  # some are slower than others
            assert pages[-1].complete
            return told(pages)

        followers = [asyncio.ensure_future(follow(number)) for number in range(20)]
        await world.waiting(20)
        for number in range(10):
            await asyncio.gather(*(world.done(run, f"t{number}", map_index=index) for index in range(5)))
        await world.end(run)
        stories = await asyncio.wait_for(asyncio.gather(*followers), LIMIT)
        assert len(stories[0]) == 100
        assert all(story == stories[0] for story in stories)
