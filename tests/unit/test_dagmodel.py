"""Dags and runs: ids, tries, stats and the state that follows from tasks."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import datetime, timezone

import pytest

from taskserver.dagmodel import (
    Run,
    RunState,
    RunStats,
    count_tasks,
    derived_state,
    last_tries,
    manual_run_id,
    uuid7,
)
from taskserver.model import Place, Task, TaskState

NOW = 1_800_000_000_123_456  # 2027-01-15T08:00:00.123456Z
RUN = uuid.UUID(int=1)
STATES = list(TaskState)


def task(task_id: str, state: TaskState, map_index: int = -1, try_number: int = 1) -> Task:
    name = f"{task_id}.{map_index}.{try_number}"
    place = Place(RUN, task_id, map_index, try_number)
    return Task(name, 1, "ann", name, state, NOW, place=place)


class TestIds:
    def test_a_uuid_of_version_7_carries_its_time(self) -> None:
        made = uuid7(NOW)
        assert made.version == 7
        assert made.variant == uuid.RFC_4122
        assert made.int >> 80 == NOW // 1000

    def test_they_sort_by_time_and_differ_within_a_moment(self) -> None:
        assert str(uuid7(NOW)) < str(uuid7(NOW + 1000)) < str(uuid7(NOW + 10**12))
        assert len({uuid7(NOW) for _ in range(1000)}) == 1000

    @pytest.mark.parametrize("microseconds", [0, 1, 123_456, 999_999])
    def test_a_manual_run_id_is_made_as_airflow_makes_it(self, microseconds: int) -> None:
        run_id = manual_run_id(1_800_000_000_000_000 + microseconds)
        assert run_id == f"manual__2027-01-15T08:00:00.{microseconds:06d}+00:00"
        moment = datetime.fromisoformat(run_id.removeprefix("manual__"))
        assert moment == datetime(2027, 1, 15, 8, 0, 0, microseconds, timezone.utc)


class TestLastTries:
    def test_they_come_in_order_of_task_id_and_map_index(self) -> None:
        tasks = [
            task("b", TaskState.SUCCESS),
            task("a", TaskState.SUCCESS, 10),
            task("a", TaskState.SUCCESS, 9),
            task("a", TaskState.SUCCESS),
        ]
        assert last_tries(tasks) == [tasks[3], tasks[2], tasks[1], tasks[0]]

    def test_of_each_the_highest_number_counts_whatever_the_order(self) -> None:
        tries = [task("a", TaskState.FAILED, 0, number) for number in (1, 3, 2)]
        other = task("a", TaskState.SUCCESS, 1)
        assert last_tries([*tries, other]) == [tries[1], other]

    def test_of_nothing_there_is_nothing(self) -> None:
        assert last_tries([]) == []


class TestStats:
    def test_each_state_counts_as_what_it_is(self) -> None:
        stats = count_tasks([task(state.value, state) for state in STATES])
        assert stats == RunStats(total=6, completed=1, failed=3, in_progress=2)
        assert stats.success_rate == 1 / 6

    def test_a_task_counts_once(self) -> None:
        stats = count_tasks([task("a", TaskState.FAILED, try_number=1), task("a", TaskState.SUCCESS, try_number=2)])
        assert (stats, stats.success_rate) == (RunStats(1, 1, 0, 0), 1.0)

    def test_of_nothing_nothing_succeeds(self) -> None:
        assert count_tasks([]).success_rate == 0.0


class TestDerivedState:
    def test_success_needs_the_success_of_all(self) -> None:
        assert derived_state([]) is RunState.SUCCESS
        assert derived_state([task("a", TaskState.SUCCESS), task("b", TaskState.SUCCESS)]) is RunState.SUCCESS

    @pytest.mark.parametrize("state", [TaskState.FAILED, TaskState.CANCELLED, TaskState.INTERRUPTED])
    def test_any_other_end_of_a_task_is_a_failure(self, state: TaskState) -> None:
        assert derived_state([task("a", TaskState.SUCCESS), task("b", state)]) is RunState.FAILED

    def test_a_failure_that_was_made_good_is_none(self) -> None:
        tries = [task("a", TaskState.FAILED, try_number=1), task("a", TaskState.SUCCESS, try_number=2)]
        assert derived_state(tries) is RunState.SUCCESS
        worse = [task("a", TaskState.SUCCESS, try_number=1), task("a", TaskState.FAILED, try_number=2)]
        assert derived_state(worse) is RunState.FAILED


class TestRun:
    RUN = Run(RUN, 1, "ann", "etl", "daily", RunState.QUEUED, (), b"{}", 0, NOW, NOW)

    @pytest.mark.parametrize("state", STATES)
    def test_it_has_ended_in_the_states_that_are_final(self, state: RunState) -> None:
        ended = state not in (RunState.QUEUED, RunState.RUNNING)
        assert replace(self.RUN, state=state).finished is ended

    def test_its_size_counts_what_callers_may_make_large(self) -> None:
        large = replace(self.RUN, conf=b"x" * 1000, metadata=b"x" * 200, note="x" * 30, error="x" * 4)
        assert self.RUN.size == 2
        assert large.size == 1234
