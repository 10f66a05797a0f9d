"""Tasks: what the API cannot show from outside: races with the store, the background work and the clock."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from taskserver.config import Limits, Memory, Settings, Timing
from taskserver.encoding import decode_texts, encode_lines, quoted
from taskserver.errors import (
    BadCredential,
    FirstBeyondOutput,
    StoreFull,
    StoreUnavailable,
    TaskNotFound,
    TooManyWaiters,
)
from taskserver.keys import Caller
from taskserver.model import ApiKey, Outcome, Scope, Task, TaskFilter, TaskState
from taskserver.store import AnyChange, Change, Listener, Store
from taskserver.stores import open_store
from taskserver.tasks import Tasks
from taskserver.upkeep import Upkeep
from taskserver.waiting import Waits
from taskserver.wakeup import LocalWakeup
from tests.eventually import eventually

NOW = 1_800_000_000_000_000
SECOND = 1_000_000
LONG = 20.0
WATCHING = Timing(reaper=0.001)
BACKGROUND = ("expire_leases", "expire_runs", "unsealed", "seal")

Hook = Callable[[], Awaitable[None]]


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)


class HeldStore:
    """A store whose reports and reads can be held up, as a busy event loop or thread would."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._listener: Listener | None = None
        self._late: list[AnyChange] = []
        self.behind = False
        self.tells_all = True
        self.reports_held = False
        self.before_get: Hook | None = None
        self.after_get: Hook | None = None
        self.failing: Exception | None = None
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        if self.failing is not None and name in ("expire_leases", "unsealed", "seal"):
            raise self.failing
        return getattr(self._store, name)

    def listen(self, listener: Listener) -> None:
        self._listener = listener
        self._store.listen(self._report)

    def _report(self, changes: Sequence[AnyChange]) -> None:
        assert self._listener is not None
        if self.reports_held:
            self._late.extend(changes)
        else:
            self._listener(changes)

    def let_reports_go(self) -> None:
        assert self._listener is not None
        self.reports_held = False
        self._listener(self._late)
        self._late = []

    async def get_task(self, task_id: str) -> Task:
        self.calls.append("get_task")
        if self.before_get is not None:
            hook, self.before_get = self.before_get, None
            await hook()
        task = await self._store.get_task(task_id)
        if self.after_get is not None:
            hook, self.after_get = self.after_get, None
            await hook()
        return task


def caller(
    name: str = "ann", *scopes: Scope, clock: Callable[[], int] = lambda: NOW, expires_at: int | None = None
) -> Caller:
    key = ApiKey(f"id-{name}", name, name, frozenset(scopes or (Scope.READ, Scope.WRITE)), b"", NOW, expires_at)
    return Caller(key, clock)


ANN = caller()


class Scene:
    """Tasks over a store, as a server has them."""

    def __init__(self, store: HeldStore, **options: Any) -> None:
        self.store = store
        self.wakeup = LocalWakeup()
        self.clock = Clock()
        settings = Settings(**options)
        self.waits = Waits(self.wakeup, settings.limits, settings.timing)
        self.tasks = Tasks(cast(Store, store), self.wakeup, self.waits, settings, self.clock)
        self.upkeep = Upkeep(cast(Store, store), settings.timing, self.clock)
        store.listen(self._committed)

    def _committed(self, changes: Sequence[AnyChange]) -> None:
        self.tasks.committed([change for change in changes if isinstance(change, Change)])
        self.upkeep.committed(changes)

    async def create(self, task_id: str = "build", *texts: str, **wish: Any) -> Task:
        task = await self.tasks.create(ANN, task_id=task_id, **wish)
        if texts:
            await self.append(task_id, *texts)
        return task

    async def append(self, task_id: str, *texts: str) -> None:
        await self.tasks.append(ANN, task_id, encode_lines(texts, NOW))

    async def watch(self, seconds: int) -> None:
        """Let so many seconds pass, in each of which the upkeep looks for lost producers."""
        for _ in range(seconds):
            self.clock.pass_seconds(1)
            enough = self.store.calls.count("expire_leases") + 2
            await eventually(lambda enough=enough: self.store.calls.count("expire_leases") >= enough)  # type: ignore[misc]

    async def lines(self, task: Task, first: int = 0) -> list[str]:
        """The lines of an answer that shows this task from ``first`` on."""
        found: list[str] = []
        async for page in self.tasks.pages(task, first, task.last):
            assert page.first == first + len(found)
            found += [text for chunk in page.chunks for text in decode_texts(quoted(chunk))]
            assert page.end == first + len(found), "a page must hold what it says"
        return found


