"""Direct appends: a group of them in one statement, which is a transaction of its own.

A node remembers how it left the tasks that it appended to last. Where nothing
has changed since, there is nothing to be read first: the statement locks the
tasks that still are as remembered, adds to them, and tells which ones those
were. It waits for nobody: a task that somebody else has locked is none of them.
Whatever it does not do, an ordinary transaction does afterwards.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from taskserver.encoding import merge_lines
from taskserver.model import Chunk, Lines, Task, TaskState, lease_end
from taskserver.store import AnyChange, Appended, Change
from taskserver.stores.postgres.committer import Job
from taskserver.stores.postgres.connect import Pool, borrowed
from taskserver.stores.postgres.failures import Lost, OutcomeUnknown, describe
from taskserver.stores.postgres.rows import add_chunks, chunk_to_rows, columns_of
from taskserver.stores.rows import Row

TASKS = 20_000  # that are remembered; about a kilobyte each, mostly shared with the server's own heads

# Each change raises the version. `last` is for a standby that took over and had not heard of the latest ones: there the
# same version may come again. LATERAL, so that each task is found by its key whatever the planner thinks of the table.
_APPEND = (
    "WITH mine AS ("
    " SELECT task.log, new.count, new.lease_expires_at"
    " FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])"
    " AS new (log, version, last, count, lease_expires_at),"
    " LATERAL (SELECT log FROM task"
    " WHERE task.log = new.log AND task.version = new.version AND task.last = new.last"
    " FOR NO KEY UPDATE SKIP LOCKED) AS task"
    "), grown AS ("
    " UPDATE task SET last = task.last + mine.count, version = task.version + mine.count,"
    " lease_expires_at = mine.lease_expires_at FROM mine WHERE task.log = mine.log"
    f"), added AS ({add_chunks(6)} JOIN mine ON mine.log = new.log"
    ") SELECT array_agg(log) FROM mine"
)


class Remembered:
    """Running tasks as this node changed them last, the latest ones. Others may have changed them since."""

    def __init__(self, limit: int = TASKS) -> None:
        self._limit = limit
        self._tasks: OrderedDict[str, Task] = OrderedDict()

    def get(self, task_id: str) -> Task | None:
        """A task, if it is remembered."""
        return self._tasks.get(task_id)

    def forget(self, task_id: str) -> None:
        """Forget a task, since it is not as it was any more."""
        self._tasks.pop(task_id, None)

    def take_over(self, changes: Sequence[AnyChange]) -> None:
        """Remember what was committed."""
        for change in changes:
            if isinstance(change, Change):
                task = change.task
                self._tasks.pop(task.id, None)
                if task.state is TaskState.RUNNING and not change.deleted:
                    self._tasks[task.id] = task
        while len(self._tasks) > self._limit:
            self._tasks.popitem(last=False)


@dataclass(slots=True)
class _Append:
    """What a group adds to one task, and the jobs that it answers."""

    task: Task
    last: int
    now: int = 0
    jobs: list[Job] = field(default_factory=list)
    lines: list[Lines] = field(default_factory=list)

    def fits(self, lines: Lines, first: int | None, limit: int, log: int | None) -> bool:
        """Whether the lines go to this task's end, as far as this node knows."""
        return (
            (first is None or first == self.last)
            and (log is None or log == self.task.log)
            and 0 < lines.count <= limit - self.last
        )

    def add(self, job: Job, lines: Lines, now: int) -> None:
        """Add lines, and note the job's answer."""
        start = self.last
        self.last = start + lines.count
        self.now = now
        self.jobs.append(job)
        self.lines.append(lines)
        job.result = Appended(start, self.last, self.task.cancel_requested)

    def change(self) -> tuple[Task, Chunk]:
        """The task as it stands then, and its new lines."""
        lines = merge_lines(self.lines)
        task = self.task.grown(lines.count)
        if task.lease_us is not None:
            task = replace(task, lease_expires_at=lease_end(self.now, task.lease_us))
        return task, Chunk(self.task.last, lines.count, lines.payload, lines.side)


class DirectAppends:
    """Runs groups of appends: jobs whose operation has the arguments of ``Store.append``."""

    def __init__(self, pool: Pool, heads: Remembered) -> None:
        self._pool = pool
        self._heads = heads

    async def run(self, jobs: Sequence[Job]) -> tuple[list[AnyChange], list[Job]]:
        """Append what can be; return the changes once they are durable, and the jobs that nothing was done for.

        Raises OutcomeUnknown if the connection breaks meanwhile; after any other error nothing was done.
        """
        appends = self._gather(jobs)
        if not appends:
            return [], list(jobs)
        tasks: list[Row] = []
        chunks: list[Row] = []
        changes: list[AnyChange] = []
        for append in appends:
            task, chunk = append.change()
            tasks.append((task.log, append.task.version, chunk.first, chunk.count, task.lease_expires_at))
            chunks += chunk_to_rows(task.log, chunk)
            changes.append(Change(task, chunk))
        done = await self._execute(tasks, chunks)
        if len(done) < len(appends):
            changes = [change for change, append in zip(changes, appends, strict=True) if append.task.log in done]
            for append in appends:
                if append.task.log not in done:
                    self._heads.forget(append.task.id)
                    for job in append.jobs:
                        job.result = None
        return changes, [job for job in jobs if job.result is None]

    def _gather(self, jobs: Sequence[Job]) -> list[_Append]:
        """What can be tried, task by task; the jobs in it have the answers that they get if that succeeds."""
        appends: dict[str, _Append] = {}
        left: set[str] = set()  # tasks with a job that does not fit: what comes behind it must not overtake it
        for job in jobs:
            task_id, lines, first, now, limit, log = job.operation.args
            append = appends.get(task_id)
            if append is None:
                head = self._heads.get(task_id)
                if head is None:
                    continue
                append = _Append(head, head.last)
            if task_id in left or not append.fits(lines, first, limit, log):
                left.add(task_id)
            else:
                appends[task_id] = append
                append.add(job, lines, now)
        return list(appends.values())

    async def _execute(self, tasks: Sequence[Row], chunks: Sequence[Row]) -> set[int]:
        """Run the statement; the logs of the tasks that were appended to."""
        async with borrowed(self._pool) as connection:
            try:
                logs = await connection.fetchval(_APPEND, *columns_of(tasks), *columns_of(chunks))
            except Lost as error:
                raise OutcomeUnknown(describe(error)) from error
        return set(logs or ())
