"""Runs: what came out: stats and results."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from taskserver.config import Settings, Timing
from taskserver.dagmodel import RunState, RunStats
from taskserver.model import Outcome, Task
from taskserver.stores import open_store
from tests.unit.runs_world import ANN, CLAIM, LIMIT, LONG, World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    store = await open_store(f"sqlite:///{tmp_path}/tasks.db")
    yield World(store, Settings(timing=Timing(reread=LONG)))
    await store.close()


async def test_stats_count_the_runs_tasks(world: World) -> None:
    run = await world.claimed()
    await world.done(run, "extract")
    await world.done(run, "load", code=1)
    await world.task(run, "split", 0)
    assert await world.runs.stats(ANN, run) == RunStats(3, 1, 1, 1)


async def test_those_marked_as_results_are_the_results(world: World) -> None:
    run = await world.claimed()
    await world.done(run, "extract", 1)
    await world.done(run, "load", {"rows": [1, None]})
    await world.done(run, "split", "b", map_index=10)
    await world.done(run, "split", "a", map_index=9)
    results = await world.runs.results(await world.end(run), None)
    assert results == {"load": {"rows": [1, None]}, "split": ["a", "b"]}
    assert list(results) == ["load", "split"]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ((), []),
        (("load",), ["load"]),
        (("split", "extract"), ["extract", "split"]),
        (("nothing", "load"), ["load"]),
    ],
)
async def test_or_those_that_are_asked_for(world: World, wanted: tuple[str, ...], names: list[str]) -> None:
    run = await world.claimed()
    for name in ("split", "load", "extract"):
        await world.done(run, name, name)
    assert list(await world.runs.results(await world.end(run), wanted)) == names


async def test_what_has_no_value_or_has_not_ended_is_left_out(world: World) -> None:
    run = await world.claimed()
    await world.done(run, "extract", None)
    await world.task(run, "load")
    await world.done(run, "split", 1, map_index=0)
    await world.done(run, "split", None, map_index=1)
    await world.done(run, "split", 3, map_index=2)
    await world.task(run, "split", 3)
    ended = await world.end(run, RunState.SUCCESS)
    assert await world.runs.results(ended, ("extract", "load", "split")) == {"split": [1, 3]}


async def test_the_last_try_counts(world: World) -> None:
    run = await world.claimed()
    await world.done(run, "load", "first", code=1)
    await world.done(run, "load", "second", try_number=2)
    await world.done(run, "extract", "first")
    await world.task(run, "extract", try_number=2)
    ended = await world.end(run, RunState.SUCCESS)
    assert await world.runs.results(ended, ("load", "extract")) == {"load": "second"}


async def test_a_failed_tasks_value_is_one(world: World) -> None:
    run = await world.claimed()
    await world.done(run, "load", "partial", code=1)
    assert await world.runs.results(await world.end(run), None) == {"load": "partial"}


async def test_a_list_belongs_to_what_is_mapped_however_many_there_are(world: World) -> None:
    run = await world.claimed()
    await world.done(run, "split", ["x"])  # mapped, says the dag
    await world.done(run, "load", ["y"], map_index=0)  # mapped, as it turns out
    await world.done(run, "extract", ["z"])
    await world.done(run, "extract", "w", map_index=1)
    ended = await world.end(run)
    assert await world.runs.results(ended, ("split", "load", "extract")) == {
        "split": [["x"]],
        "load": [["y"]],
        "extract": [["z"], "w"],
    }


async def test_those_who_are_told_of_the_same_end_share_one_reading(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await world.claimed()
    await world.done(run, "load", 7)
    readings = 0
    read = world.store.run_tasks

    async def count(*args: Any) -> list[Task]:
        nonlocal readings
        readings += 1
        return await read(*args)

    monkeypatch.setattr(world.store, "run_tasks", count)

    async def wait() -> Any:
        return await world.runs.results(await world.ended(run), None)

    waiting = [asyncio.ensure_future(wait()) for _ in range(100)]
    await world.waiting(100)
    await world.runs.finish(ANN, run.id, CLAIM, RunState.SUCCESS, "")
    assert await asyncio.wait_for(asyncio.gather(*waiting), LIMIT) == [{"load": 7}] * 100
    assert readings == 1


async def test_a_straggler_that_ends_later_is_in_a_later_answer(world: World) -> None:
    run = await world.claimed()
    task = await world.task(run, "load")
    ended = await world.end(run, RunState.SUCCESS)
    assert await world.runs.results(ended, None) == {}
    await world.tasks.finish(ANN, task.id, Outcome(result=b'{"type":"json","data":1}'))
    assert await world.runs.results(ended, None) == {"load": 1}
    await world.tasks.delete(ANN, task.id)
    assert await world.runs.results(ended, None) == {}


async def test_one_who_gives_up_does_not_take_it_from_the_others(world: World) -> None:
    run = await world.claimed()
    await world.done(run, "load", 7)
    ended = await world.end(run)
    first, second = (asyncio.ensure_future(world.runs.results(ended, None)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await asyncio.wait_for(second, LIMIT) == {"load": 7}
    with pytest.raises(asyncio.CancelledError):
        await first
