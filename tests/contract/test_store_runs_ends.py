"""Store: how a run ends: in its claimant's words, by its tasks, cancelled, deleted."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace

import pytest

from taskserver.dagmodel import Run, RunState
from taskserver.errors import RunClaimed, RunFinished, RunNotFound, TaskNotFound, TasksRunning
from taskserver.model import Outcome, TaskState
from taskserver.store import Change, RunChange, Store
from tests.contract.helpers import NOW, PAGE, SECOND, Recorder, create, lines
from tests.contract.run_helpers import (
    CLAIM,
    LEASE,
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

NOBODY = uuid.UUID(int=7)
END = NOW + SECOND
FAILED = Outcome(1, "broken")


async def finish(store: Store, run: Run, state: RunState | None = None, error: str = "", *, now: int = END) -> Run:
    return await store.finish_run(run.id, run.claim, state, error, now)


class TestFinishing:
    async def test_a_run_ends_in_its_claimants_words(self, store: Store, changes: Recorder) -> None:
        run = await claimed(store)
        changes.take_runs()
        ended = await finish(store, run, RunState.FAILED, "no disk")
        assert ended == replace(
            run,
            version=run.version + 1,
            state=RunState.FAILED,
            error="no disk",
            finished_at=END,
            lease_expires_at=None,
        )
        assert await store.get_run(run.id) == ended
        assert changes.take_runs() == [RunChange(ended)]
        assert await store.expire_runs(NOW + 10 * LEASE * SECOND) == []

    async def test_the_word_counts_whatever_the_tasks_say(self, store: Store) -> None:
        run = await claimed(store)
        await finished_task(store, run, outcome=FAILED)
        await add_task(store, run, "load")
        assert (await finish(store, run, RunState.SUCCESS)).state is RunState.SUCCESS

    @pytest.mark.parametrize(
        ("outcomes", "state"),
        [
            ([], RunState.SUCCESS),
            ([Outcome()], RunState.SUCCESS),
            ([Outcome(), FAILED], RunState.FAILED),
        ],
    )
    async def test_without_a_word_it_follows_from_its_tasks(
        self, store: Store, outcomes: list[Outcome], state: RunState
    ) -> None:
        run = await claimed(store)
        for number, outcome in enumerate(outcomes):
            await finished_task(store, run, f"task-{number}", outcome=outcome)
        assert (await finish(store, run)).state is state

    async def test_the_last_try_of_a_task_counts(self, store: Store) -> None:
        run = await claimed(store)
        await finished_task(store, run, outcome=FAILED)
        await finished_task(store, run, try_number=2)
        await finished_task(store, run, "split", map_index=0, try_number=2)
        await finished_task(store, run, "split", map_index=0, outcome=FAILED)
        assert (await finish(store, run)).state is RunState.SUCCESS

    async def test_it_cannot_follow_from_tasks_that_still_run(self, store: Store, changes: Recorder) -> None:
        run = await claimed(store)
        task = await add_task(store, run)
        before = await store.get_run(run.id)
        changes.take_runs()
        with pytest.raises(TasksRunning):
            await finish(store, run)
        assert await store.get_run(run.id) == before
        await store.finish(task.id, Outcome(), NOW)
        assert (await finish(store, run)).state is RunState.SUCCESS

    async def test_only_the_claimant_may_end_a_claimed_run(self, store: Store) -> None:
        run = await claimed(store)
        for secret in (OTHER, None):
            with pytest.raises(RunClaimed):
                await store.finish_run(run.id, secret, RunState.SUCCESS, "", END)
        assert await store.get_run(run.id) == run

    async def test_an_unclaimed_run_is_ended_without_a_claim(self, store: Store) -> None:
        run = await queued(store)
        with pytest.raises(RunClaimed):
            await store.finish_run(run.id, CLAIM, RunState.SUCCESS, "", END)
        assert (await finish(store, run, RunState.SUCCESS)).state is RunState.SUCCESS
        assert await claim(store, now=END) is None

    async def test_an_unknown_run_is_not_found(self, store: Store) -> None:
        with pytest.raises(RunNotFound):
            await store.finish_run(NOBODY, None, None, "", NOW)


class TestRepeatedEnds:
    @pytest.mark.parametrize("state", [RunState.SUCCESS, RunState.FAILED, None])
    @pytest.mark.parametrize("cancelled", [False, True])
    async def test_the_same_word_again_changes_nothing(
        self, store: Store, changes: Recorder, state: RunState | None, cancelled: bool
    ) -> None:
        run = await claimed(store)
        await finished_task(store, run, outcome=FAILED)
        if cancelled:
            await store.cancel_run(run.id, NOW)
        ended = await finish(store, run, state, "why")
        changes.take_runs()
        assert await finish(store, run, state, "why", now=END + SECOND) == ended
        assert changes.take_runs() == []
        assert await store.get_run(run.id) == ended

    async def test_another_word_is_refused(self, store: Store) -> None:
        run = await claimed(store)
        ended = await finish(store, run, RunState.FAILED, "why")
        for state, error in ((RunState.SUCCESS, "why"), (RunState.FAILED, "other"), (None, "why")):
            with pytest.raises(RunFinished):
                await finish(store, run, state, error)
        with pytest.raises(RunFinished):
            await store.finish_run(run.id, OTHER, RunState.FAILED, "why", END)
        assert await store.get_run(run.id) == ended

    @pytest.mark.parametrize("state", [RunState.SUCCESS, RunState.FAILED, None])
    async def test_a_claimant_that_was_lost_does_not_hear_that_its_word_counted(
        self, store: Store, state: RunState | None
    ) -> None:
        run = await claimed(store)
        (lost,) = await store.expire_runs(NOW + 2 * LEASE * SECOND)
        with pytest.raises(RunFinished):
            await finish(store, run, state, lost.error)

    async def test_what_comes_after_the_end_is_refused(self, store: Store) -> None:
        run = await claimed(store)
        straggler = await add_task(store, run)
        ended = await finish(store, run, RunState.SUCCESS)
        with pytest.raises(RunFinished):
            await add_task(store, run, "load")
        with pytest.raises(RunFinished):
            await finish(store, run)
        await store.finish(straggler.id, FAILED, END)
        assert await store.get_run(run.id) == ended
        assert await story(store, run) == [("extract", "queued")]
        assert (await store.get_task(straggler.id)).state is TaskState.FAILED


class TestCancelling:
    async def test_a_queued_run_ends_at_once(self, store: Store, changes: Recorder) -> None:
        run = await queued(store)
        changes.take_runs()
        ended = await store.cancel_run(run.id, END)
        assert (ended.state, ended.finished_at, ended.cancel_requested) == (RunState.CANCELLED, END, True)
        assert ended.error == "cancelled while it was queued"
        assert ended.started_at is None
        assert await store.get_run(run.id) == ended
        assert changes.take_runs() == [RunChange(ended)]
        assert await claim(store, now=END) is None

    async def test_a_queued_run_ends_with_its_queued_tasks(self, store: Store) -> None:
        run = await queued(store)
        task = await add_task(store, run, secret=None)
        ended = await store.cancel_run(run.id, END)
        assert ended.state is RunState.CANCELLED
        assert await store.get_run(run.id) == ended
        assert (await store.get_task(task.id)).state is TaskState.CANCELLED
        assert await story(store, run) == [("extract", "queued"), ("extract", "cancelled")]

    async def test_a_running_run_and_its_tasks_are_asked_to_stop(self, store: Store) -> None:
        run = await claimed(store)
        done = await finished_task(store, run, "extract")
        waiting = await add_task(store, run, "load")
        working = await add_task(store, run, "split", map_index=0)
        await store.heartbeat(working.id, NOW)
        asked = await store.cancel_run(run.id, END)
        assert (asked.state, asked.cancel_requested) == (RunState.RUNNING, True)
        assert await store.get_run(run.id) == asked
        assert (await store.heartbeat_run(run.id, CLAIM, END)).cancel_requested
        assert await store.get_task(done.id) == done
        assert (await store.get_task(waiting.id)).state is TaskState.CANCELLED
        stopping = await store.get_task(working.id)
        assert (stopping.state, stopping.cancel_requested) == (TaskState.RUNNING, True)

    @pytest.mark.parametrize(
        ("state", "comes_to"), [(RunState.FAILED, RunState.CANCELLED), (RunState.SUCCESS, RunState.SUCCESS)]
    )
    async def test_failed_after_it_is_cancelled(self, store: Store, state: RunState, comes_to: RunState) -> None:
        run = await claimed(store)
        await store.cancel_run(run.id, NOW)
        assert (await finish(store, run, state)).state is comes_to

    async def test_a_repeat_changes_nothing(self, store: Store, changes: Recorder) -> None:
        run = await claimed(store)
        task = await add_task(store, run)
        await store.heartbeat(task.id, NOW)
        asked = await store.cancel_run(run.id, NOW)
        changes.take_runs()
        assert await store.cancel_run(run.id, END) == asked
        assert changes.take_runs() == []

    async def test_asking_a_finished_run_changes_nothing(self, store: Store, changes: Recorder) -> None:
        run = await claimed(store)
        ended = await finish(store, run, RunState.SUCCESS)
        changes.take_runs()
        assert await store.cancel_run(run.id, END) == ended
        assert changes.take_runs() == []

    async def test_one_that_is_offered_again_ends_at_once(self, store: Store) -> None:
        run = await claimed(store, retries=1)
        await store.expire_runs(NOW + 2 * LEASE * SECOND)
        assert (await store.cancel_run(run.id, END)).state is RunState.CANCELLED

    async def test_an_unknown_run_is_not_found(self, store: Store) -> None:
        with pytest.raises(RunNotFound):
            await store.cancel_run(NOBODY, NOW)


class TestDeleting:
    @pytest.mark.parametrize("state", ["queued", "running", "success"])
    async def test_a_run_goes_with_all_that_is_its_own(self, store: Store, changes: Recorder, state: str) -> None:
        run = await queued(store)
        other = await trigger(store)
        secret = None
        if state != "queued":
            await claim(store)
            secret = CLAIM
        task = await add_task(store, run, secret=secret)
        await store.append(task.id, lines("a", "b"), None, NOW)
        kept = await add_task(store, other, secret=None)
        if state == "success":
            await store.finish_run(run.id, CLAIM, RunState.SUCCESS, "", END)
        changes.take()
        changes.take_runs()

        await store.delete_run(run.id)
        with pytest.raises(RunNotFound):
            await store.get_run(run.id)
        with pytest.raises(RunNotFound):
            await store.find_run("etl", run.run_id)
        with pytest.raises(TaskNotFound):
            await store.get_task(task.id)
        assert await store.run_tasks(run.id) == []
        assert await store.read(run.log, 0, 100, PAGE) == []
        assert await store.read(task.log, 0, 100, PAGE) == []
        assert (await store.list_runs("etl", 10, 0))[1] == 1
        assert await events(store, other) != []
        assert await store.get_task(kept.id) == kept

        (task_change,) = changes.take()
        (run_change,) = changes.take_runs()
        assert (task_change.task.id, task_change.deleted) == (task.id, True)
        assert (run_change.run.id, run_change.deleted) == (run.id, True)

    async def test_its_run_id_is_free_again(self, store: Store) -> None:
        run = await claimed(store)
        await store.delete_run(run.id)
        again = await trigger(store, run_id=run.run_id)
        assert (again.last, again.state) == (0, RunState.QUEUED)
        assert again.log > run.log
        taken = await claim(store)
        assert taken is not None
        assert taken.id == again.id

    async def test_deleting_twice_is_not_found(self, store: Store) -> None:
        run = await queued(store)
        await store.delete_run(run.id)
        for run_id in (run.id, NOBODY):
            with pytest.raises(RunNotFound):
                await store.delete_run(run_id)

    async def test_whoever_still_works_on_it_is_told_that_it_is_gone(self, store: Store) -> None:
        run = await claimed(store)
        task = await add_task(store, run)
        gone = store.delete_run(run.id)
        # All of it may well go into one commit; the deletion was asked for first.
        answers = await asyncio.gather(
            gone,
            store.append(task.id, lines("late"), None, NOW),
            store.heartbeat_run(run.id, CLAIM, NOW),
            store.finish_run(run.id, CLAIM, None, "", NOW),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers] == [type(None), TaskNotFound, RunNotFound, RunNotFound]
        with pytest.raises(RunNotFound):
            await add_task(store, run, "load")

    async def test_a_reader_in_the_middle_finds_nothing_more(self, store: Store) -> None:
        run = await claimed(store)
        for number in range(5):
            await finished_task(store, run, f"task-{number}")
        page = await store.read(run.log, 0, 3, 1)
        await store.delete_run(run.id)
        assert page[0].first == 0
        assert await store.read(run.log, page[-1].end, 10, PAGE) == []

    async def test_tasks_outside_it_stay(self, store: Store, changes: Recorder) -> None:
        run = await queued(store)
        own = await create(store, "build")
        await store.delete_run(run.id)
        assert await store.get_task("build") == own
        assert changes.take() == [Change(own)]
