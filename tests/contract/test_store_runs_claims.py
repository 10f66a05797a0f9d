"""Store: who works on a run: claims, leases, retries."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from dataclasses import replace

import pytest

from taskserver.dagmodel import Run, RunState
from taskserver.errors import RunClaimed, RunFinished, RunNotFound
from taskserver.model import TaskState
from taskserver.store import RunChange, Store
from tests.contract.helpers import NOW, SECOND, Recorder
from tests.contract.run_helpers import (
    CLAIM,
    LEASE,
    OTHER,
    add_task,
    claim,
    claimed,
    finished_task,
    queued,
    register,
    story,
    trigger,
)

NOBODY = uuid.UUID(int=7)
LATER = NOW + 10 * SECOND
LOST = NOW + LEASE * SECOND + 1  # when a lease from NOW on has run out


class TestClaiming:
    async def test_a_claimed_run_is_running(self, store: Store, changes: Recorder) -> None:
        run = await queued(store)
        changes.take_runs()
        taken = await claim(store, now=LATER)
        assert taken == replace(
            run,
            version=run.version + 1,
            state=RunState.RUNNING,
            started_at=LATER,
            attempt=1,
            claim=CLAIM,
            lease_us=LEASE * SECOND,
            lease_expires_at=LATER + LEASE * SECOND,
        )
        assert await store.get_run(run.id) == taken
        assert changes.take_runs() == [RunChange(taken)]

    async def test_the_run_that_is_due_longest_comes_first(self, store: Store) -> None:
        await register(store)
        for name, due in (("third", NOW + 2), ("first", NOW), ("second", NOW + 1), ("first again", NOW)):
            await trigger(store, run_id=name, run_after=due)
        order: list[str] = []
        while run := await claim(store, f"{CLAIM}-{len(order)}", now=LATER):
            order.append(run.run_id)
        assert order == ["first", "first again", "second", "third"]

    async def test_none_is_given_before_it_is_due(self, store: Store) -> None:
        await register(store)
        run = await trigger(store, run_after=LATER)
        assert await claim(store, now=LATER - 1) is None
        taken = await claim(store, now=LATER)
        assert taken is not None
        assert taken.id == run.id

    async def test_only_runs_of_the_owner_are_given(self, store: Store) -> None:
        run = await queued(store)
        assert await claim(store, owner="bob") is None
        taken = await claim(store, owner=None)
        assert taken is not None
        assert taken.id == run.id

    async def test_only_runs_of_the_dags_that_are_asked_for_are_given(self, store: Store) -> None:
        for name in ("a", "b", "c"):
            await register(store, name)
            await trigger(store, name, name)
        assert await claim(store, CLAIM, "x", "y") is None
        taken = [await claim(store, f"{CLAIM}-{number}", "b", "c") for number in range(3)]
        assert [run.run_id if run else None for run in taken] == ["b", "c", None]

    async def test_where_there_is_nothing_nothing_changes(self, store: Store, changes: Recorder) -> None:
        assert await claim(store) is None
        assert changes.take_runs() == []

    async def test_no_two_claims_get_the_same_run(self, store: Store) -> None:
        await register(store)
        runs = {(await trigger(store)).id for _ in range(20)}
        answers = await asyncio.gather(*(claim(store, f"{CLAIM}-{number}") for number in range(50)))
        given = [run for run in answers if run is not None]
        assert {run.id for run in given} == runs
        assert len(given) == 20
        for run in given:
            assert await store.get_run(run.id) == run

    async def test_many_workers_empty_the_queue_while_it_is_filled(self, store: Store) -> None:
        await register(store)
        given: list[Run] = []

        async def work(name: str) -> None:
            while len(given) < 60:
                run = await claim(store, f"{CLAIM}-{name}")
                if run is not None:
                    given.append(run)
                    await store.finish_run(run.id, run.claim, None, "", NOW)

        fill = asyncio.gather(*(trigger(store) for _ in range(60)))
        await asyncio.wait_for(asyncio.gather(fill, *(work(str(number)) for number in range(8))), 20)
        assert set(Counter(run.id for run in given).values()) == {1}


class TestRepeatedClaims:
    async def test_a_repeat_gets_the_same_run_and_renews_its_lease(self, store: Store) -> None:
        run = await claimed(store)
        await trigger(store)
        again = await claim(store, now=LATER)
        assert again is not None
        assert again == replace(run, version=again.version, lease_expires_at=LATER + LEASE * SECOND)
        assert await store.get_run(run.id) == again

    async def test_a_repeat_gets_it_whatever_else_it_asks_for(self, store: Store) -> None:
        run = await claimed(store)
        again = await claim(store, CLAIM, "another-dag", lease=1)
        assert again is not None
        assert again == replace(run, version=again.version)

    async def test_repeats_at_the_same_time_get_one_run(self, store: Store) -> None:
        await register(store)
        for _ in range(5):
            await trigger(store)
        answers = await asyncio.gather(*(claim(store) for _ in range(10)))
        assert len({run.id for run in answers if run is not None}) == 1
        assert None not in answers

    async def test_anothers_run_is_not_given_for_the_same_claim(self, store: Store) -> None:
        run = await claimed(store)
        await register(store, "bobs", owner="bob")
        assert await claim(store, CLAIM, owner="bob") is None
        his = await trigger(store, "bobs")
        taken = await claim(store, CLAIM, owner="bob")
        assert taken is not None
        assert taken.id == his.id
        again = await claim(store)
        assert again is not None
        assert again.id == run.id

    async def test_a_claim_may_be_used_again_when_its_run_has_ended(self, store: Store) -> None:
        first = await claimed(store)
        second = await trigger(store)
        await store.finish_run(first.id, CLAIM, None, "", LATER)
        taken = await claim(store)
        assert taken is not None
        assert taken.id == second.id
        await store.finish_run(second.id, CLAIM, None, "", LATER)
        assert await claim(store) is None


class TestHeartbeats:
    async def test_it_renews_the_lease(self, store: Store) -> None:
        run = await claimed(store)
        beaten = await store.heartbeat_run(run.id, CLAIM, LATER)
        assert beaten == replace(run, version=run.version + 1, lease_expires_at=LATER + LEASE * SECOND)
        assert await store.get_run(run.id) == beaten
        assert await store.expire_runs(LOST) == []

    async def test_it_needs_the_claim(self, store: Store) -> None:
        waiting = await queued(store)
        with pytest.raises(RunClaimed):
            await store.heartbeat_run(waiting.id, CLAIM, NOW)
        run = await claimed(store)
        with pytest.raises(RunClaimed):
            await store.heartbeat_run(run.id, OTHER, LATER)
        assert (await store.get_run(run.id)).lease_expires_at == run.lease_expires_at

    async def test_it_needs_a_run_that_goes_on(self, store: Store) -> None:
        with pytest.raises(RunNotFound):
            await store.heartbeat_run(NOBODY, CLAIM, NOW)
        run = await claimed(store)
        await store.finish_run(run.id, CLAIM, None, "", NOW)
        with pytest.raises(RunFinished):
            await store.heartbeat_run(run.id, CLAIM, NOW)


class TestReleases:
    @pytest.mark.parametrize("retries", [0, 1])
    async def test_a_run_that_is_given_back_costs_none_of_its_retries(self, store: Store, retries: int) -> None:
        run = await claimed(store, retries=retries)
        done = await finished_task(store, run, "extract")
        back = await store.release_run(run.id, CLAIM, LATER)
        assert (back.state, back.attempt, back.claim, back.lease_expires_at) == (RunState.QUEUED, 1, None, None)
        assert await store.get_run(run.id) == back
        assert await store.get_task(done.id) == done
        assert await store.expire_runs(LOST) == []
        again = await claim(store, OTHER, now=LATER)
        assert again is not None
        assert (again.id, again.attempt) == (run.id, 2)
        (lost,) = await store.expire_runs(LATER + LEASE * SECOND + 1)
        assert lost.state is (RunState.QUEUED if retries else RunState.INTERRUPTED)

    @pytest.mark.parametrize(("retries", "state"), [(0, RunState.INTERRUPTED), (1, RunState.QUEUED)])
    async def test_with_live_tasks_it_is_a_loss(self, store: Store, retries: int, state: RunState) -> None:
        run = await claimed(store, retries=retries)
        task = await add_task(store, run)
        back = await store.release_run(run.id, CLAIM, LATER)
        assert (back.state, back.attempt) == (state, 1)
        assert (await store.get_task(task.id)).state is TaskState.INTERRUPTED
        if state is RunState.INTERRUPTED:
            assert back.error == "claimant lost: it gave the run back while tasks were running"

    async def test_one_that_was_asked_to_stop_is_not_offered_again(self, store: Store) -> None:
        run = await claimed(store, retries=5)
        await store.cancel_run(run.id, NOW)
        assert (await store.release_run(run.id, CLAIM, LATER)).state is RunState.INTERRUPTED

    async def test_it_needs_the_claim_of_a_run_that_goes_on(self, store: Store) -> None:
        with pytest.raises(RunNotFound):
            await store.release_run(NOBODY, CLAIM, NOW)
        run = await claimed(store)
        with pytest.raises(RunClaimed):
            await store.release_run(run.id, OTHER, NOW)
        await store.release_run(run.id, CLAIM, NOW)
        with pytest.raises(RunClaimed):
            await store.release_run(run.id, CLAIM, NOW)
        await claim(store)
        await store.finish_run(run.id, CLAIM, None, "", NOW)
        with pytest.raises(RunFinished):
            await store.release_run(run.id, CLAIM, NOW)


class TestLostClaimants:
    async def test_a_run_without_retries_ends_as_interrupted(self, store: Store, changes: Recorder) -> None:
        run = await claimed(store)
        assert await store.expire_runs(LOST - 2) == []
        changes.take_runs()
        (lost,) = await store.expire_runs(LOST)
        assert (lost.id, lost.state, lost.finished_at) == (run.id, RunState.INTERRUPTED, LOST)
        assert lost.error == "claimant lost: not heard of for 30 s"
        assert await store.get_run(run.id) == lost
        assert changes.take_runs() == [RunChange(lost)]
        assert await claim(store, OTHER, now=LOST) is None
        assert await store.expire_runs(LOST + SECOND) == []

    async def test_a_run_is_offered_again_as_often_as_its_dag_says(self, store: Store) -> None:
        run = await claimed(store, retries=2)
        moment = NOW
        for attempt in (2, 3):
            moment += LEASE * SECOND + 1
            (lost,) = await store.expire_runs(moment)
            assert (lost.state, lost.claim, lost.lease_expires_at) == (RunState.QUEUED, None, None)
            assert await store.get_run(run.id) == lost
            again = await claim(store, f"{OTHER}-{attempt}", now=moment)
            assert again is not None
            assert (again.id, again.attempt, again.started_at) == (run.id, attempt, NOW)
        (lost,) = await store.expire_runs(moment + LEASE * SECOND + 1)
        assert lost.state is RunState.INTERRUPTED

    async def test_one_that_is_offered_again_keeps_its_turn(self, store: Store) -> None:
        run = await claimed(store, retries=1)
        await trigger(store, now=LATER)
        await store.expire_runs(LOST)
        again = await claim(store, OTHER, now=LOST)
        assert again is not None
        assert again.id == run.id

    async def test_the_claim_that_was_lost_counts_no_more(self, store: Store) -> None:
        run = await claimed(store, retries=1)
        await store.expire_runs(LOST)
        with pytest.raises(RunClaimed):
            await store.heartbeat_run(run.id, CLAIM, LOST)
        await claim(store, OTHER, now=LOST)
        with pytest.raises(RunClaimed):
            await store.heartbeat_run(run.id, CLAIM, LOST)
        with pytest.raises(RunClaimed):
            await store.finish_run(run.id, CLAIM, None, "", LOST)
        with pytest.raises(RunClaimed):
            await add_task(store, run)

    @pytest.mark.parametrize("retries", [0, 1])
    async def test_its_live_tasks_end_as_interrupted(self, store: Store, retries: int) -> None:
        run = await claimed(store, retries=retries)
        done = await finished_task(store, run, "extract")
        waiting = await add_task(store, run, "load")
        working = await add_task(store, run, "split", map_index=0)
        await store.heartbeat(working.id, NOW)
        before = await store.get_run(run.id)
        (lost,) = await store.expire_runs(LOST)
        assert await store.get_run(run.id) == lost
        assert await store.get_task(done.id) == done
        for task_id in (waiting.id, working.id):
            task = await store.get_task(task_id)
            assert (task.state, task.finished_at) == (TaskState.INTERRUPTED, LOST)
            assert task.error == "claimant lost: not heard of for 30 s"
        assert sorted(await story(store, run, before.last)) == [("load", "interrupted"), ("split", "interrupted")]

    async def test_one_that_was_asked_to_stop_is_not_offered_again(self, store: Store) -> None:
        run = await claimed(store, retries=5)
        await store.cancel_run(run.id, NOW)
        (lost,) = await store.expire_runs(LOST)
        assert lost.state is RunState.INTERRUPTED

    async def test_all_overdue_runs_are_dealt_with(self, store: Store) -> None:
        await register(store)
        await register(store, "patient", retries=1)
        for dag_id in ("etl", "patient", "etl"):
            await trigger(store, dag_id)
        runs = [await claim(store, f"{CLAIM}-{number}", lease=number + 1) for number in range(3)]
        assert None not in runs
        lost = await store.expire_runs(NOW + 2 * SECOND)
        assert sorted(run.state for run in lost) == [RunState.INTERRUPTED, RunState.QUEUED]

    async def test_a_silence_in_which_nobody_could_be_heard_does_not_count(self, store: Store) -> None:
        run = await claimed(store)
        assert await store.expire_runs(LOST, heard_since=LOST - LEASE * SECOND + 1) == []
        assert await store.get_run(run.id) == run
        assert len(await store.expire_runs(LOST + 1, heard_since=LOST - LEASE * SECOND + 1)) == 1
