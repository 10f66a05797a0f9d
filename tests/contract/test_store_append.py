"""Store: appending lines and ending a task, once and again."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from taskserver.errors import AppendConflict, OutputFull, TaskFinished, TaskNotFound
from taskserver.model import Outcome, Stream, Task, TaskState
from taskserver.store import Appended, Store
from tests.contract.helpers import FAILURE, NOW, SECOND, SUCCESS, Recorder, create, finished, lines, sides, texts

# Texts that would show a store that joins, splits or compares carelessly.
HOSTILE = [
    '",',
    '","',
    "\\",
    '\\"',
    "a,\r",
    "\t\x00\x1f\x7f",
    "",
    "ünïcode 🎈 \u2028\u2029\ufffd",
    "[1]",
    '",\\n"',
    " ",
]


async def output(store: Store, task_id: str = "build") -> list[str]:
    return await texts(store, (await store.get_task(task_id)).log)


class TestAppend:
    async def test_numbers_lines_in_the_order_in_which_they_came(self, store: Store) -> None:
        await create(store)
        assert await store.append("build", lines("a", "b"), None, NOW) == Appended(0, 2)
        assert await store.append("build", lines("c"), None, NOW) == Appended(2, 3)
        assert await store.append("build", lines("d", "e", "f"), 3, NOW) == Appended(3, 6)
        assert (await store.get_task("build")).last == 6
        assert await output(store) == ["a", "b", "c", "d", "e", "f"]

    async def test_lines_for_a_task_that_is_gone_do_not_go_to_another_with_its_id(self, store: Store) -> None:
        gone = await create(store)
        assert await store.append("build", lines("a"), None, NOW, log=gone.log) == Appended(0, 1)
        assert await store.append("build", lines("b"), None, NOW, log=gone.log) == Appended(1, 2)
        await store.finish("build", SUCCESS, NOW)
        await store.delete_task("build")
        new = await create(store, owner="bob")
        await store.append("build", lines("c"), None, NOW, log=new.log)
        with pytest.raises(TaskNotFound):
            await store.append("build", lines("d"), None, NOW, log=gone.log)
        assert await output(store) == ["c"]

    async def test_starts_a_queued_task_and_renews_its_lease(self, store: Store) -> None:
        queued = await create(store, lease=5)
        await store.append("build", lines("a"), None, NOW + SECOND)
        running = await store.get_task("build")
        assert running == replace(
            queued, state=TaskState.RUNNING, last=1, started_at=NOW + SECOND, lease_expires_at=NOW + 6 * SECOND
        )
        await store.append("build", lines("b"), None, NOW + 3 * SECOND)
        assert await store.get_task("build") == replace(running, last=2, lease_expires_at=NOW + 8 * SECOND)

    async def test_keeps_every_text_as_it_is(self, store: Store) -> None:
        await create(store)
        await store.append("build", lines(*HOSTILE), None, NOW)
        for text in HOSTILE:
            await store.append("build", lines(text), None, NOW)
        assert await output(store) == HOSTILE * 2

    async def test_keeps_time_and_stream_of_each_line(self, store: Store) -> None:
        task = await create(store)
        await store.append("build", lines("a", "b", now=NOW + 1), None, NOW)
        await store.append("build", lines("c", now=NOW + 2, stream=Stream.STDERR), None, NOW)
        out, err = Stream.STDOUT, Stream.STDERR
        assert await sides(store, task.log) == [(NOW + 1, out), (NOW + 1, out), (NOW + 2, err)]

    async def test_takes_a_line_of_a_mebibyte_and_many_lines_at_once(self, store: Store) -> None:
        task = await create(store)
        long, many = "x" * 1024 * 1024, [str(number) for number in range(50_000)]
        await store.append("build", lines("before", long, "after"), None, NOW)
        assert await store.append("build", lines(*many), None, NOW) == Appended(3, 50_003)
        assert await texts(store, task.log) == ["before", long, "after", *many]

    async def test_of_nothing_adds_nothing_but_is_a_sign_of_life(self, store: Store) -> None:
        await create(store, lease=5)
        assert await store.append("build", lines(), None, NOW + SECOND) == Appended(0, 0)
        task = await store.get_task("build")
        assert (task.state, task.last, task.lease_expires_at) == (TaskState.RUNNING, 0, NOW + 6 * SECOND)
        assert await output(store) == []

    async def test_tells_that_the_producer_is_to_stop(self, store: Store) -> None:
        await create(store)
        assert not (await store.append("build", lines("a"), None, NOW)).cancel_requested
        await store.request_cancel("build", NOW)
        assert await store.append("build", lines("b"), None, NOW) == Appended(1, 2, cancel_requested=True)
        assert await store.append("build", lines("b"), 1, NOW) == Appended(1, 2, cancel_requested=True)

    async def test_to_an_unknown_task_is_not_found(self, store: Store) -> None:
        for first in (None, 0, 7):
            with pytest.raises(TaskNotFound):
                await store.append("build", lines("a"), first, NOW)

    async def test_to_an_ended_task_is_refused(self, store: Store) -> None:
        task = await finished(store, "build", "a")
        for first in (None, 1):
            with pytest.raises(TaskFinished):
                await store.append("build", lines("b"), first, NOW)
        assert await store.get_task("build") == task
        assert await output(store) == ["a"]


class TestRepeatedAppend:
    @pytest.fixture
    async def task(self, store: Store) -> Task:
        """A running task with the lines 0 to 5, from three appends; its store is asked afterwards."""
        await create(store, lease=5)
        await store.append("build", lines("0", "1"), 0, NOW)
        await store.append("build", lines("2", "3"), 2, NOW)
        await store.append("build", lines("4", "5"), 4, NOW)
        return await store.get_task("build")

    @pytest.mark.parametrize(
        ("first", "again"), [(0, "01"), (2, "23"), (4, "45"), (0, "0"), (1, "12"), (0, "012345"), (5, "5"), (3, "345")]
    )
    async def test_lines_that_stand_there_already_change_nothing(
        self, store: Store, task: Task, changes: Recorder, first: int, again: str
    ) -> None:
        answer = await store.append("build", lines(*again, now=NOW + 1, stream=Stream.STDERR), first, NOW + SECOND)
        assert answer == Appended(first, first + len(again))
        assert await store.get_task("build") == task
        assert await output(store) == list("012345")
        assert set(await sides(store, task.log)) == {(NOW, Stream.STDOUT)}
        assert [change.chunk for change in changes.of("build") if change.chunk is not None] == []

    @pytest.mark.parametrize(
        ("first", "other"),
        [
            pytest.param(4, "4x", id="another text"),
            pytest.param(1, "01", id="at another place"),
            pytest.param(5, "56", id="partly new"),
            pytest.param(0, "0123456", id="all of it and more"),
            pytest.param(4, ["4,5"], id="joined"),
            pytest.param(4, ['4",\n"5'], id="joined as stored"),
            pytest.param(7, "7", id="behind the end"),
            pytest.param(2**31, "7", id="far behind the end"),
        ],
    )
    async def test_anything_else_is_a_conflict_that_tells_where_the_output_ends(
        self, store: Store, task: Task, first: int, other: str | list[str]
    ) -> None:
        with pytest.raises(AppendConflict) as caught:
            await store.append("build", lines(*other), first, NOW)
        assert caught.value.payload == {"last": 6}
        assert await store.get_task("build") == task
        assert await output(store) == list("012345")

    async def test_hostile_texts_are_told_apart_and_recognised(self, store: Store) -> None:
        await create(store)
        await store.append("build", lines(*HOSTILE), 0, NOW)
        assert await store.append("build", lines(*HOSTILE), 0, NOW) == Appended(0, len(HOSTILE))
        for number, text in enumerate(HOSTILE):
            assert await store.append("build", lines(text), number, NOW) == Appended(number, number + 1)
            with pytest.raises(AppendConflict):
                await store.append("build", lines(text + " "), number, NOW)

    @pytest.mark.parametrize("sealed", [False, True])
    async def test_succeeds_on_an_ended_task_too(self, store: Store, task: Task, sealed: bool) -> None:
        done = await store.finish("build", SUCCESS, NOW)
        if sealed:
            await store.seal(task.log)
        assert await store.append("build", lines("4", "5"), 4, NOW) == Appended(4, 6)
        assert await store.append("build", lines("1", "2", "3"), 1, NOW) == Appended(1, 4)
        for first, texts_ in [(4, "4x"), (5, "56"), (6, "6"), (9, "9")]:
            with pytest.raises(TaskFinished) as caught:
                await store.append("build", lines(*texts_), first, NOW)
            assert caught.value.payload is not None
            assert caught.value.payload["last"] == 6
        assert await store.get_task("build") == done

    async def test_without_first_a_repeat_is_an_append(self, store: Store) -> None:
        await create(store)
        await store.append("build", lines("a"), None, NOW)
        assert await store.append("build", lines("a"), None, NOW) == Appended(1, 2)
        assert await output(store) == ["a", "a"]


class TestFinish:
    @pytest.mark.parametrize(
        ("outcome", "state"),
        [
            (SUCCESS, TaskState.SUCCESS),
            (Outcome(0, "", b'{"type":"table","data":[1,2]}'), TaskState.SUCCESS),
            (FAILURE, TaskState.FAILED),
            (Outcome(-9, "killed"), TaskState.FAILED),
            (Outcome(2**31 - 1, "e" * 65_536), TaskState.FAILED),
        ],
    )
    async def test_ends_a_task_in_its_producers_words(self, store: Store, outcome: Outcome, state: TaskState) -> None:
        await create(store, lease=5)
        await store.append("build", lines("a"), None, NOW)
        running = await store.get_task("build")
        task = await store.finish("build", outcome, NOW + SECOND)
        assert task == replace(
            running,
            state=state,
            code=outcome.code,
            error=outcome.error,
            result=outcome.result,
            finished_at=NOW + SECOND,
            lease_expires_at=None,
        )
        assert await store.get_task("build") == task
        assert await output(store) == ["a"]

    async def test_may_come_first(self, store: Store) -> None:
        await create(store)
        task = await store.finish("build", SUCCESS, NOW + 1)
        assert (task.state, task.started_at, task.finished_at) == (TaskState.SUCCESS, NOW + 1, NOW + 1)

    async def test_after_a_cancel_tells_a_stop_from_a_success(self, store: Store) -> None:
        for task_id, outcome in [("stopped", Outcome(143, "terminated")), ("done", SUCCESS)]:
            await create(store, task_id)
            await store.heartbeat(task_id, NOW)
            await store.request_cancel(task_id, NOW)
            await store.finish(task_id, outcome, NOW)
        stopped = await store.get_task("stopped")
        assert (stopped.state, stopped.code, stopped.error) == (TaskState.CANCELLED, 143, "terminated")
        assert (await store.get_task("done")).state is TaskState.SUCCESS

    @pytest.mark.parametrize("first", [None, 1])
    async def test_brings_the_last_lines_in_the_same_commit(
        self, store: Store, changes: Recorder, first: int | None
    ) -> None:
        await create(store)
        await store.append("build", lines("a"), None, NOW)
        changes.take()
        task = await store.finish("build", SUCCESS, NOW, lines("b", "c"), first)
        assert (task.last, task.finished) == (3, True)
        assert await output(store) == ["a", "b", "c"]
        (change,) = changes.take()
        assert change.task == task
        assert change.chunk is not None
        assert (change.chunk.first, change.chunk.end) == (1, 3)

    async def test_does_not_double_lines_whose_answer_got_lost(self, store: Store) -> None:
        await create(store)
        await store.append("build", lines("a", "b"), 0, NOW)
        task = await store.finish("build", SUCCESS, NOW, lines("b"), 1)
        assert task.last == 2
        assert await output(store) == ["a", "b"]

    @pytest.mark.parametrize(
        ("texts_", "first"), [(["x"], 0), (["a", "b"], 0), (["b"], 2), ([], 0), ([], 2), (["b"], 9)]
    )
    async def test_with_lines_in_the_wrong_place_leaves_the_task_running(
        self, store: Store, texts_: list[str], first: int
    ) -> None:
        await create(store, lease=5)
        await store.append("build", lines("a"), None, NOW)
        running = await store.get_task("build")
        with pytest.raises(AppendConflict) as caught:
            await store.finish("build", FAILURE, NOW, lines(*texts_) if texts_ else None, first)
        assert caught.value.payload == {"last": 1}
        assert await store.get_task("build") == running
        assert await output(store) == ["a"]

    async def test_of_an_unknown_task_is_not_found(self, store: Store) -> None:
        with pytest.raises(TaskNotFound):
            await store.finish("build", SUCCESS, NOW)


class TestRepeatedFinish:
    @pytest.mark.parametrize("first", [None, 1])
    @pytest.mark.parametrize("outcome", [SUCCESS, FAILURE])
    async def test_with_the_same_outcome_and_lines_changes_nothing(
        self, store: Store, changes: Recorder, outcome: Outcome, first: int | None
    ) -> None:
        await create(store)
        await store.append("build", lines("a"), None, NOW)
        task = await store.finish("build", outcome, NOW, lines("b", "c"), first)
        changes.take()
        assert await store.finish("build", outcome, NOW + SECOND, lines("b", "c"), first) == task
        await store.seal(task.log)
        assert await store.finish("build", outcome, NOW + SECOND, lines("b", "c"), first) == task
        assert await store.get_task("build") == task
        assert await output(store) == ["a", "b", "c"]
        assert [change for change in changes.take() if change.chunk is not None] == []

    @pytest.mark.parametrize(
        "other",
        [
            SUCCESS,
            replace(FAILURE, code=4),
            replace(FAILURE, error="another"),
            replace(FAILURE, result=None),
            replace(FAILURE, result=b'{"type":"text","data":"some"}'),
        ],
    )
    async def test_with_another_outcome_is_refused(self, store: Store, other: Outcome) -> None:
        await create(store)
        task = await store.finish("build", FAILURE, NOW, lines("a"))
        with pytest.raises(TaskFinished) as caught:
            await store.finish("build", other, NOW)
        assert caught.value.payload == {"last": 1, "state": "failed", "code": 3}
        assert await store.get_task("build") == task

    @pytest.mark.parametrize(
        ("texts_", "first"),
        [
            (["x", "c"], 1),
            (["b"], 1),
            (["c"], 1),
            (["b", "c", "d"], 1),
            (["x"], None),
            (["b"], None),
            (list("zabc"), None),
            (["d"], 3),
        ],
    )
    async def test_with_other_last_lines_is_refused(self, store: Store, texts_: list[str], first: int | None) -> None:
        await create(store)
        await store.append("build", lines("a"), None, NOW)
        task = await store.finish("build", SUCCESS, NOW, lines("b", "c"), 1)
        with pytest.raises(TaskFinished):
            await store.finish("build", SUCCESS, NOW, lines(*texts_), first)
        assert await store.get_task("build") == task
        assert await output(store) == ["a", "b", "c"]

    async def test_is_refused_when_the_task_ended_by_itself(self, store: Store) -> None:
        await create(store, "cancelled")
        await store.request_cancel("cancelled", NOW)
        await create(store, "lost", lease=1)
        await store.expire_leases(NOW + 2 * SECOND)
        for task_id in ("cancelled", "lost"):
            with pytest.raises(TaskFinished):
                await store.finish(task_id, SUCCESS, NOW, lines("late"))
            assert await output(store, task_id) == []


class TestLimit:
    async def test_lines_beyond_it_are_refused_as_a_whole(self, store: Store) -> None:
        await create(store)
        assert await store.append("build", lines("a", "b"), None, NOW, 4) == Appended(0, 2)
        with pytest.raises(OutputFull) as refused:
            await store.append("build", lines("c", "d", "e"), 2, NOW, 4)
        assert refused.value.payload == {"last": 2, "limit": 4}
        assert await store.append("build", lines("c", "d"), 2, NOW, 4) == Appended(2, 4)
        with pytest.raises(OutputFull):
            await store.append("build", lines("e"), None, NOW, 4)
        assert await output(store) == ["a", "b", "c", "d"]

    async def test_of_many_at_once_as_many_are_taken_as_there_is_room_for(self, store: Store) -> None:
        await create(store)
        appends = [store.append("build", lines(str(number)), None, NOW, 7) for number in range(20)]
        done = await asyncio.gather(*appends, return_exceptions=True)
        assert sum(isinstance(one, Appended) for one in done) == 7
        assert {type(one) for one in done} == {Appended, OutputFull}
        assert len(await output(store)) == 7

    async def test_what_stands_and_signs_of_life_need_no_room(self, store: Store) -> None:
        await create(store)
        await store.append("build", lines("a", "b", "c"), None, NOW)
        assert await store.append("build", lines("b", "c"), 1, NOW, 2) == Appended(1, 3)
        assert await store.append("build", lines(), 3, NOW, 2) == Appended(3, 3)

    async def test_an_end_that_brings_too_many_leaves_the_task_running(self, store: Store) -> None:
        await create(store)
        await store.append("build", lines("a"), None, NOW)
        with pytest.raises(OutputFull):
            await store.finish("build", SUCCESS, NOW, lines("b", "c"), None, 2)
        task = await store.get_task("build")
        assert (task.state, task.last) == (TaskState.RUNNING, 1)
        assert (await store.finish("build", SUCCESS, NOW, lines("b"), None, 2)).last == 2
        assert (await store.finish("build", SUCCESS, NOW, lines("b"), None, 2)).last == 2
