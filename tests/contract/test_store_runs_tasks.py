"""Store: a run's tasks: their places, who may create them, what they make of the run, their results and events."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from taskserver.dagmodel import Run, RunState
from taskserver.encoding import decode_texts
from taskserver.errors import RunClaimed, RunNotFound, TaskExists, TaskNotFound
from taskserver.model import NewTask, Outcome, Place, TaskState
from taskserver.store import Store
from tests.contract.helpers import NOW, SECOND, Opener, Recorder, lines
from tests.contract.run_helpers import (
    CLAIM,
    OTHER,
    add_task,
    claim,
    claimed,
    events,
    finished_task,
    queued,
    story,
    trigger,
)

LATER = NOW + 3 * SECOND


def result(text: str) -> Outcome:
    return Outcome(result=b'{"type":"json","data":' + text.encode() + b"}")


class TestTasksThatHaveEnded:
    async def test_one_is_created_and_ended_in_one_commit(self, store: Store, changes: Recorder) -> None:
        run = await claimed(store)
        changes.take_runs()
        new = NewTask("quick", "ann", "extract", None, {}, Place(run.id, "extract"), CLAIM, Outcome(0, "", b'{"a":1}'))
        task = await store.create_task(new, LATER)
        assert (task.state, task.result, task.started_at, task.finished_at) == (
            TaskState.SUCCESS, b'{"a":1}', LATER, LATER
        )  # fmt: skip
        assert await store.get_task("quick") == task
        assert await story(store, run) == [("extract", "queued"), ("extract", "success")]
        failed = await store.create_task(
            replace(new, id="other", place=Place(run.id, "load"), outcome=Outcome(3)), LATER
        )
        assert (failed.state, failed.code) == (TaskState.FAILED, 3)
        with pytest.raises(TaskExists):
            await store.create_task(new, LATER)


class TestPlaces:
    async def test_a_task_knows_its_place(self, store: Store) -> None:
        run = await claimed(store)
        task = await add_task(store, run, "split", map_index=3, try_number=2)
        assert task.place == Place(run.id, "split", 3, 2)
        assert await store.get_task(task.id) == task
        assert await store.run_tasks(run.id) == [task]

    async def test_a_place_is_taken_once(self, store: Store, changes: Recorder) -> None:
        run = await claimed(store)
        first = await add_task(store, run, "split", map_index=0)
        before = await store.get_run(run.id)
        changes.take()
        with pytest.raises(TaskExists) as refused:
            await add_task(store, run, "split", map_index=0)
        assert refused.value.payload == {"id": first.id}
        assert changes.take() == []
        assert await store.get_run(run.id) == before

    async def test_places_that_differ_in_anything_are_free(self, store: Store) -> None:
        run = await claimed(store)
        tasks = [
            await add_task(store, run, "split"),
            await add_task(store, run, "split", map_index=0),
            await add_task(store, run, "split", map_index=0, try_number=2),
            await add_task(store, run, "load"),
        ]
        other = await trigger(store)
        await add_task(store, other, "split", secret=None)
        assert await store.run_tasks(run.id) == tasks

    async def test_of_many_who_want_a_place_one_gets_it(self, store: Store) -> None:
        run = await claimed(store)
        answers = await asyncio.gather(*(add_task(store, run) for _ in range(10)), return_exceptions=True)
        assert sum(isinstance(answer, TaskExists) for answer in answers) == 9
        assert len(await store.run_tasks(run.id)) == 1

    async def test_a_task_id_is_taken_once_whatever_its_place(self, store: Store) -> None:
        run = await claimed(store)
        task = await add_task(store, run)
        with pytest.raises(TaskExists):
            await store.create_task(NewTask(task.id, "ann", place=Place(run.id, "load"), claim=CLAIM), NOW)
        assert await store.run_tasks(run.id) == [task]

    async def test_there_is_no_place_in_an_unknown_run(self, store: Store) -> None:
        place = Place(uuid.UUID(int=7), "extract")
        with pytest.raises(RunNotFound):
            await store.create_task(NewTask("build", "ann", place=place), NOW)
        with pytest.raises(TaskNotFound):
            await store.get_task("build")

    @pytest.mark.parametrize("secret", [OTHER, None])
    async def test_a_claimed_run_takes_tasks_from_its_claimant_only(self, store: Store, secret: str | None) -> None:
        run = await claimed(store)
        with pytest.raises(RunClaimed):
            await add_task(store, run, secret=secret)
        assert await store.run_tasks(run.id) == []
        assert await events(store, run) == []

    async def test_an_unclaimed_run_takes_tasks_without_a_claim_only(self, store: Store) -> None:
        run = await queued(store)
        with pytest.raises(RunClaimed):
            await add_task(store, run, secret=CLAIM)
        task = await add_task(store, run, secret=None)
        assert await store.run_tasks(run.id) == [task]


class TestStateThatFollowsFromTasks:
    async def test_a_queued_task_leaves_the_run_queued(self, store: Store) -> None:
        run = await queued(store)
        await add_task(store, run, secret=None)
        assert (await store.get_run(run.id)).state is RunState.QUEUED
        taken = await claim(store)
        assert taken is not None
        assert taken.id == run.id

    @pytest.mark.parametrize("way", ["append", "heartbeat", "finish"])
    async def test_the_first_task_that_runs_makes_it_running(self, store: Store, way: str) -> None:
        run = await queued(store)
        task = await add_task(store, run, secret=None)
        if way == "append":
            await store.append(task.id, lines("a"), None, LATER)
        elif way == "heartbeat":
            await store.heartbeat(task.id, LATER)
        else:
            await store.finish(task.id, Outcome(), LATER)
        now = await store.get_run(run.id)
        assert (now.state, now.started_at, now.claim, now.attempt) == (RunState.RUNNING, LATER, None, 0)
        assert await claim(store, now=LATER) is None

    async def test_a_run_that_runs_unclaimed_is_ended_by_a_word_without_claim(self, store: Store) -> None:
        run = await queued(store)
        await finished_task(store, run, secret=None)
        await finished_task(store, run, "load", secret=None)
        assert (await store.get_run(run.id)).state is RunState.RUNNING
        ended = await store.finish_run(run.id, None, None, "", LATER)
        assert (ended.state, ended.finished_at) == (RunState.SUCCESS, LATER)

    async def test_a_task_that_ends_without_having_run_does_not_make_it_running(self, store: Store) -> None:
        run = await queued(store)
        task = await add_task(store, run, secret=None)
        lost = await add_task(store, run, "load", secret=None, lease=1)
        await store.request_cancel(task.id, NOW)
        await store.expire_leases(LATER)
        assert (await store.get_task(lost.id)).state is TaskState.INTERRUPTED
        now = await store.get_run(run.id)
        assert (now.state, now.started_at) == (RunState.QUEUED, None)

    async def test_one_that_is_offered_again_keeps_its_start(self, store: Store) -> None:
        run = await claimed(store, retries=1)
        await store.expire_runs(NOW + 60 * SECOND)
        task = await add_task(store, run, secret=None)
        await store.heartbeat(task.id, NOW + 61 * SECOND)
        now = await store.get_run(run.id)
        assert (now.state, now.started_at) == (RunState.RUNNING, run.started_at)

    async def test_a_claim_counts_what_was_asked_before_it(self, store: Store) -> None:
        run = await queued(store)
        task = await add_task(store, run, secret=None)
        # Both may well go into one commit.
        _, taken = await asyncio.gather(store.append(task.id, lines("a"), None, LATER), claim(store, now=LATER))
        assert taken is None
        assert (await store.get_run(run.id)).state is RunState.RUNNING


class TestResults:
    async def filled(self, store: Store) -> Run:
        run = await claimed(store)
        await finished_task(store, run, "extract", outcome=result("1"))
        await finished_task(store, run, "load", outcome=result("2"))
        await finished_task(store, run, "load", outcome=result("3"), try_number=2)
        await finished_task(store, run, "split", outcome=result("4"), map_index=0)
        await add_task(store, run, "split", map_index=1)
        return run

    @pytest.mark.parametrize(
        ("wanted", "numbers"),
        [
            ((), ""),
            (None, "1234"),
            (("load",), "23"),
            (("split", "extract", "split"), "14"),
            (("nothing",), ""),
        ],
    )
    async def test_results_are_there_where_they_are_asked_for(
        self, store: Store, wanted: tuple[str, ...] | None, numbers: str
    ) -> None:
        run = await self.filled(store)
        tasks = await store.run_tasks(run.id, wanted)
        assert [task.place and (task.place.task_id, task.place.map_index, task.place.try_number) for task in tasks] == [
            ("extract", -1, 1),
            ("load", -1, 1),
            ("load", -1, 2),
            ("split", 0, 1),
            ("split", 1, 1),
        ]
        assert [task.result for task in tasks if task.result is not None] == [result(text).result for text in numbers]

    async def test_without_a_word_there_are_none(self, store: Store) -> None:
        run = await self.filled(store)
        assert {task.result for task in await store.run_tasks(run.id)} == {None}

    async def test_an_unknown_run_has_no_tasks(self, store: Store) -> None:
        assert await store.run_tasks(uuid.UUID(int=7), None) == []


class TestEvents:
    async def test_every_transition_of_a_task_is_one(self, store: Store) -> None:
        run = await claimed(store)
        task = await add_task(store, run, "split", map_index=1)
        await store.append(task.id, lines("a"), None, NOW + SECOND)
        await store.append(task.id, lines("b"), None, NOW + 2 * SECOND)
        await store.request_cancel(task.id, LATER)
        await store.finish(task.id, Outcome(1, "no\ndisk"), LATER)
        told = await events(store, run)
        assert [event["status"] for event in told] == ["queued", "running", "cancelled"]
        assert told[-1] == {
            "execution_id": str(run.id),
            "task_id": "split",
            "map_index": 1,
            "status": "cancelled",
            "started_at": "2027-01-15T08:00:01.000000Z",
            "completed_at": "2027-01-15T08:00:03.000000Z",
            "duration_ms": 2000,
            "error": "no\ndisk",
        }

    async def test_what_repeats_or_fails_is_none(self, store: Store) -> None:
        run = await claimed(store)
        task = await finished_task(store, run)
        await store.finish(task.id, Outcome(), LATER)
        await store.request_cancel(task.id, LATER)
        with pytest.raises(TaskExists):
            await add_task(store, run)
        assert await story(store, run) == [("extract", "queued"), ("extract", "success")]

    async def test_they_are_read_from_a_cursor(self, store: Store) -> None:
        run = await claimed(store)
        for number in range(4):
            await finished_task(store, run, f"task-{number}")
        everything = await events(store, run)
        assert (await store.get_run(run.id)).last == len(everything) == 8
        for cursor in range(9):
            assert await events(store, run, cursor) == everything[cursor:]

    async def test_they_survive_a_restart_and_go_on(self, opener: Opener[Store], tmp_path: Path) -> None:
        store = await opener(tmp_path)
        run = await claimed(store)
        task = await add_task(store, run)
        await store.close()
        store = await opener(tmp_path)
        await store.finish(task.id, Outcome(), LATER)
        assert await story(store, run) == [("extract", "queued"), ("extract", "success")]
        await store.close()

    async def test_those_of_many_tasks_at_once_are_dense_and_in_each_tasks_order(
        self, store: Store, changes: Recorder
    ) -> None:
        run = await claimed(store)

        async def live(number: int) -> None:
            task = await add_task(store, run, "split", map_index=number)
            await store.append(task.id, lines("a"), None, NOW)
            await store.finish(task.id, Outcome(), NOW)

        await asyncio.gather(*(live(number) for number in range(30)))
        told = await events(store, run)
        assert len(told) == 90
        for number in range(30):
            mine = [event["status"] for event in told if event["map_index"] == number]
            assert mine == ["queued", "running", "success"]
        assert self.heard(changes, run) == told

    def heard(self, changes: Recorder, run: Run) -> list[Any]:
        """What the listener was told of a run's events; checks that it was told in order and of all."""
        found: list[Any] = []
        for change in changes.runs:
            if change.run.id == run.id and change.chunk is not None:
                assert change.chunk.first == len(found)
                found += decode_texts(change.chunk.payload)
                assert change.run.last == len(found)
        return found

    async def test_those_of_a_large_run_are_read_in_pages(self, store: Store) -> None:
        run = await claimed(store)
        error = "x" * 1000
        for number in range(3):
            tasks = [await add_task(store, run, f"t{number}", map_index=index) for index in range(100)]
            await asyncio.gather(*(store.finish(task.id, Outcome(1, error), NOW) for task in tasks))
        told = await events(store, run)
        assert len(told) == 600
        assert len(await store.read(run.log, 0, 600, 1)) == 1

    async def test_what_was_asked_before_the_end_is_in_the_log(self, store: Store) -> None:
        run = await claimed(store)
        task = await add_task(store, run)
        # Both may well go into one commit.
        _, ended = await asyncio.gather(
            store.append(task.id, lines("a"), None, NOW),
            store.finish_run(run.id, CLAIM, RunState.SUCCESS, "", NOW),
        )
        assert await story(store, run) == [("extract", "queued"), ("extract", "running")]
        assert await store.get_run(run.id) == ended

    async def test_the_listener_is_told_before_the_caller_is_answered(self, store: Store, changes: Recorder) -> None:
        run = await claimed(store)
        for change in (
            store.heartbeat_run(run.id, CLAIM, LATER),
            store.cancel_run(run.id, LATER),
            store.finish_run(run.id, CLAIM, None, "", LATER),
        ):
            answer = await change
            assert changes.runs[-1].run == answer == await store.get_run(run.id)
