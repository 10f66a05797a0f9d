"""SqliteStore: one file, one process that writes.

Writing goes to a committer, the process' own (``GroupCommitter``) or the one of
the process that commits for all (``RemoteCommitter``); reading goes through
connections of their own, which WAL mode lets read beside it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from taskserver.config import MAX_LINE_NUMBER
from taskserver.dagmodel import Dag, NewDag, NewRun, Run, RunState, uuid7
from taskserver.errors import DagNotFound, KeyNotFound, RunNotFound, TaskNotFound
from taskserver.jsontext import dumps
from taskserver.meters import Meters
from taskserver.model import ApiKey, Chunk, Lines, NewTask, Outcome, Task, TaskFilter, TaskState
from taskserver.partial import Partial
from taskserver.store import AnyChange, Appended, Ended, Listener, Store
from taskserver.stores.rows import DAG_COLUMNS, KEY_COLUMNS, RUN_COLUMNS, Row, key_from_row
from taskserver.stores.sqlite.committer import GroupCommitter
from taskserver.stores.sqlite.file import DatabaseFile
from taskserver.stores.sqlite.keys import KeyWrites
from taskserver.stores.sqlite.readers import Readers
from taskserver.stores.sqlite.retention import ANY_DISCARDED, ANY_ENDED, COUNT_RUNS, COUNT_TASKS, RetentionWrites
from taskserver.stores.sqlite.rows import OVERDUE, TASK_COLUMNS, dag_from_row, read_page, run_from_row, task_from_row
from taskserver.stores.sqlite.runs import RunWrites
from taskserver.stores.sqlite.sealing import seal
from taskserver.stores.sqlite.tasks import TaskWrites
from taskserver.stores.sqlite.transaction import Operation, SqliteTransaction
from taskserver.stores.sqlite.works import Heads

# json_each and not json_extract: a label's name may hold quotes and dots.
_HAS_LABEL = (
    "EXISTS (SELECT 1 FROM json_each(task.labels) AS has, json_each(?) AS wanted"
    " WHERE has.key = wanted.key AND has.value = wanted.value)"
)
_HAS_TEXT = (  # SQLite's lower() knows the letters of ASCII
    "EXISTS (SELECT 1 FROM (SELECT lower(?) AS text) WHERE instr(lower(task.name), text) OR instr(lower(task.id), text)"
    " OR EXISTS (SELECT 1 FROM json_each(task.labels) WHERE instr(lower(key || '=' || value), text)))"
)

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound="SqliteStore")


class Committer(Protocol):
    """Where operations go to be made durable."""

    def submit(self, operation: Operation[T]) -> asyncio.Future[T]:
        """Queue an operation; the future has its result once that is durable, and reported."""

    async def close(self) -> None:
        """Return when what is queued is committed. A repeat does nothing."""


class SqliteStore(Store):
    """See ``Store``. Open it with ``open``; it belongs to the event loop that did.

    ``connect`` is told where to report changes to, and gives the committer.
    ``file`` is the database if it is this process' to unlock.
    """

    def __init__(
        self, readers: Readers, connect: Callable[[Listener], Committer], file: DatabaseFile | None = None
    ) -> None:
        self._readers = readers
        self._file = file
        self._listener: Listener = _nobody
        self._committer = connect(self._report)

    @classmethod
    async def open(
        cls: type[S], path: str, *, synchronous: str = "full", create: bool = True, meters: Meters | None = None
    ) -> S:
        """Open, create or migrate the database file. Raises StoreOpenError; see ``open_store``."""
        file = DatabaseFile(path, synchronous, create=create)
        writer = await asyncio.to_thread(file.open)
        readers = await Readers.open(path, meters)
        begin = partial(SqliteTransaction, heads=Heads())
        return cls(readers, lambda report: GroupCommitter(writer, begin, report, meters), file)

    def listen(self, listener: Listener) -> None:
        self._listener = listener

    def tell(self, partial: Partial) -> None:
        self._listener([partial])

    async def ping(self) -> None:
        await self._query("SELECT 1")

    async def close(self) -> None:
        await self._readers.close()
        # The writer last: closing the last connection folds the log into the file, which only a writer can.
        await self._committer.close()
        if self._file is not None:
            self._file.unlock()

    # --- tasks -------------------------------------------------------------------

    async def create_task(self, new: NewTask, now: int) -> Task:
        return await self._tasks(TaskWrites.create, new, now)

    async def get_task(self, task_id: str) -> Task:
        rows = await self._query(f"SELECT {TASK_COLUMNS}, result FROM task WHERE id = ?", (task_id,))
        if not rows:
            raise TaskNotFound(f"there is no task {task_id!r}")
        return task_from_row(rows[0])

    async def list_tasks(self, where: TaskFilter, limit: int, before: int | None = None) -> list[Task]:
        conditions: list[tuple[str, Any]] = [("log < ?", before)] if before is not None else []
        if where.owner is not None:
            conditions.append(("owner = ?", where.owner))
        if where.state is not None:
            conditions.append(("state = ?", where.state.value))
        if where.name is not None:
            conditions.append(("name = ?", where.name))
        if where.text is not None:
            conditions.append((_HAS_TEXT, where.text))
        conditions += [(_HAS_LABEL, dumps({name: value}).decode()) for name, value in where.labels.items()]
        clause = " WHERE " + " AND ".join(text for text, _ in conditions) if conditions else ""
        sql = f"SELECT {TASK_COLUMNS} FROM task{clause} ORDER BY log DESC LIMIT ?"
        rows = await self._query(sql, (*(value for _, value in conditions), limit))
        return [task_from_row(row) for row in rows]

    async def count_live_tasks(self) -> dict[TaskState, int]:
        live = (TaskState.QUEUED, TaskState.RUNNING)
        counts = dict.fromkeys(live, 0)
        sql = "SELECT state, count(*) FROM task WHERE state IN (?, ?) GROUP BY state"
        counts.update((TaskState(state), count) for state, count in await self._query(sql, [s.value for s in live]))
        return counts

    async def append(
        self,
        task_id: str,
        lines: Lines,
        first: int | None,
        now: int,
        limit: int = MAX_LINE_NUMBER,
        log: int | None = None,
    ) -> Appended:
        return await self._tasks(TaskWrites.append, task_id, lines, first, now, limit, log)

    async def finish(
        self,
        task_id: str,
        outcome: Outcome,
        now: int,
        lines: Lines | None = None,
        first: int | None = None,
        limit: int = MAX_LINE_NUMBER,
    ) -> Task:
        return await self._tasks(TaskWrites.finish, task_id, outcome, now, lines, first, limit)

    async def heartbeat(self, task_id: str, now: int) -> Task:
        return await self._tasks(TaskWrites.heartbeat, task_id, now)

    async def request_cancel(self, task_id: str, now: int) -> Task:
        return await self._tasks(TaskWrites.request_cancel, task_id, now)

    async def delete_task(self, task_id: str) -> None:
        await self._tasks(TaskWrites.delete, task_id)

    async def expire_leases(self, now: int, heard_since: int = 0) -> list[Task]:
        # Looked for by a reader first: most of the time nothing is overdue, and a commit is not free.
        overdue = await self._query(f"SELECT 1 FROM task WHERE {OVERDUE} LIMIT 1", (now, now - heard_since))
        return await self._tasks(TaskWrites.expire_leases, now, heard_since) if overdue else []

    # --- runs --------------------------------------------------------------------

    async def put_dag(self, new: NewDag, now: int) -> Dag:
        return await self._runs(RunWrites.put_dag, new, uuid7(now), now)

    async def get_dag(self, dag_id: str) -> Dag:
        return await self._dag("dag_id = ?", dag_id)

    async def find_dag(self, config_id: uuid.UUID) -> Dag:
        return await self._dag("config_id = ?", str(config_id))

    async def list_dags(self, owner: str | None) -> list[Dag]:
        sql = f"SELECT {DAG_COLUMNS} FROM dag WHERE coalesce(owner = ?, 1) ORDER BY dag_id"
        return [dag_from_row(row) for row in await self._query(sql, (owner,))]

    async def create_run(self, new: NewRun, now: int) -> Run:
        return await self._runs(RunWrites.create, new, now)

    async def get_run(self, run: uuid.UUID) -> Run:
        return await self._run(str(run), "id = ?", str(run))

    async def find_run(self, dag_id: str, run_id: str) -> Run:
        return await self._run(run_id, "dag_id = ? AND run_id = ?", dag_id, run_id)

    async def find_tagged_run(self, tag: str, owner: str | None) -> Run:
        return await self._run(tag, "tag = ? AND coalesce(owner = ?, 1) ORDER BY log DESC LIMIT 1", tag, owner)

    async def list_runs(self, dag_id: str, limit: int, offset: int) -> tuple[list[Run], int]:
        sql = f"SELECT {RUN_COLUMNS} FROM run WHERE dag_id = ? ORDER BY log LIMIT ? OFFSET ?"
        rows = await self._query(sql, (dag_id, limit, offset))
        ((total,),) = await self._query("SELECT count(*) FROM run WHERE dag_id = ?", (dag_id,))
        return [run_from_row(row) for row in rows], total

    async def claim_run(
        self, owner: str | None, dag_ids: tuple[str, ...], claim: str, lease_us: int, now: int
    ) -> Run | None:
        return await self._runs(RunWrites.claim, owner, dag_ids, claim, lease_us, now)

    async def heartbeat_run(self, run: uuid.UUID, claim: str, now: int) -> Run:
        return await self._runs(RunWrites.heartbeat, run, claim, now)

    async def finish_run(self, run: uuid.UUID, claim: str | None, state: RunState | None, error: str, now: int) -> Run:
        return await self._runs(RunWrites.finish, run, claim, state, error, now)

    async def cancel_run(self, run: uuid.UUID, now: int) -> Run:
        return await self._runs(RunWrites.request_cancel, run, now)

    async def delete_run(self, run: uuid.UUID) -> None:
        await self._runs(RunWrites.delete, run)

    async def release_run(self, run: uuid.UUID, claim: str, now: int) -> Run:
        return await self._runs(RunWrites.release, run, claim, now)

    async def expire_runs(self, now: int, heard_since: int = 0) -> list[Run]:
        overdue = await self._query(f"SELECT 1 FROM run WHERE {OVERDUE} LIMIT 1", (now, now - heard_since))
        return await self._runs(RunWrites.expire_leases, now, heard_since) if overdue else []

    async def run_tasks(self, run: uuid.UUID, results_of: Collection[str] | None = ()) -> list[Task]:
        result, values = "result", []
        if results_of is not None:
            result = f"CASE WHEN task_id IN ({', '.join('?' * len(results_of))}) THEN result END"
            values = list(results_of)
        sql = f"SELECT {TASK_COLUMNS}, {result} FROM task WHERE run = ? ORDER BY log"
        return [task_from_row(row) for row in await self._query(sql, (*values, str(run)))]

    async def keep_secret(self, name: str, value: bytes) -> bytes:
        return await self._keys(KeyWrites.keep_secret, name, value)

    async def _dag(self, where: str, *values: str) -> Dag:
        rows = await self._query(f"SELECT {DAG_COLUMNS} FROM dag WHERE {where}", values)
        if not rows:
            raise DagNotFound(f"there is no dag {values[0]!r}")
        return dag_from_row(rows[0])

    async def _run(self, name: str, where: str, *values: str | None) -> Run:
        rows = await self._query(f"SELECT {RUN_COLUMNS} FROM run WHERE {where}", values)
        if not rows:
            raise RunNotFound(f"there is no run {name!r}")
        return run_from_row(rows[0])

    # --- output ------------------------------------------------------------------

    async def read(self, log: int, first: int, end: int, max_bytes: int) -> list[Chunk]:
        return await self._readers.run(read_page, log, first, end, max_bytes)

    async def unsealed(self, limit: int) -> list[Task]:
        sql = f"SELECT {TASK_COLUMNS} FROM task WHERE finished_at IS NOT NULL AND sealed = 0 ORDER BY log LIMIT ?"
        return [task_from_row(row) for row in await self._query(sql, (limit,))]

    async def seal(self, log: int) -> None:
        await seal(log, self._readers, self._tasks)

    # --- retention ---------------------------------------------------------------

    async def count_ended(self, before: int) -> Ended:
        ((tasks,),) = await self._query(COUNT_TASKS, (before,))
        ((runs,),) = await self._query(COUNT_RUNS, (before,))
        return Ended(tasks, runs)

    async def prune(self, before: int, limit: int) -> Ended:
        # As with leases: a reader looks first.
        if not await self._query(ANY_ENDED, (before, before)):
            return Ended()
        return await self._retention(RetentionWrites.prune, before, limit)

    async def sweep(self) -> bool:
        if not await self._query(ANY_DISCARDED):
            return False
        return await self._retention(RetentionWrites.sweep)

    # --- keys --------------------------------------------------------------------

    async def add_key(self, key: ApiKey) -> None:
        await self._keys(KeyWrites.add, key)

    async def get_key(self, key_id: str) -> ApiKey:
        rows = await self._query(f"SELECT {KEY_COLUMNS} FROM api_key WHERE id = ?", (key_id,))
        if not rows:
            raise KeyNotFound(f"there is no key with id {key_id!r}")
        return key_from_row(rows[0])

    async def list_keys(self) -> list[ApiKey]:
        rows = await self._query(f"SELECT {KEY_COLUMNS} FROM api_key ORDER BY created_at, id")
        return [key_from_row(row) for row in rows]

    async def revoke_key(self, key_id: str, now: int) -> ApiKey:
        return await self._keys(KeyWrites.revoke, key_id, now)

    # --- plumbing ----------------------------------------------------------------

    def submit(self, operation: Operation[T]) -> asyncio.Future[T]:
        """Have an operation committed."""
        return self._committer.submit(operation)

    def _tasks(
        self, method: Callable[Concatenate[TaskWrites, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        return self.submit(Operation("tasks", method, args, kwargs))

    def _runs(
        self, method: Callable[Concatenate[RunWrites, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        return self.submit(Operation("runs", method, args, kwargs))

    def _keys(
        self, method: Callable[Concatenate[KeyWrites, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        return self.submit(Operation("keys", method, args, kwargs))

    def _retention(
        self, method: Callable[Concatenate[RetentionWrites, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        return self.submit(Operation("retention", method, args, kwargs))

    def _report(self, changes: Sequence[AnyChange]) -> None:
        self._listener(changes)

    async def _query(self, sql: str, arguments: Iterable[Any] = ()) -> list[Row]:
        return await self._readers.query(sql, arguments)


def _nobody(changes: Sequence[AnyChange]) -> None:
    """The listener of a store that nobody listens to."""