Start = Callable[..., Awaitable[Scene]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts Tasks with these options; called again, it is the next process on the same database."""
    async with contextlib.AsyncExitStack() as stack:
        store = await open_store(f"sqlite:///{tmp_path}/tasks.db", synchronous="normal")
        stack.push_async_callback(store.close)

        async def starting(**options: Any) -> Scene:
            scene = Scene(HeldStore(store), **options)
            await scene.upkeep.start()
            stack.push_async_callback(scene.upkeep.close)
            return scene

        yield starting


@pytest.fixture
async def scene(start: Start) -> Scene:
    return await start()


class TestSnapshots:
    @pytest.fixture
    async def ahead(self, start: Start) -> tuple[Scene, Task]:
        """A process that read of six lines while it had been told of four: the rest is committed, its report late."""
        await (await start()).create("build", "0", "1")
        scene = await start()  # a fresh process: nothing is in memory

        async def meanwhile() -> None:
            await scene.store.append("build", encode_lines(["2", "3"], NOW), None, NOW)
            scene.store.reports_held = True
            await scene.store.append("build", encode_lines(["4", "5"], NOW), None, NOW)

        scene.store.before_get = meanwhile
        task = await scene.tasks.get(ANN, "build")
        assert task.last == 6
        return scene, task

    async def test_a_read_that_overtakes_a_report_loses_no_line(self, ahead: tuple[Scene, Task]) -> None:
        scene, task = ahead
        assert await scene.lines(task, 2) == ["2", "3", "4", "5"]
        scene.store.let_reports_go()
        assert await scene.lines(task, 2) == ["2", "3", "4", "5"]

    async def test_a_cursor_that_was_given_out_stays_good(self, ahead: tuple[Scene, Task]) -> None:
        scene, task = ahead
        assert (await scene.tasks.wait_output(ANN, "build", task.last, 0)).last == task.last

    async def test_a_new_task_of_the_same_id_does_not_lend_its_lines(self, scene: Scene) -> None:
        await scene.create("build", "old", "older")
        old = await scene.tasks.finish(ANN, "build", Outcome())
        await scene.store.delete_task("build")
        await scene.create("build", "new", "newer")
        with pytest.raises(TaskNotFound):
            await scene.lines(old)

    async def test_of_two_tasks_of_one_id_the_newer_one_counts(self, start: Start) -> None:
        before = await start()
        await before.create("build", "old", "older")
        await before.tasks.finish(ANN, "build", Outcome())
        scene = await start()

        async def meanwhile() -> None:
            await scene.store.delete_task("build")
            await scene.create("build", "new", "newer")

        scene.store.after_get = meanwhile
        task = await scene.tasks.get(ANN, "build")
        assert await scene.lines(task) == ["new", "newer"]

    async def test_a_poll_at_the_tail_reads_no_database(self, scene: Scene) -> None:
        await scene.create("build", "a", "b")
        scene.store.calls.clear()
        task = await scene.tasks.wait_output(ANN, "build", 1, LONG)
        assert await scene.lines(task, 1) == ["b"]
        waiting = asyncio.ensure_future(scene.tasks.wait_output(ANN, "build", 2, LONG))
        await eventually(lambda: scene.waits.count == 1)
        await scene.append("build", "c")
        assert await scene.lines(await waiting, 2) == ["c"]
        assert [call for call in scene.store.calls if call not in BACKGROUND] == ["append"]

    async def test_lines_that_are_not_in_memory_any_more_come_from_the_store(self, start: Start) -> None:
        scene = await start(memory=Memory(task_bytes=200, page_bytes=500))
        texts = [f"line {number}" for number in range(300)]
        await scene.create()
        for text in texts:
            await scene.append("build", text)
        task = await scene.tasks.get(ANN, "build")
        for first in (0, 1, 150, 298, 299, 300):
            assert await scene.lines(task, first) == texts[first:]

    async def test_memory_is_only_a_cache(self, start: Start) -> None:
        scene = await start(memory=Memory(task_bytes=0, total_bytes=0))
        await scene.create("build", "a", "b")
        assert await scene.lines(await scene.tasks.get(ANN, "build")) == ["a", "b"]
        await scene.tasks.finish(ANN, "build", Outcome(), encode_lines(["c"], NOW))
        assert (await scene.tasks.wait_end(ANN, "build", 0, LONG)).last == 3


class TestWaits:
    async def test_what_happens_between_looking_and_waiting_is_not_missed(self, start: Start) -> None:
        await (await start()).create()
        scene = await start(timing=Timing(reread=1000))

        async def meanwhile() -> None:
            await scene.append("build", "a")
            await scene.tasks.finish(ANN, "build", Outcome())

        # Nothing is in memory, so each look asks the store; the end comes just after the first answer.
        scene.store.after_get = meanwhile
        assert (await scene.tasks.wait_end(ANN, "build", 0, LONG)).finished

    async def test_waits_leave_nothing_behind(self, scene: Scene) -> None:
        await scene.create()
        waits: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(wait(ANN, "build", 0, LONG))
            for wait in (scene.tasks.wait_end, scene.tasks.wait_output)
            for _ in range(10)
        ]
        await eventually(lambda: scene.waits.count == 20)
        for wait in waits[::2]:
            wait.cancel()
        await scene.tasks.finish(ANN, "build", Outcome())
        await asyncio.gather(*waits, return_exceptions=True)
        assert scene.waits.count == 0
        assert scene.wakeup._topics == {}

    async def test_first_is_checked_before_anything_is_waited_for(self, scene: Scene) -> None:
        await scene.create("build", "a")
        for wait in (scene.tasks.wait_end, scene.tasks.wait_output):
            with pytest.raises(FirstBeyondOutput):
                await wait(ANN, "build", 2, LONG)

    async def test_too_many_waits_are_refused(self, start: Start) -> None:
        scene = await start(limits=Limits(waiters=1))
        await scene.create()
        waiting = asyncio.ensure_future(scene.tasks.wait_end(ANN, "build", 0, LONG))
        await eventually(lambda: scene.waits.count == 1)
        with pytest.raises(TooManyWaiters):
            await scene.tasks.wait_output(ANN, "build", 0, LONG)
        assert not (await scene.tasks.wait_end(ANN, "build", 0, 0)).finished  # this one does not wait
        scene.waits.drain()
        await waiting

    async def test_a_drain_ends_waits_and_lets_none_begin(self, scene: Scene) -> None:
        await scene.create()
        waiting = asyncio.ensure_future(scene.tasks.wait_end(ANN, "build", 0, LONG))
        await eventually(lambda: scene.waits.count == 1)
        before = scene.waits.draining
        scene.waits.drain()
        assert not (await waiting).finished
        assert (before, scene.waits.draining) == (False, True)
        for _ in range(3):
            assert not (await scene.tasks.wait_output(ANN, "build", 0, LONG)).finished

    async def test_a_revoked_caller_is_told_when_woken(self, scene: Scene) -> None:
        await scene.create()
        who = caller()
        waiting = asyncio.ensure_future(scene.tasks.wait_end(who, "build", 0, LONG))
        await eventually(lambda: scene.waits.count == 1)
        who.revoked = True
        scene.wakeup.publish([who.topic])
        with pytest.raises(BadCredential):
            await waiting

    async def test_an_expiring_caller_is_told_in_time(self, scene: Scene) -> None:
        await scene.create()
        who = caller(clock=scene.clock, expires_at=NOW + SECOND // 10)
        waiting = asyncio.ensure_future(scene.tasks.wait_end(who, "build", 0, LONG))
        await eventually(lambda: scene.waits.count == 1)
        scene.clock.pass_seconds(1)
        with pytest.raises(BadCredential):
            await waiting


class TestFollow:
    async def test_an_empty_page_is_a_sign_of_life(self, scene: Scene) -> None:
        await scene.create("build", "a")
        pages = scene.tasks.follow(ANN, "build", 0, 0.01)
        assert (await anext(pages)).end == 1
        for _ in range(2):
            page = await anext(pages)
            assert (page.first, page.end, page.chunks, page.complete) == (1, 1, (), False)
        await scene.tasks.finish(ANN, "build", Outcome(), encode_lines(["b"], NOW))
        assert [(page.end, page.complete) async for page in pages] == [(2, True)]

    async def test_of_a_finished_task_without_output_there_is_one_empty_page_that_is_complete(
        self, scene: Scene
    ) -> None:
        await scene.create()
        await scene.tasks.finish(ANN, "build", Outcome())
        (page,) = [page async for page in scene.tasks.follow(ANN, "build", 0, LONG)]
        assert (page.chunks, page.complete) == ((), True)

    async def test_a_slow_reader_gets_all_of_it_in_bounded_pages(self, start: Start) -> None:
        scene = await start(memory=Memory(task_bytes=1000, page_bytes=1000))
        await scene.create("build", "0")
        seen: list[str] = []
        expected = ["0"]
        async for page in scene.tasks.follow(ANN, "build", 0, LONG):
            seen += [text for chunk in page.chunks for text in decode_texts(quoted(chunk))]
            if len(expected) < 500:  # while the reader is busy with a page, more comes
                more = [str(number) for number in range(len(expected), len(expected) + 50)]
                expected += more
                for text in more:
                    await scene.append("build", text)
            elif not page.task.finished:
                await scene.tasks.finish(ANN, "build", Outcome())
        assert seen == expected

    async def test_it_ends_when_the_server_drains(self, scene: Scene) -> None:
        await scene.create("build", "a")
        pages = scene.tasks.follow(ANN, "build", 0, LONG)
        await anext(pages)
        scene.waits.drain()
        assert [page.chunks async for page in pages] in ([], [()])

    async def test_a_deletion_while_it_goes_on_is_not_taken_for_the_end(self, start: Start) -> None:
        scene = await start(memory=Memory(task_bytes=0, page_bytes=1))
        await scene.create()
        for text in "abcdefgh":  # more than is read ahead
            await scene.append("build", text)
        await scene.upkeep.close()  # nobody seals it: that would make one page of it
        await scene.tasks.finish(ANN, "build", Outcome())
        pages = scene.tasks.follow(ANN, "build", 0, LONG)
        await anext(pages)
        await scene.tasks.delete(ANN, "build")
        with pytest.raises(TaskNotFound):
            [page async for page in pages]


class TestBackground:
    async def test_leases_begin_anew_with_the_server(self, start: Start) -> None:
        before = await start(timing=Timing(reaper=1000))
        await before.create(lease=10)
        after = Scene(before.store, timing=WATCHING)
        after.clock.pass_seconds(100)
        await after.upkeep.start()
        await after.watch(9)
        assert (await before.store.get_task("build")).state is TaskState.QUEUED
        await after.watch(2)
        assert (await before.store.get_task("build")).state is TaskState.INTERRUPTED
        await after.upkeep.close()

    async def test_a_silence_while_the_server_stood_still_does_not_count(self, start: Start) -> None:
        scene = await start(timing=WATCHING)
        await scene.create(lease=10)
        await scene.watch(8)
        scene.clock.pass_seconds(100)  # the machine slept
        await scene.watch(9)
        assert (await scene.store.get_task("build")).state is TaskState.QUEUED
        await scene.watch(2)
        assert (await scene.store.get_task("build")).state is TaskState.INTERRUPTED

    async def test_a_silence_while_the_store_failed_does_not_count(self, start: Start) -> None:
        scene = await start(timing=WATCHING)
        await scene.create(lease=10)
        scene.store.failing = StoreUnavailable("the database failed")
        await scene.watch(20)
        scene.store.failing = None
        await scene.watch(9)
        assert (await scene.store.get_task("build")).state is TaskState.QUEUED
        await scene.watch(2)
        assert (await scene.store.get_task("build")).state is TaskState.INTERRUPTED

    async def test_a_lost_producer_is_noticed_by_the_clock(self, start: Start) -> None:
        scene = await start(timing=WATCHING)
        await scene.create(lease=10)
        waiting = asyncio.ensure_future(scene.tasks.wait_end(ANN, "build", 0, LONG))
        await eventually(lambda: scene.store.calls.count("expire_leases") > 3)
        assert not waiting.done()
        await scene.watch(11)
        assert (await waiting).state is TaskState.INTERRUPTED

    async def test_what_ended_is_sealed_also_what_was_left_before(self, start: Start) -> None:
        before = await start()
        await before.upkeep.close()
        await before.create("left", "a")
        await before.tasks.finish(ANN, "left", Outcome())
        assert [task.id for task in await before.store.unsealed(9)] == ["left"]
        scene = await start()
        await scene.create("build", "a")
        await scene.tasks.finish(ANN, "build", Outcome())

        async def all_sealed() -> None:
            while await scene.store.unsealed(9):
                pass

        await asyncio.wait_for(all_sealed(), LONG)
        assert await scene.lines(await scene.tasks.get(ANN, "left")) == ["a"]

    @pytest.mark.parametrize("error", [StoreUnavailable("the database failed"), StoreFull("the disk is full")])
    async def test_it_goes_on_after_the_store_failed(self, start: Start, error: Exception) -> None:
        scene = await start(timing=replace(WATCHING, sealer_pause=0.01))
        scene.store.failing = error
        await scene.create(lease=1)
        await scene.create("done")
        await scene.tasks.finish(ANN, "done", Outcome())
        scene.store.calls.clear()
        await eventually(lambda: {"expire_leases", "unsealed"} <= set(scene.store.calls))
        scene.store.failing = None
        await scene.watch(2)
        assert (await scene.tasks.wait_end(ANN, "build", 0, LONG)).state is TaskState.INTERRUPTED
        await eventually(lambda: scene.store.calls.count("seal") >= 2)


class TestRights:
    async def test_an_admins_list_has_everybodys_tasks_and_anothers_has_his(self, scene: Scene) -> None:
        await scene.create("anns")
        await scene.tasks.create(caller("bob"), task_id="bobs")

        async def seen(who: Caller, where: TaskFilter) -> list[str]:
            return [task.id for task in await scene.tasks.list(who, where, 9)]

        boss = caller("boss", Scope.ADMIN)
        assert await seen(boss, TaskFilter()) == ["bobs", "anns"]
        assert await seen(boss, TaskFilter(owner="ann")) == ["anns"]
        assert await seen(ANN, TaskFilter()) == ["anns"]
        assert await seen(ANN, TaskFilter(owner="bob")) == ["anns"]  # the question does not widen the rights

    async def test_a_missing_and_a_hidden_task_are_told_in_the_same_words(self, scene: Scene) -> None:
        await scene.create("anns")
        words = []
        for task_id in ("anns", "none"):
            with pytest.raises(TaskNotFound) as caught:
                await scene.tasks.get(caller("bob"), task_id)
            words.append((caught.value.message.replace(task_id, "…"), caught.value.payload))
        assert words[0] == words[1]
