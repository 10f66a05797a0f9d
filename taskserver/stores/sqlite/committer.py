"""Group commit: one thread that commits everything that waits in one transaction.

An fsync costs the same for one append as for a hundred. While one transaction
is being made durable the next ones queue up, and go into the next commit
together; the busier the server, the larger the groups. Operations are run in
the order in which they were submitted.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol, TypeVar

from taskserver.errors import StoreFull, StoreUnavailable, TaskServerError
from taskserver.meters import Meters

log = logging.getLogger(__name__)

MAX_GROUP = 1000  # operations in one transaction; bounds how long the first of them waits

T = TypeVar("T")


class Transaction(Protocol):
    """What operations work on; made anew for each group."""

    def flush(self) -> None:
        """Write what has been collected but not written yet."""

    def committed(self) -> Sequence[Any]:
        """Take note that the transaction is durable; what to report of it."""


class Reply(Protocol):
    """Who is told what became of an operation: a future, or what does the same at once."""

    def done(self) -> bool:
        """Whether nobody wants to be told any more."""

    def set_result(self, result: Any, /) -> None:
        """It is durable."""

    def set_exception(self, exception: BaseException, /) -> None:
        """It failed."""


@dataclass(slots=True)
class _Job:
    operation: Callable[[Any], Any]
    reply: Reply
    result: Any = None
    error: BaseException | None = None


class GroupCommitter:
    """Runs operations on a connection in a thread of its own.

    An operation is a function of the transaction. It raises a TaskServerError
    before it has changed anything, or not at all: such an error is its own
    answer and does not touch its group. Any other error undoes the whole group.

    ``report`` is called on the event loop with the changes of each durable
    group, before the operations' callers get their answers.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        begin: Callable[[sqlite3.Connection], Transaction],
        report: Callable[[Sequence[Any]], None],
        meters: Meters | None = None,
    ) -> None:
        self._connection = connection
        self._begin = begin
        self._report = report
        self._meters = meters or Meters()
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="taskserver-committer", daemon=True)
        self._thread.start()

    def submit(self, operation: Callable[[Any], T]) -> asyncio.Future[T]:
        """Queue an operation; the future has its result once that is durable.

        Giving up on the future does not take the operation back.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        self.enqueue(operation, future)
        return future

    def enqueue(self, operation: Callable[[Any], Any], reply: Reply) -> None:
        """The same for who wants to be told in another way than by a future, and before any future's callbacks run."""
        if self._closed:
            reply.set_exception(StoreUnavailable("the database is closed"))
        else:
            self._jobs.put(_Job(operation, reply))

    async def close(self) -> None:
        """Commit what is queued, end the thread and close the connection."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    # --- in the thread -----------------------------------------------------------

    def _run(self) -> None:
        running = True
        while running:
            jobs, running = self._take()
            if jobs:
                changes = self._commit(jobs)
                self._loop.call_soon_threadsafe(self._deliver, jobs, changes)
        self._connection.close()

    def _take(self) -> tuple[list[_Job], bool]:
        """Wait for a job and take all that are there; False when there are to be no more."""
        jobs: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) == MAX_GROUP:
                return jobs, True
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return jobs, True
        return jobs, False

    def _commit(self, jobs: list[_Job]) -> Sequence[Any]:
        """Run the jobs in one transaction; if that fails, each in one of its own, so that only the culprit suffers."""
        try:
            return self._transact(jobs)
        except Exception as error:
            if len(jobs) == 1 or _hits_everybody(error):
                for job in jobs:
                    job.error = _as_answer(error)
                return []
            self._meters.store_retries.add()
            return [change for job in jobs for change in self._commit([job])]

    def _transact(self, jobs: list[_Job]) -> Sequence[Any]:
        connection, began = self._connection, perf_counter()
        try:
            connection.execute("BEGIN IMMEDIATE")
            transaction = self._begin(connection)
            for job in jobs:
                job.result = job.error = None
                try:
                    job.result = job.operation(transaction)
                except TaskServerError as error:
                    job.error = error
            transaction.flush()
            connection.execute("COMMIT")
            self._meters.committed(len(jobs), perf_counter() - began)
            return transaction.committed()
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    # --- on the event loop -------------------------------------------------------

    def _deliver(self, jobs: list[_Job], changes: Sequence[Any]) -> None:
        if changes:
            try:
                self._report(changes)
            except Exception:  # a bug of the listener's must not leave the callers waiting: their changes are durable
                log.exception("the report of a commit failed")
        for job in jobs:
            if job.error is not None and isinstance(job.error, StoreUnavailable):
                self._meters.store_failed(job.error)
            if job.reply.done():  # its caller has left
                continue
            if job.error is not None:
                job.reply.set_exception(job.error)
            else:
                job.reply.set_result(job.result)


def _hits_everybody(error: Exception) -> bool:
    """Whether the error comes from the database as a whole, so that trying one by one is of no use."""
    return isinstance(error, sqlite3.OperationalError)


def _as_answer(error: Exception) -> TaskServerError:
    """The error as a caller may see it. What is unexpected is logged in full."""
    if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
        log.error("the database cannot grow: %s", error)
        return StoreFull("the server's disk is full; nothing was stored")
    log.error("the database failed", exc_info=error)
    return StoreUnavailable(f"the database failed: {error}")
