"""Tasks: create, append, finish, read, wait and follow. The only waiting loops of the program are here.

Every wait follows one order: subscribe, then read, then wait for "look again",
so that nothing can happen unseen between the reading and the waiting.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from taskserver.config import Limits, Memory, Timing
from taskserver.errors import FirstBeyondOutput, StoreUnavailable, TaskNotFound, TooLarge, TooManyWaiters
from taskserver.keys import Caller
from taskserver.live import LiveTasks
from taskserver.model import (
    MICROSECONDS,
    Chunk,
    Lines,
    NewTask,
    Outcome,
    Scope,
    Task,
    TaskFilter,
    default_error,
    new_id,
    now_us,
)
from taskserver.store import Appended, Change, Store
from taskserver.wakeup import Wakeup

log = logging.getLogger(__name__)

SEAL_BATCH = 100

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page:
    """Some lines ``[first, end)`` of a task's output and the task as it stood when they were read.

    ``chunks`` is empty where there was nothing new. ``complete`` tells that the
    task has ended and these are its last lines.
    """

    task: Task
    first: int
    end: int
    chunks: Sequence[Chunk]

    @property
    def complete(self) -> bool:
        return self.task.finished and self.end == self.task.last


class Tasks:
    """The tasks of a store, for callers with their rights."""

    def __init__(
        self,
        store: Store,
        wakeup: Wakeup,
        *,
        limits: Limits = Limits(),
        timing: Timing = Timing(),
        memory: Memory = Memory(),
        clock: Callable[[], int] = now_us,
    ) -> None:
        self._store = store
        self._wakeup = wakeup
        self._limits = limits
        self._timing = timing
        self._memory = memory
        self._clock = clock
        self._live = LiveTasks(memory)
        self._waiters = 0
        self._draining = False
        self._ended = asyncio.Event()
        self._background: list[asyncio.Task[None]] = []

    # --- lifetime ------------------------------------------------------------------

    async def start(self) -> None:
        """Begin all leases anew, since nobody could renew one while no server ran, and start the background work."""
        self._store.listen(self._committed)
        await self._store.renew_leases(self._clock())
        self._background = [asyncio.create_task(self._reap()), asyncio.create_task(self._seal())]

    @property
    def draining(self) -> bool:
        """Whether the server is shutting down."""
        return self._draining

    @property
    def waiters(self) -> int:
        """How many waits are open."""
        return self._waiters

    def drain(self) -> None:
        """Answer every wait with the current state, at once, and let no new one begin."""
        self._draining = True
        self._wakeup.wake_all()

    async def close(self) -> None:
        """Stop the background work. The store is its owner's to close."""
        self.drain()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    # --- producing -----------------------------------------------------------------

    async def create(
        self,
        caller: Caller,
        *,
        task_id: str | None = None,
        name: str = "",
        lease: float | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Task:
        """Create a queued task of the caller's. ``lease`` is in seconds. Raises TaskExists."""
        caller.require(Scope.WRITE)
        lease_us = None if lease is None else round(lease * MICROSECONDS)
        new = NewTask(task_id or new_id(), caller.owner, name, lease_us, labels or {})
        return await self._store.create_task(new, self._clock())

    async def append(self, caller: Caller, task_id: str, lines: Lines, first: int | None = None) -> Appended:
        """Add lines to a task's output; see ``Store.append`` for repeats and errors."""
        await self._own(caller, task_id)
        return await self._store.append(task_id, lines, first, self._clock())

    async def finish(
        self,
        caller: Caller,
        task_id: str,
        outcome: Outcome,
        lines: Lines | None = None,
        first: int | None = None,
    ) -> Task:
        """End a task, with its last lines in the same commit; see ``Store.finish``.

        A code other than 0 without an error gets a default text.
        """
        await self._own(caller, task_id)
        if outcome.result is not None and len(outcome.result) > self._limits.result_bytes:
            raise TooLarge(f"result: larger than {self._limits.result_bytes} bytes of JSON")
        outcome = Outcome(outcome.code, outcome.error or default_error(outcome.code), outcome.result)
        return await self._store.finish(task_id, outcome, self._clock(), lines, first)

    async def heartbeat(self, caller: Caller, task_id: str) -> Task:
        """Renew a task's lease. Raises TaskFinished if it has ended."""
        await self._own(caller, task_id)
        return await self._store.heartbeat(task_id, self._clock())

    async def cancel(self, caller: Caller, task_id: str) -> Task:
        """Ask a task's producer to stop; a queued task ends at once. A repeat changes nothing."""
        await self._own(caller, task_id)
        return await self._store.request_cancel(task_id, self._clock())

    async def delete(self, caller: Caller, task_id: str) -> None:
        """Remove a finished task. Raises TaskNotFinished."""
        await self._own(caller, task_id)
        await self._store.delete_task(task_id)

    async def _own(self, caller: Caller, task_id: str) -> Task:
        caller.require(Scope.WRITE)
        return caller.see(await self._head(task_id))

    # --- reading -------------------------------------------------------------------

    async def get(self, caller: Caller, task_id: str) -> Task:
        """The task as committed last. Raises TaskNotFound, also for another owner's task."""
        caller.require(Scope.READ)
        return caller.see(await self._head(task_id))

    async def list(self, caller: Caller, where: TaskFilter, limit: int, before: int | None = None) -> list[Task]:
        """The caller's tasks (an admin's: everybody's), newest first; see ``Store.list_tasks``."""
        caller.require(Scope.READ)
        if not caller.is_admin:
            where = TaskFilter(caller.owner, where.state, where.name, where.labels)
        return await self._store.list_tasks(where, limit, before)

    async def wait_end(self, caller: Caller, task_id: str, first: int, timeout: float) -> Task:
        """The task once it has ended or ``timeout`` seconds have passed. New output does not end the wait (A1).

        Raises FirstBeyondOutput before it waits.
        """
        task = _check_first(await self.get(caller, task_id), first)
        if task.finished or timeout <= 0:
            return task

        async def look() -> tuple[Task, bool]:
            task = await self.get(caller, task_id)
            return task, task.finished

        return await self._wait(caller, end_topic(task_id), timeout, look)

    async def wait_output(self, caller: Caller, task_id: str, first: int, timeout: float) -> Task:
        """The task once it has a line past ``first``, has ended, or ``timeout`` seconds have passed (A5)."""
        task = _check_first(await self.get(caller, task_id), first)
        if task.last > first or task.finished or timeout <= 0:
            return task

        async def look() -> tuple[Task, bool]:
            task = await self.get(caller, task_id)
            return task, task.finished or task.last > first

        return await self._wait(caller, output_topic(task_id), timeout, look)

    async def pages(self, task: Task, first: int, end: int) -> AsyncIterator[Page]:
        """Lines ``[first, end)`` of a task in bounded pages; none if there are no lines.

        Raises TaskNotFound if the task is deleted meanwhile: what was read is
        then no whole answer.
        """
        live = self._live.get(task.id)
        if live is not None and first < end:
            recent = live.lines(first, end)
            if recent is not None:
                yield Page(task, first, end, recent)
                return
        while first < end:
            chunks = await self._store.read(task.log, first, end, self._memory.page_bytes)
            if not chunks:
                raise TaskNotFound(f"task {task.id!r} was deleted while it was being read")
            yield Page(task, first, chunks[-1].end, chunks)
            first = chunks[-1].end

    async def follow(self, caller: Caller, task_id: str, first: int, heartbeat: float) -> AsyncIterator[Page]:
        """Lines from ``first`` on as they come, until the task has ended and all is told.

        Yields an empty page whenever nothing came for ``heartbeat`` seconds, and
        the last page is ``complete``. Ends without one when the server drains. What is not taken is not read: a slow
        reader costs one page.
        """
        while True:
            task = await self.wait_output(caller, task_id, first, heartbeat)
            nothing = task.last == first
            async for page in self.pages(task, first, task.last):
                yield page
                first = page.end
            if nothing:
                yield Page(task, first, first, ())
            if self._draining or (task.finished and first == task.last):
                return

    async def _head(self, task_id: str) -> Task:
        live = self._live.get(task_id)
        return live.task if live is not None else await self._store.get_task(task_id)

    # --- waiting -------------------------------------------------------------------

    async def _wait(
        self, caller: Caller, topic: str, timeout: float, look: Callable[[], Awaitable[tuple[T, bool]]]
    ) -> T:
        """Look until there is an answer, ``timeout`` has passed or the server drains; return what was seen last.

        Raises BadCredential as soon as the caller's key is revoked or expires.
        """
        if self._waiters >= self._limits.waiters:
            raise TooManyWaiters(f"{self._waiters} requests are waiting already, which is the limit; try again later")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        self._waiters += 1
        try:
            with self._wakeup.subscribe(topic, caller.topic) as subscription:
                while True:
                    subscription.clear()
                    caller.check()
                    answer, done = await look()
                    left = deadline - loop.time()
                    if done or left <= 0 or self._draining:
                        return answer
                    await subscription.wait(min(left, self._timing.reread, caller.seconds_left()))
        finally:
            self._waiters -= 1

    def _committed(self, changes: Sequence[Change]) -> None:
        """Take over what was committed, then tell those who wait for it."""
        topics: dict[str, None] = {}
        for change in changes:
            self._live.apply(change)
            task = change.task
            if change.chunk is not None or task.finished:
                topics[output_topic(task.id)] = None
            if task.finished:
                topics[end_topic(task.id)] = None
                self._ended.set()
        self._wakeup.publish(topics)

    # --- background ----------------------------------------------------------------

    async def _reap(self) -> None:
        """End the tasks whose producers were not heard of in time."""
        while True:
            await asyncio.sleep(self._timing.reaper)
            try:
                for task in await self._store.expire_leases(self._clock()):
                    log.warning("task %s: %s", task.id, task.error)
            except StoreUnavailable as error:
                log.error("cannot look for lost producers: %s", error)

    async def _seal(self) -> None:
        """Seal what has ended, also what an earlier process left."""
        while True:
            self._ended.clear()
            try:
                while tasks := await self._store.unsealed(SEAL_BATCH):
                    for task in tasks:
                        await self._store.seal(task.log)
            except StoreUnavailable as error:
                log.error("cannot seal finished output: %s", error)
                await asyncio.sleep(self._timing.sealer_pause)
            else:
                await self._ended.wait()


def output_topic(task_id: str) -> str:
    """The wake-up of those who wait for a task's lines."""
    return f"output:{task_id}"


def end_topic(task_id: str) -> str:
    """The wake-up of those who wait for a task's end only: lines leave them asleep."""
    return f"end:{task_id}"


def _check_first(task: Task, first: int) -> Task:
    if first > task.last:
        raise FirstBeyondOutput(f"first: is {first}, but the output has {task.last} lines so far", {"last": task.last})
    return task
