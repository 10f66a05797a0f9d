"""Store: tasks, their lists, cancellation, leases and deletion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from taskserver.errors import TaskExists, TaskFinished, TaskNotFinished, TaskNotFound
from taskserver.model import NewTask, Task, TaskFilter, TaskState
from taskserver.store import Store
from tests.contract.helpers import FAILURE, NOW, SECOND, SUCCESS, Opener, create, finished, lines, texts

ANY = TaskFilter()


class TestCreate:
    async def test_a_new_task_is_queued_and_empty(self, store: Store) -> None:
        new = NewTask("build", "ann", "nightly", 30 * SECOND, {"branch": "main", "ünï'\"[0].x": "=,\\ \n"})
        task = await store.create_task(new, NOW)
        assert task == Task(
            id="build",
            log=task.log,
            owner="ann",
            name="nightly",
            state=TaskState.QUEUED,
            created_at=NOW,
            labels=new.labels,
            lease_us=30 * SECOND,
            lease_expires_at=NOW + 30 * SECOND,
        )
        assert await store.get_task("build") == task
        assert await texts(store, task.log) == []

    async def test_without_a_lease_nothing_expires(self, store: Store) -> None:
        task = await create(store)
        assert (task.lease_us, task.lease_expires_at) == (None, None)

    async def test_a_taken_id_is_refused_whoever_owns_it(self, store: Store) -> None:
        first = await create(store, owner="ann", name="hers")
        with pytest.raises(TaskExists):
            await create(store, owner="bob", name="his")
        assert await store.get_task("build") == first
        assert await store.list_tasks(ANY, 10) == [first]

    async def test_ids_differ_by_case(self, store: Store) -> None:
        await create(store, "build")
        await create(store, "Build")
        assert (await store.get_task("Build")).id == "Build"

    async def test_a_deleted_tasks_id_begins_anew(self, store: Store) -> None:
        old = await finished(store, "build", "old")
        await store.delete_task("build")
        new = await create(store)
        assert new.log > old.log
        assert (new.state, new.last) == (TaskState.QUEUED, 0)
        assert await texts(store, new.log) == []
        assert await texts(store, old.log) == []

    async def test_an_unknown_task_is_not_found(self, store: Store) -> None:
        with pytest.raises(TaskNotFound):
            await store.get_task("build")


class TestDurability:
    async def test_what_was_answered_stands_after_a_restart(self, opener: Opener[Store], tmp_path: Path) -> None:
        before = await opener(tmp_path)
        await create(before, "done", labels={"a": "b"})
        done = await before.finish("done", FAILURE, NOW + 2, lines("one", "two"))
        await create(before, "live", lease=5)
        await before.append("live", lines("three"), None, NOW + 3)
        live = await before.get_task("live")
        await before.close()

        after = await opener(tmp_path)
        try:
            assert await after.get_task("done") == done
            assert await after.get_task("live") == live
            assert await texts(after, done.log) == ["one", "two"]
            assert await texts(after, live.log) == ["three"]
            assert (await create(after, "new")).log > live.log
        finally:
            await after.close()


class TestList:
    async def test_the_order_is_that_of_creation_backwards_whatever_the_clock_says(self, store: Store) -> None:
        for task_id, now in [("a", NOW), ("b", NOW - SECOND), ("c", NOW - SECOND)]:
            await create(store, task_id, now=now)
        assert [task.id for task in await store.list_tasks(ANY, 10)] == ["c", "b", "a"]

    async def test_of_no_tasks_is_empty(self, store: Store) -> None:
        assert await store.list_tasks(ANY, 10) == []

    async def test_pages_are_not_shifted_by_new_tasks(self, store: Store) -> None:
        for number in range(5):
            await create(store, f"t{number}")
        seen, before = [], None
        for _ in range(3):
            page = await store.list_tasks(ANY, 2, before)
            seen += [task.id for task in page]
            before = page[-1].log
            await create(store, f"new{len(seen)}")
        assert seen == ["t4", "t3", "t2", "t1", "t0"]
        assert await store.list_tasks(ANY, 2, before) == []

    async def test_the_last_task_of_a_page_may_be_deleted_before_the_next(self, store: Store) -> None:
        for number in range(3):
            await finished(store, f"t{number}")
        (newest,) = await store.list_tasks(ANY, 1)
        await store.delete_task(newest.id)
        assert [task.id for task in await store.list_tasks(ANY, 5, newest.log)] == ["t1", "t0"]

    async def test_results_are_left_out_and_the_rest_is_whole(self, store: Store) -> None:
        await create(store, labels={"k": "v"}, lease=9)
        task = await store.finish("build", FAILURE, NOW, lines("x"))
        assert task.result is not None
        assert await store.list_tasks(ANY, 1) == [replace(task, result=None)]

    @pytest.mark.parametrize(
        ("where", "expected"),
        [
            (TaskFilter(owner="bob"), ["d", "b"]),
            (TaskFilter(state=TaskState.SUCCESS), ["c", "b"]),
            (TaskFilter(state=TaskState.QUEUED), ["d", "a"]),
            (TaskFilter(state=TaskState.RUNNING), []),
            (TaskFilter(name="make"), ["b", "a"]),
            (TaskFilter(name="mak"), []),
            (TaskFilter(name="MAKE"), []),
            (TaskFilter(name=""), ["d"]),
            (TaskFilter(labels={"branch": "main"}), ["c", "a"]),
            (TaskFilter(labels={"branch": "mai"}), []),
            (TaskFilter(labels={"main": "branch"}), []),
            (TaskFilter(labels={"branch": "main", "os": "linux"}), ["c"]),
            (TaskFilter(labels={"a.b[0]'\"": "$.c"}), ["b"]),
            (TaskFilter("ann", TaskState.SUCCESS, "test", {"os": "linux"}), ["c"]),
            (TaskFilter("bob", TaskState.SUCCESS, "test", {"os": "linux"}), []),
        ],
    )
    async def test_filters_match_exactly_and_all_of_them(
        self, store: Store, where: TaskFilter, expected: list[str]
    ) -> None:
        await self.create_four(store)
        found = await store.list_tasks(where, 10)
        assert [task.id for task in found] == expected
        paged = [
            task for log in [None, *(task.log for task in found)] for task in await store.list_tasks(where, 1, log)
        ]
        assert paged == found

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("mak", ["b", "a"]),
            ("MAKE", ["b", "a"]),
            ("st", ["c"]),
            ("D", ["d", "b"]),
            ("branch=", ["c", "b", "a"]),
            ("Branch=MAI", ["c", "a"]),
            ("main", ["c", "a"]),
            ("'\"=$.", ["b"]),
            ("=", ["c", "b", "a"]),
            ("%", []),
            ("_", []),
            ("branchmain", []),
            ("", ["d", "c", "b", "a"]),
        ],
    )
    async def test_a_text_may_stand_in_name_id_or_a_label(self, store: Store, text: str, expected: list[str]) -> None:
        await self.create_four(store)
        assert [task.id for task in await store.list_tasks(TaskFilter(text=text), 10)] == expected
        anns = [task.id for task in await store.list_tasks(TaskFilter(owner="ann", text=text), 10)]
        assert anns == [task_id for task_id in expected if task_id in "ac"]

    async def create_four(self, store: Store) -> None:
        await create(store, "a", owner="ann", name="make", labels={"branch": "main"})
        await create(store, "b", owner="bob", name="make", labels={"a.b[0]'\"": "$.c", "branch": "dev"})
        await create(store, "c", owner="ann", name="test", labels={"branch": "main", "os": "linux"})
        await create(store, "d", owner="bob")
        await store.finish("b", SUCCESS, NOW)
        await store.finish("c", SUCCESS, NOW)


class TestHeartbeat:
    async def test_starts_a_queued_task_and_renews_the_lease(self, store: Store) -> None:
        queued = await create(store, lease=5)
        first = await store.heartbeat("build", NOW + SECOND)
        assert first == replace(
            queued, state=TaskState.RUNNING, started_at=NOW + SECOND, lease_expires_at=NOW + 6 * SECOND
        )
        second = await store.heartbeat("build", NOW + 2 * SECOND)
        assert second == replace(first, lease_expires_at=NOW + 7 * SECOND)
        assert await store.get_task("build") == second

    async def test_does_not_give_a_lease(self, store: Store) -> None:
        await create(store)
        assert (await store.heartbeat("build", NOW)).lease_expires_at is None

    async def test_tells_that_the_producer_is_to_stop(self, store: Store) -> None:
        await create(store)
        assert not (await store.heartbeat("build", NOW)).cancel_requested
        await store.request_cancel("build", NOW)
        assert (await store.heartbeat("build", NOW)).cancel_requested

    async def test_an_ended_or_unknown_task_is_refused(self, store: Store) -> None:
        with pytest.raises(TaskNotFound):
            await store.heartbeat("build", NOW)
        task = await finished(store)
        with pytest.raises(TaskFinished):
            await store.heartbeat("build", NOW)
        assert await store.get_task("build") == task


class TestCancel:
    async def test_a_queued_task_ends_at_once(self, store: Store) -> None:
        await create(store, lease=5)
        task = await store.request_cancel("build", NOW + 1)
        assert (task.state, task.finished_at, task.started_at) == (TaskState.CANCELLED, NOW + 1, None)
        assert task.code != 0
        assert task.error
        assert task.cancel_requested
        assert task.lease_expires_at is None
        assert await store.get_task("build") == task

    async def test_a_running_task_is_only_asked(self, store: Store) -> None:
        await create(store, lease=5)
        running = await store.heartbeat("build", NOW)
        asked = await store.request_cancel("build", NOW + SECOND)
        assert asked == replace(running, cancel_requested=True)
        assert await store.get_task("build") == asked

    async def test_a_repeat_changes_nothing(self, store: Store) -> None:
        await create(store)
        await store.heartbeat("build", NOW)
        asked = await store.request_cancel("build", NOW)
        assert await store.request_cancel("build", NOW + 1) == asked
        await create(store, "queued")
        ended = await store.request_cancel("queued", NOW)
        assert await store.request_cancel("queued", NOW + 1) == ended
        assert await store.get_task("queued") == ended

    async def test_a_finished_task_stays_as_it_is(self, store: Store) -> None:
        task = await finished(store)
        assert await store.request_cancel("build", NOW) == task
        assert await store.get_task("build") == task

    async def test_an_unknown_task_is_not_found(self, store: Store) -> None:
        with pytest.raises(TaskNotFound):
            await store.request_cancel("build", NOW)


class TestDelete:
    async def test_removes_a_finished_task_and_its_output_and_nothing_else(self, store: Store) -> None:
        before = await finished(store, "before", "1", "2")
        task = await finished(store, "build", "3", "4")
        after = await finished(store, "after", "5", "6")
        await store.delete_task("build")
        with pytest.raises(TaskNotFound):
            await store.get_task("build")
        assert await texts(store, task.log) == []
        assert await store.list_tasks(ANY, 9) == [after, before]
        assert (await texts(store, before.log), await texts(store, after.log)) == (["1", "2"], ["5", "6"])

    async def test_a_task_that_has_not_ended_is_refused(self, store: Store) -> None:
        await create(store)
        with pytest.raises(TaskNotFinished):
            await store.delete_task("build")
        await store.append("build", lines("x"), None, NOW)
        task = await store.get_task("build")
        with pytest.raises(TaskNotFinished):
            await store.delete_task("build")
        assert await store.get_task("build") == task
        assert await texts(store, task.log) == ["x"]

    async def test_a_repeat_finds_nothing(self, store: Store) -> None:
        await finished(store)
        await store.delete_task("build")
        with pytest.raises(TaskNotFound):
            await store.delete_task("build")


class TestLeases:
    async def test_a_lost_producers_task_is_interrupted(self, store: Store) -> None:
        await create(store, lease=5)
        await store.append("build", lines("x"), None, NOW)
        running = await store.get_task("build")
        end = NOW + 5 * SECOND + 1
        (lost,) = await store.expire_leases(end)
        assert (lost.state, lost.finished_at, lost.last) == (TaskState.INTERRUPTED, end, 1)
        assert lost.code != 0
        assert lost.error.startswith("producer lost: ")
        assert (lost.lease_expires_at, lost.started_at) == (None, running.started_at)
        assert await store.get_task("build") == lost
        assert await store.expire_leases(end + 99 * SECOND) == []

    async def test_only_what_is_overdue_ends(self, store: Store) -> None:
        await create(store, "none")
        await create(store, "short", lease=1)
        await create(store, "long", lease=100)
        await create(store, "renewed", lease=1)
        await create(store, "appended", lease=1)
        await create(store, "done", lease=1)
        await store.finish("done", SUCCESS, NOW)
        await store.heartbeat("renewed", NOW + 2 * SECOND)
        await store.append("appended", lines("x"), None, NOW + 2 * SECOND)
        assert await store.expire_leases(NOW + SECOND - 1) == []
        assert [task.id for task in await store.expire_leases(NOW + 2 * SECOND)] == ["short"]
        ended = await store.expire_leases(NOW + 4 * SECOND)
        assert sorted(task.id for task in ended) == ["appended", "renewed"]
        assert not (await store.get_task("none")).finished
        assert not (await store.get_task("long")).finished
        assert (await store.get_task("done")).state is TaskState.SUCCESS

    async def test_a_lost_producers_next_word_is_refused(self, store: Store) -> None:
        await create(store, lease=1)
        await store.expire_leases(NOW + 2 * SECOND)
        with pytest.raises(TaskFinished):
            await store.append("build", lines("x"), None, NOW + 2 * SECOND)
        with pytest.raises(TaskFinished):
            await store.finish("build", SUCCESS, NOW + 2 * SECOND)

    async def test_a_silence_in_which_nobody_could_be_heard_does_not_count(self, store: Store) -> None:
        await create(store, "none")
        await create(store, "short", lease=1)
        await create(store, "long", lease=40)
        await create(store, "done", lease=1)
        await store.finish("done", SUCCESS, NOW)
        later = NOW + 50 * SECOND
        assert await store.expire_leases(later, later) == []
        assert await store.expire_leases(later, later - SECOND + 1) == []
        assert [task.id for task in await store.expire_leases(later, later - SECOND)] == ["short"]
        assert [task.id for task in await store.expire_leases(later, later - 40 * SECOND)] == ["long"]
