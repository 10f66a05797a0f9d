"""Group commit: what waits is committed together, in a few transactions at a time.

The time of a commit is that of its round trips and of the database's fsync,
for one append as for a hundred. While transactions are under way the next
operations queue up, and go into the next one together; the busier the node,
the larger the groups.

Order: operations on one task, by one node, are committed and reported in the
order in which they were submitted. So a task is in one group at a time, and an
operation that works on more than the tasks it names is in a group that runs
alone, after all that was submitted before it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from taskserver.config import MIB
from taskserver.errors import StoreUnavailable, TaskServerError
from taskserver.stores.postgres.failures import Conflicts, Everybodys, Lost, OutcomeUnknown, as_answer

log = logging.getLogger(__name__)

LANES = 3  # transactions at a time: one prepares while another waits for the disk
MIN_BESIDE = 16  # operations that are worth a transaction beside others; fewer wait for the next one …
MAX_WAIT = 0.005  # … but no longer than so many seconds: the others may be waiting for a lock
MAX_GROUP = 1000  # operations in one transaction; bounds how long the first of them waits
MAX_GROUP_BYTES = 16 * MIB  # of lines in one transaction
ATTEMPTS = 6  # at a transaction that conflicts with another node's
PAUSE = 0.005  # seconds before the second attempt, about; doubles each time

T = TypeVar("T")


class NotAlone(Exception):
    """An operation turned out to need more than its tasks; its group must be run again, alone."""


class Operation(Protocol):
    """What to do in a transaction."""

    @property
    def tasks(self) -> Sequence[str]:
        """The tasks that it works on."""

    @property
    def alone(self) -> bool:
        """Whether it works on more than that."""

    @property
    def size(self) -> int:
        """About how many bytes it brings."""


@dataclass(slots=True)
class Job:
    """An operation and its answer."""

    operation: Any
    future: asyncio.Future[Any]
    alone: bool
    result: Any = None
    error: Exception | None = None


Transact = Callable[[Sequence[Job], bool], Awaitable[list[Any]]]
"""Runs jobs in one transaction, which is told whether they are alone, and returns the changes once they are durable.

It sets each job's ``result`` or, with a TaskServerError, its ``error``. What it raises has undone everything.
"""


class GroupCommitter:
    """Gathers operations into groups and runs these with ``transact``.

    ``report`` is called with the changes of each durable group, before the
    operations' callers get their answers.
    """

    def __init__(
        self, transact: Transact, report: Callable[[Sequence[Any]], None], *, min_beside: int = MIN_BESIDE
    ) -> None:
        self._transact = transact
        self._report = report
        self._min_beside = min_beside
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Job] = deque()
        self._busy: set[str] = set()  # tasks in groups that are under way
        self._groups: set[asyncio.Task[None]] = set()
        self._alone = False  # whether the group under way is one that runs alone
        self._closed = False
        self._pumping = False
        self._late: asyncio.TimerHandle | None = None

    def submit(self, operation: Operation) -> asyncio.Future[Any]:
        """Queue an operation; the future has its result once that is durable.

        Giving up on the future does not take the operation back.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closed:
            future.set_exception(StoreUnavailable("the database is closed"))
        else:
            self._queue.append(Job(operation, future, operation.alone))
            self._pump_soon()
        return future

    async def close(self) -> None:
        """Commit what is queued and take no more. A repeat does nothing."""
        self._closed = True
        self._pump()
        while self._groups:
            await asyncio.wait(self._groups)

    # --- groups --------------------------------------------------------------------

    def _pump_soon(self) -> None:
        # What comes in the same turn of the event loop goes into one group.
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def _pump(self, late: bool = False) -> None:
        """Begin as many groups as there may be now, ``late`` a small one too."""
        self._pumping = False
        if late:
            self._late = None
        while self._queue and not self._alone and len(self._groups) < LANES:
            if self._groups and len(self._queue) < self._min_beside and not late:
                if self._late is None:
                    self._late = self._loop.call_later(MAX_WAIT, self._pump, True)
                return
            jobs = self._take()
            if not jobs:
                return
            if self._late is not None:
                self._late.cancel()
                self._late = None
            tasks = {task for job in jobs for task in job.operation.tasks}
            self._busy |= tasks
            self._groups.add(self._loop.create_task(self._run(jobs, tasks)))

    def _take(self) -> list[Job]:
        """The next jobs that may go together, and with the groups that are under way."""
        if self._queue[0].alone:
            if self._groups:
                return []
            self._alone = True
        taken: list[Job] = []
        left: list[Job] = []
        waiting: set[str] = set()  # tasks of jobs that are left; what comes after them must wait too
        size = 0
        while self._queue and len(taken) < MAX_GROUP and size < MAX_GROUP_BYTES and len(left) < MAX_GROUP:
            job = self._queue[0]
            if job.alone and not self._alone:
                break
            self._queue.popleft()
            tasks = job.operation.tasks
            if not self._alone and not (self._busy.isdisjoint(tasks) and waiting.isdisjoint(tasks)):
                left.append(job)
                waiting.update(tasks)
            else:
                taken.append(job)
                size += job.operation.size
        self._queue.extendleft(reversed(left))
        return taken

    async def _run(self, jobs: list[Job], tasks: set[str]) -> None:
        changes, again = await self._commit(jobs)
        self._deliver(jobs[: len(jobs) - len(again)], changes)
        self._busy -= tasks
        self._alone = False
        for job in reversed(again):
            job.alone = True
            self._queue.appendleft(job)
        # The group is done, although its task is not: let the next one take its place.
        current = asyncio.current_task()
        assert current is not None
        self._groups.discard(current)
        self._pump()

    async def _commit(self, jobs: list[Job]) -> tuple[list[Any], list[Job]]:
        """Run the jobs in one transaction; if that fails, each in one of its own, so that only the culprit suffers.

        Returns the changes, and the last of the jobs if those have to be run again, alone.
        """
        try:
            return await self._attempt(jobs), []
        except NotAlone:
            return [], jobs
        except Exception as error:
            if len(jobs) == 1 or isinstance(error, (*Everybodys, OutcomeUnknown, TaskServerError)):
                for job in jobs:
                    job.error = as_answer(error)
                return [], []
        changes: list[Any] = []
        for number, job in enumerate(jobs):
            more, again = await self._commit([job])
            if again:
                return changes, jobs[number:]
            changes += more
        return changes, []

    async def _attempt(self, jobs: list[Job]) -> list[Any]:
        """Run the jobs; again, if they were undone because of another node, or the connection was lost before."""
        for attempt in range(ATTEMPTS):
            for job in jobs:
                job.result = job.error = None
            try:
                return await self._transact(jobs, self._alone)
            except (*Conflicts, *Lost) as error:
                last_loss = isinstance(error, Lost) and attempt > 0  # a second connection is lost too: tell it
                if last_loss or attempt + 1 == ATTEMPTS:
                    raise
                log.info("a transaction is tried again: %s", error)
            await asyncio.sleep(PAUSE * 2**attempt * (0.5 + random.random()))  # noqa: S311 - nothing secret
        raise AssertionError("unreachable")

    def _deliver(self, jobs: list[Job], changes: list[Any]) -> None:
        if changes:
            try:
                self._report(changes)
            except Exception:  # a bug of the listener's must not leave the callers waiting: their changes are durable
                log.exception("the report of a commit failed")
        for job in jobs:
            if job.future.done():  # its caller has left
                continue
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.result)
