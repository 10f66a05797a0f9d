"""PostgresTransaction: one group commit. Its three parts change tasks, runs and keys.

What the operations of a group do is collected in memory and written with a few
statements at the end; what they work on is read and locked with one statement
at the beginning. Each transaction takes its locks in the same order, first
those of tasks by id, then those of runs by id, so that two nodes rarely wait
for each other in a circle. Where they do PostgreSQL undoes one of the two, and
the committer runs it again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

from taskserver.model import Chunk
from taskserver.store import AnyChange
from taskserver.stores.postgres.committer import Job, NotAlone
from taskserver.stores.postgres.connect import Connection
from taskserver.stores.postgres.keys import KeyWrites
from taskserver.stores.postgres.rows import ADD_CHUNKS, FIND_CHUNKS, Row, chunk_from_row, chunk_to_rows, columns_of
from taskserver.stores.postgres.runs import RunWrites
from taskserver.stores.postgres.tasks import TaskWrites

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """What to do in a transaction: a method of one of its parts, and the arguments.

    ``tasks`` are the ids of tasks that it works on, ``run`` is a run all of whose
    tasks it works on. ``alone``: it changes tasks or runs that these do not tell.
    ``size``: about how many bytes it brings.
    """

    part: str
    method: Callable[..., Awaitable[T]]
    args: Sequence[Any]
    tasks: Sequence[str] = ()
    run: UUID | None = None
    alone: bool = False
    size: int = 0

    def __call__(self, transaction: PostgresTransaction) -> Awaitable[T]:
        return self.method(getattr(transaction, self.part), *self.args)


class PostgresTransaction:
    """``changes`` is what to report when it is durable."""

    def __init__(self, connection: Connection, *, alone: bool) -> None:
        self.db = connection
        self.changes: list[AnyChange] = []
        self.tasks = TaskWrites(self)
        self.runs = RunWrites(self)
        self.keys = KeyWrites(self)
        self._alone = alone
        self._chunks: list[Row] = []
        self._creations = 0
        self._numbers: list[int] = []

    async def prepare(self, jobs: Sequence[Job]) -> None:
        """Read and lock what the jobs work on."""
        tasks = {task for job in jobs for task in job.operation.tasks}
        self._creations = sum(job.operation.method in (TaskWrites.create, RunWrites.create) for job in jobs)
        runs = {job.operation.run for job in jobs if job.operation.run is not None}
        if tasks or runs:
            await self.tasks.lock(tasks, runs)

    def need_alone(self) -> None:
        """Make sure that no other group of this node is under way: needed for what is not a task of this group."""
        if not self._alone:
            raise NotAlone

    async def flush(self) -> None:
        """Write what was collected: tasks first, since their transitions are events of their runs."""
        await self.tasks.flush()
        await self.runs.flush()
        await self._write_chunks()

    async def next_log(self) -> int:
        """A number for a new log. It is never given twice, not even when the log is deleted."""
        if not self._numbers:  # as many as there are tasks to create, with one statement
            sql = "SELECT nextval('log_number') FROM generate_series(1, $1) ORDER BY 1 DESC"
            self._numbers = [row[0] for row in await self.db.fetch(sql, max(1, self._creations))]
        return self._numbers.pop()

    # --- output ------------------------------------------------------------------

    def add_chunk(self, log: int, chunk: Chunk) -> None:
        """Add lines to a log."""
        self._chunks += chunk_to_rows(log, chunk)

    def take_chunks(self) -> list[Row]:
        """The rows of added lines that are not written yet, for the caller to write."""
        rows, self._chunks = self._chunks, []
        return rows

    async def read_chunks(self, log: int, first: int, end: int) -> list[Chunk]:
        """All chunks that hold lines ``[first, end)``, whole: for the few lines of a retry."""
        await self._write_chunks()
        return [chunk_from_row(row) for row in await self.db.fetch(FIND_CHUNKS, log, first, end, None)]

    async def delete_chunks(self, logs: Iterable[int]) -> None:
        """Remove the lines of some logs."""
        await self._write_chunks()
        await self.db.execute("DELETE FROM chunk WHERE log = ANY($1)", list(logs))

    async def _write_chunks(self) -> None:
        if rows := self.take_chunks():
            await self.db.execute(ADD_CHUNKS, *columns_of(rows))
