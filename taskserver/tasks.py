"""Tasks: create, append, finish, read, wait and follow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from functools import partial

from taskserver.config import Settings
from taskserver.errors import FirstBeyondOutput, OutputFull, TaskNotFound
from taskserver.keys import Caller
from taskserver.live import LiveLogs
from taskserver.livepartials import LivePartials
from taskserver.meters import Waiter
from taskserver.model import (
    MICROSECONDS,
    Chunk,
    Lines,
    NewTask,
    Outcome,
    Scope,
    Task,
    TaskFilter,
    TaskState,
    checked_outcome,
    new_id,
    now_us,
)
from taskserver.partial import Unfinished
from taskserver.retention import pruned
from taskserver.searching import Found, Needle
from taskserver.store import Appended, Change, Ended, Store
from taskserver.waiting import Waits
from taskserver.wakeup import Wakeup

NO_LINES = Lines(0, b"", b"")
FRESH = 2 / 3  # of a lease: with so much of it left, it need not be renewed for a bar's sake


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
        waits: Waits,
        settings: Settings,
        clock: Callable[[], int] = now_us,
    ) -> None:
        self._store = store
        self._wakeup = wakeup
        self._waits = waits
        self._meters = waits.meters
        self._limits = settings.limits
        self._searching = settings.searching
        self._searches = asyncio.Semaphore(settings.searching.at_once)
        self._clock = clock
        self._live: LiveLogs[str, Task] = LiveLogs(store, settings.memory)
        self.partials = LivePartials(store, wakeup)

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

    async def append(
        self,
        caller: Caller,
        task_id: str,
        lines: Lines,
        first: int | None = None,
        *,
        closing: bool = False,
        unfinished: Unfinished | None = None,
    ) -> Appended:
        """Add lines to a task's output; see ``Store.append`` for repeats and errors.

        ``closing``: they are the end of what was too much (OutputFull), for which room is reserved.
        ``unfinished`` is told to be what stands behind them.
        """
        reserve = 0 if closing else self._limits.output_reserve
        try:
            done, log = await self._append(caller, task_id, lines, first, self._limits.output_lines - reserve)
        except OutputFull as full:
            full.payload = {**(full.payload or {}), "reserve": reserve}
            raise
        if lines.count:  # a live body begins with none
            self._meters.appended(lines.count, len(lines.payload))
        if unfinished is not None:
            self.partials.tell(log, done.last, unfinished)
        return done

    async def _append(
        self, caller: Caller, task_id: str, lines: Lines, first: int | None, limit: int
    ) -> tuple[Appended, int]:
        """As ``append``; and the task's log."""
        caller.require(Scope.WRITE)
        # Whose a task is never changes: to know it, an older head will do.
        known = self._live.remembered(task_id)
        if known is not None and caller.sees(known):
            with suppress(TaskNotFound):  # the id may have been given to another task meanwhile
                return await self._store.append(task_id, lines, first, self._clock(), limit, known.log), known.log
        task = await self.own(caller, task_id)
        return await self._store.append(task_id, lines, first, self._clock(), limit, task.log), task.log

    async def tell_unfinished(self, caller: Caller, task_id: str, unfinished: Unfinished) -> Appended:
        """Tell what stands behind the last line of a task's output; a sign of life.

        A bar moves often: it renews the lease, which is a commit, only when a third of that is over. Raises
        TaskNotFound; TaskFinished if the task has ended.
        """
        task = await self.own(caller, task_id)
        if not self._is_fresh(task):
            return await self.append(caller, task_id, NO_LINES, unfinished=unfinished)
        self.partials.tell(task.log, task.last, unfinished)
        return Appended(task.last, task.last, task.cancel_requested)

    def _is_fresh(self, task: Task) -> bool:
        """Whether a task runs, and its producer was heard lately."""
        if task.state is not TaskState.RUNNING:
            return False
        return task.lease_us is None or (task.lease_expires_at or 0) - self._clock() > task.lease_us * FRESH

    async def finish(
        self,
        caller: Caller,
        task_id: str,
        outcome: Outcome,
        lines: Lines | None = None,
        first: int | None = None,
    ) -> Task:
        """End a task, with its last lines in the same commit; see ``Store.finish``. They may use what is reserved.

        A code other than 0 without an error gets a default text.
        """
        await self.own(caller, task_id)
        outcome = checked_outcome(outcome, self._limits.result_bytes)
        task = await self._store.finish(task_id, outcome, self._clock(), lines, first, self._limits.output_lines)
        if lines is not None and lines.count:
            self._meters.appended(lines.count, len(lines.payload))
        return task

    async def heartbeat(self, caller: Caller, task_id: str) -> Task:
        """Renew a task's lease. Raises TaskFinished if it has ended."""
        await self.own(caller, task_id)
        return await self._store.heartbeat(task_id, self._clock())

    async def cancel(self, caller: Caller, task_id: str) -> Task:
        """Ask a task's producer to stop; a queued task ends at once. A repeat changes nothing."""
        await self.own(caller, task_id)
        return await self._store.request_cancel(task_id, self._clock())

    async def delete(self, caller: Caller, task_id: str) -> None:
        """Remove a finished task. Raises TaskNotFinished."""
        await self.own(caller, task_id)
        await self._store.delete_task(task_id)

    async def count_ended(self, caller: Caller, older_than: int) -> Ended:
        """How many tasks outside of runs, and runs, have ended more than so many seconds ago. For admins."""
        caller.require(Scope.ADMIN)
        return await self._store.count_ended(self._clock() - older_than * MICROSECONDS)

    async def prune(self, caller: Caller, older_than: int, at_least: int) -> tuple[Ended, bool]:
        """Remove what ``count_ended`` counts until there were ``at_least`` so many, or all of it.

        Tells what was removed, and whether there may be more. For admins.
        """
        caller.require(Scope.ADMIN)
        removed = Ended()
        async with aclosing(pruned(self._store, self._clock() - older_than * MICROSECONDS)) as batches:
            async for batch in batches:
                removed += batch
                if removed.tasks + removed.runs >= at_least:
                    return removed, True
        return removed, False

    async def own(self, caller: Caller, task_id: str) -> Task:
        """The task, for its producer: as ``get``, with the scope ``write`` in the place of ``read``."""
        caller.require(Scope.WRITE)
        return caller.see(await self.head(task_id))

    # --- reading -------------------------------------------------------------------

    async def get(self, caller: Caller, task_id: str) -> Task:
        """The task as committed last. Raises TaskNotFound, also for another owner's task."""
        caller.require(Scope.READ)
        return caller.see(await self.head(task_id))

    async def head(self, task_id: str) -> Task:
        """The task as committed last, whoever asks: for those who speak to many callers. Raises TaskNotFound."""
        return await self._live.head(task_id, self._store.get_task)

    def glance(self, caller: Caller, task_id: str) -> Task | None:
        """As ``get``, without waiting; None if the task is not in memory."""
        caller.require(Scope.READ)
        live = self._live.get(task_id)
        return None if live is None else caller.see(live.head)

    async def list(self, caller: Caller, where: TaskFilter, limit: int, before: int | None = None) -> list[Task]:
        """The caller's tasks (an admin's: everybody's), newest first; see ``Store.list_tasks``."""
        caller.require(Scope.READ)
        if not caller.is_admin:
            where = replace(where, owner=caller.owner)
        return await self._store.list_tasks(where, limit, before)

    async def wait_end(self, caller: Caller, task_id: str, first: int, timeout: float) -> Task:
        """The task once it has ended or ``timeout`` seconds have passed. New output does not end the wait (A1).

        Raises FirstBeyondOutput before it waits.
        """

        async def look() -> tuple[Task, bool]:
            task = check_first(await self.get(caller, task_id), first)
            return task, task.finished

        return await self._waits.until(caller, end_topic(task_id), timeout, look)

    async def wait_output(self, caller: Caller, task_id: str, first: int, timeout: float) -> Task:
        """The task once it has a line past ``first``, has ended, or ``timeout`` seconds have passed (A5)."""
        look = partial(self._look_for_lines, caller, task_id, first)
        return await self._waits.until(caller, output_topic(task_id), timeout, look)

    async def _look_for_lines(self, caller: Caller, task_id: str, first: int) -> tuple[Task, bool]:
        """The task, and whether it has a line past ``first`` or will get none."""
        task = check_first(await self.get(caller, task_id), first)
        return task, task.finished or task.last > first

    async def page(self, task: Task, first: int, end: int, max_bytes: int | None = None) -> Page:
        """Lines of a task from ``first`` on, at most up to ``end`` and ``max_bytes`` (by default those of a page).

        Raises TaskNotFound if there should be some, but the task was deleted meanwhile.
        """
        chunks = await self._live.page(task.id, task.log, first, end, max_bytes)
        if not chunks and first < end:
            raise _deleted(task)
        return Page(task, first, chunks[-1].end if chunks else first, chunks)

    async def pages(self, task: Task, first: int, end: int) -> AsyncGenerator[Page, None]:
        """Lines ``[first, end)`` of a task in bounded pages; none if there are no lines.

        Raises TaskNotFound if the task is deleted meanwhile: what was read is
        then no whole answer.
        """
        async with aclosing(self._live.read(task.id, task.log, first, end)) as found:
            async for chunks in found:
                page = Page(task, first, chunks[-1].end, chunks)
                del chunks
                yield page
                first = page.end
                del page
        if first < end:
            raise _deleted(task)

    async def search(self, caller: Caller, task_id: str, needle: Needle, first: int, limit: int) -> Found:
        """The lines from ``first`` on that match: at most ``limit`` of them, or with 0 only how many.

        Looks at a bounded part of the output, and in threads: the caller goes on
        at ``Found.end``. Raises TaskNotFound, FirstBeyondOutput.
        """
        async with self._searches:
            task = check_first(await self.get(caller, task_id), first)
            end, size, count, lines = first, 0, 0, list[int]()
            give_up = time.monotonic() + self._searching.seconds
            async with aclosing(self.pages(task, first, task.last)) as pages:
                async for page in pages:
                    matching = await asyncio.to_thread(needle.lines, page.chunks)
                    end, count = page.end, count + len(matching)
                    size += sum(len(chunk.payload) for chunk in page.chunks)
                    if limit:
                        lines += matching
                        if count >= limit:
                            del lines[limit:]
                            return Found(task, first, lines[-1] + 1, limit, lines)
                    if size >= self._searching.scan_bytes or time.monotonic() >= give_up:
                        break
            return Found(task, first, end, count, lines)

    async def follow(
        self, caller: Caller, task_id: str, first: int, heartbeat: float, waiter: Waiter = Waiter.STREAM
    ) -> AsyncGenerator[Page, None]:
        """Lines from ``first`` on as they come, until the task has ended and all is told.

        The first page comes at once, an empty one whenever nothing came for
        ``heartbeat`` seconds, and the last one is ``complete``, unless the server
        drains. What is not taken is not read: a slow reader costs one page.
        """
        with self._waits.open(caller, output_topic(task_id), waiter) as wait:
            quiet = 0.0  # the first page comes at once
            while True:
                task, _ = await wait.until(quiet, partial(self._look_for_lines, caller, task_id, first))
                if task.last == first:
                    yield Page(task, first, first, ())
                async with aclosing(self.pages(task, first, task.last)) as pages:
                    async for page in pages:
                        yield page
                        first = page.end
                if task.finished or self._waits.draining:
                    return
                quiet = heartbeat

    def committed(self, changes: Sequence[Change]) -> None:
        """Take over what was committed, then tell those who wait for it."""
        topics: dict[str, None] = {}
        for change in changes:
            task = change.task
            if change.deleted:
                self._live.forget(task.id)
            else:
                self._live.apply(task.id, task, change.chunk)
            if change.chunk is not None or task.finished or change.deleted:
                topics[output_topic(task.id)] = None
            if task.finished or change.deleted:
                topics[end_topic(task.id)] = None
        self._wakeup.publish(topics)


def _deleted(task: Task) -> TaskNotFound:
    return TaskNotFound(f"task {task.id!r} was deleted while it was being read")


def output_topic(task_id: str) -> str:
    """The wake-up of those who wait for a task's lines."""
    return f"output:{task_id}"


def end_topic(task_id: str) -> str:
    """The wake-up of those who wait for a task's end only: lines leave them asleep."""
    return f"end:{task_id}"


def check_first(task: Task, first: int) -> Task:
    """The task itself. Raises FirstBeyondOutput if it has no line ``first`` and that is not its next one."""
    if first > task.last:
        raise FirstBeyondOutput(f"first: is {first}, but the output has {task.last} lines so far", {"last": task.last})
    return task
