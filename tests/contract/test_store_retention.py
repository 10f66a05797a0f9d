"""Store: what ended long ago is removed, in portions, and is gone for every reader at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from taskserver.dagmodel import Run, RunState
from taskserver.errors import RunNotFound, TaskExists, TaskNotFound
from taskserver.model import Outcome, Task, TaskFilter
from taskserver.store import MAX_REMOVED, Ended, Store
from tests.contract.helpers import NOW, PAGE, SECOND, SUCCESS, Opener, Recorder, create, finished, lines, texts
from tests.contract.run_helpers import CLAIM, add_task, claim, claimed, events, finished_task, register, trigger

ANY = TaskFilter()
LATER = NOW + 100 * SECOND
TURNS = 10_000  # more than any sweep here takes


async def ended_at(store: Store, task_id: str, now: int, *texts: str) -> Task:
    await create(store, task_id)
    return await store.finish(task_id, SUCCESS, now, lines(*texts))


async def ended_run(store: Store, now: int, tasks: int = 2) -> Run:
    """A run with tasks that have each a line."""
    run = await claim(store)
    assert run is not None
    for number in range(tasks):
        task = await add_task(store, run, f"task-{number}")
        await store.finish(task.id, SUCCESS, now, lines(f"line of {number}"))
    return await store.finish_run(run.id, CLAIM, RunState.SUCCESS, "", now)


async def sweep(store: Store) -> int:
    """Sweep until there is nothing left; in how many turns."""
    for turn in range(1, TURNS):
        if not await store.sweep():
            return turn
    raise AssertionError("sweeping does not end")


class TestPruning:
    async def test_removes_what_ended_before_and_nothing_else(self, store: Store, changes: Recorder) -> None:
        old = await ended_at(store, "old", NOW, "a", "b")
        just = await ended_at(store, "just", NOW + 1, "c")
        new = await ended_at(store, "new", NOW + 2, "d")
        live = await create(store, "live")
        changes.take()
        assert await store.count_ended(NOW + 2) == Ended(tasks=2)
        assert await store.prune(NOW + 2, 10) == Ended(tasks=2)
        assert {(change.task.id, change.deleted) for change in changes.take()} == {("old", True), ("just", True)}
        for task in (old, just):
            with pytest.raises(TaskNotFound):
                await store.get_task(task.id)
            assert await store.read(task.log, 0, 9, PAGE) == []
        assert await store.list_tasks(ANY, 9) == [live, new]
        assert await texts(store, new.log) == ["d"]
        assert await store.count_ended(NOW + 2) == Ended()
        assert await store.prune(NOW + 2, 10) == Ended()

    async def test_goes_on_where_it_stopped_those_that_ended_first_before_others(self, store: Store) -> None:
        for number in (3, 1, 4, 0, 2):
            await ended_at(store, f"t{number}", NOW + number, "x")
        for left in ({"t2", "t3", "t4"}, {"t4"}):
            assert await store.prune(LATER, 2) == Ended(tasks=2)
            assert {task.id for task in await store.list_tasks(ANY, 9)} == left
        assert await store.prune(LATER, 2) == Ended(tasks=1)
        assert await store.prune(LATER, 2) == Ended()
        assert await store.list_tasks(ANY, 9) == []

    async def test_a_task_of_a_run_goes_with_its_run(self, store: Store, changes: Recorder) -> None:
        await register(store)
        await trigger(store, run_id="old")
        old = await ended_run(store, NOW)
        await trigger(store, run_id="live")
        live = await claim(store)
        assert live is not None
        kept = await finished_task(store, live, now=NOW)
        changes.take_runs()
        tasks = await store.run_tasks(old.id)
        assert await store.count_ended(LATER) == Ended(runs=1)
        assert await store.prune(LATER, 100) == Ended(runs=1)
        assert [(change.run.id, change.deleted) for change in changes.take_runs()] == [(old.id, True)]
        with pytest.raises(RunNotFound):
            await store.get_run(old.id)
        for task in tasks:
            with pytest.raises(TaskNotFound):
                await store.get_task(task.id)
            assert await store.read(task.log, 0, 9, PAGE) == []
        assert await store.read(old.log, 0, 99, PAGE) == []
        assert await store.get_task(kept.id) == kept
        assert len(await events(store, live)) == 2
        assert await store.prune(LATER, 100) == Ended()
        await trigger(store, run_id="old")  # its name is free again

    async def test_of_nothing_is_nothing(self, store: Store) -> None:
        assert (await store.count_ended(LATER), await store.prune(LATER, 5)) == (Ended(), Ended())
        assert not await store.sweep()

    async def test_beside_producers_costs_them_nothing(self, store: Store) -> None:
        for number in range(60):
            await ended_at(store, f"old-{number}", NOW, "x", "y")
        live = await create(store, "live")

        async def produce() -> None:
            for number in range(100):
                assert (await store.append("live", lines(f"{number}"), number, LATER)).first == number

        async def remove() -> Ended:
            total = Ended()
            while ended := await store.prune(LATER, 7):
                total += ended
                await store.sweep()
            return total

        _, *removed = await asyncio.gather(produce(), remove(), remove())
        assert sum(ended.tasks for ended in removed) == 60
        assert await texts(store, live.log) == [f"{number}" for number in range(100)]
        await sweep(store)
        assert await store.list_tasks(ANY, 9) == [await store.get_task("live")]


class TestSweeping:
    async def test_a_long_output_is_gone_at_once_and_its_space_in_portions(self, store: Store) -> None:
        task = await create(store)
        other = await finished(store, "other", "kept")
        text = "x" * 60_000
        for number in range(100):
            await store.append("build", lines(f"{number} {text}"), None, NOW)
        await store.finish("build", SUCCESS, NOW - 1)
        page = await store.read(task.log, 0, 100, PAGE)
        assert page
        assert await store.prune(LATER, 1) == Ended(tasks=1)
        assert await store.read(task.log, page[-1].end, 100, PAGE) == []
        assert await sweep(store) > 3
        assert not await store.sweep()
        assert await store.read(task.log, 0, 100, PAGE) == []
        assert await texts(store, other.log) == ["kept"]

    async def test_goes_on_after_a_restart(self, opener: Opener[Store], tmp_path: Path) -> None:
        before = await opener(tmp_path)
        task = await create(before)
        for number in range(40):
            await before.append("build", lines(f"{number} " + "x" * 60_000), None, NOW)
        await before.finish("build", SUCCESS, NOW)
        await before.prune(LATER, 10)
        assert await before.sweep()
        await before.close()
        after = await opener(tmp_path)
        try:
            with pytest.raises(TaskNotFound):
                await after.get_task("build")
            assert await after.read(task.log, 39, 40, PAGE) == []
            await sweep(after)
            assert not await after.sweep()
        finally:
            await after.close()

    async def test_an_id_may_be_used_again_before_the_space_is_free(self, store: Store) -> None:
        old = await finished(store, "build", *("old " * 9).split())
        await store.delete_task("build")
        new = await finished(store, "build", "new")
        assert await store.read(old.log, 0, 9, PAGE) == []
        await sweep(store)
        assert await texts(store, new.log) == ["new"]

    async def test_a_task_that_is_deleted_while_it_is_sealed(self, store: Store) -> None:
        task = await create(store)
        for number in range(3000):
            await store.append("build", lines(f"line {number}"), None, NOW)
        await store.finish("build", SUCCESS, NOW)
        await asyncio.gather(store.seal(task.log), store.prune(LATER, 1))
        while await store.prune(LATER, 1):
            pass
        assert await store.read(task.log, 0, 3000, PAGE) == []
        await sweep(store)
        await store.seal(task.log)
        assert await store.read(task.log, 0, 3000, PAGE) == []
        assert not await store.sweep()

    async def test_a_large_run_disappears_and_its_tasks_follow(self, store: Store, changes: Recorder) -> None:
        run = await claimed(store)
        made = [await add_task(store, run, "split", map_index=number) for number in range(20)]
        await asyncio.gather(*(store.append(task.id, lines("x"), None, NOW) for task in made[:10]))
        await store.finish_run(run.id, CLAIM, RunState.FAILED, "enough", NOW)
        changes.take()
        assert await store.prune(LATER, 5) == Ended(runs=1)
        with pytest.raises(RunNotFound):
            await store.get_run(run.id)
        assert await store.read(run.log, 0, 99, PAGE) == []
        assert len(await store.list_tasks(ANY, 99)) == 15
        # Those that are left are whole, and may even go on.
        (left,) = await store.list_tasks(ANY, 1)
        await store.append(left.id, lines("more"), None, NOW)
        assert await texts(store, left.log) == ["more"]
        await store.finish(left.id, Outcome(1, "late"), NOW)
        with pytest.raises(RunNotFound):
            await add_task(store, run)
        await sweep(store)
        assert await store.list_tasks(ANY, 99) == []
        assert len([change for change in changes.take() if change.deleted]) == 20
        for task in made:
            assert await store.read(task.log, 0, 9, PAGE) == []

    async def test_a_deleted_run_with_more_tasks_than_one_commit_removes(self, store: Store) -> None:
        run = await claimed(store)
        many = range(MAX_REMOVED + 60)
        await asyncio.gather(*(add_task(store, run, "split", map_index=number) for number in many))
        await store.delete_run(run.id)
        assert len(await store.run_tasks(run.id)) == 60
        assert await sweep(store) > 1
        assert await store.run_tasks(run.id) == []

    async def test_a_payload_of_many_small_chunks(self, store: Store) -> None:
        task = await create(store)
        for number in range(2500):
            await store.append("build", lines(f"{number}"), None, NOW)
        assert (await store.get_task("build")).last == 2500
        with pytest.raises(TaskExists):
            await create(store)
        await store.finish("build", SUCCESS, NOW)
        await store.delete_task("build")
        assert await sweep(store) >= 3
        assert await store.read(task.log, 0, 2500, PAGE) == []
