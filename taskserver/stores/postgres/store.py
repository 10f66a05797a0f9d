"""PostgresStore: one database, any number of nodes.

Every node writes through its own group committer, and PostgreSQL's row locks
put the nodes' transactions in order. Reading has connections of its own, so
that neither waits for the other's.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, TypeVar

from taskserver.config import MAX_LINE_NUMBER
from taskserver.dagmodel import Dag, NewDag, NewRun, Run, RunState, uuid7
from taskserver.errors import (
    DagNotFound,
    KeyNotFound,
    RunNotFound,
    StoreOpenError,
    StoreUnavailable,
    TaskNotFound,
    TaskServerError,
)
from taskserver.meters import Meters
from taskserver.model import ApiKey, Chunk, Lines, NewTask, Outcome, Task, TaskFilter, TaskState
from taskserver.partial import Partial
from taskserver.store import AnyChange, Appended, Ended, Listener, Store
from taskserver.stores.postgres.committer import LANES, GroupCommitter, Job
from taskserver.stores.postgres.connect import Address, Pool, transaction
from taskserver.stores.postgres.direct import DirectAppends, Remembered
from taskserver.stores.postgres.keys import KeyWrites
from taskserver.stores.postgres.pulse import Pulse
from taskserver.stores.postgres.reads import Heads, Readers
from taskserver.stores.postgres.retention import ANY_DISCARDED, ANY_ENDED, COUNT_ENDED, prune, sweep
from taskserver.stores.postgres.revocations import Revocations
from taskserver.stores.postgres.rows import (
    OVERDUE,
    TASK_COLUMNS,
    dag_from_row,
    label_texts,
    run_from_row,
    task_from_row,
)
from taskserver.stores.postgres.runs import RunWrites
from taskserver.stores.postgres.schema import migrate
from taskserver.stores.postgres.sealing import seal
from taskserver.stores.postgres.tasks import TaskWrites
from taskserver.stores.postgres.transaction import Operation, PostgresTransaction
from taskserver.stores.postgres.wakeup import PostgresWakeup
from taskserver.stores.rows import DAG_COLUMNS, KEY_COLUMNS, RUN_COLUMNS, key_from_row

READERS = 6  # connections; long catch-ups must not stand in the way of short looks
PROMPT = 2.0  # seconds in which it must be looked for lost producers: later, others may have waited to be heard too
CLOSE_TIMEOUT = 5.0  # seconds for what is under way; then its connections are closed

T = TypeVar("T")

# In the collation "C" lower() knows the letters of ASCII.
_HAS_TEXT = (
    'EXISTS (SELECT 1 FROM (SELECT lower({}::text COLLATE "C")) AS wanted (text)'
    " WHERE strpos(lower(name), wanted.text) > 0 OR strpos(lower(id), wanted.text) > 0"
    " OR EXISTS (SELECT 1 FROM unnest(labels) AS label WHERE"
    " strpos(lower(((label::jsonb ->> 0) || '=' || (label::jsonb ->> 1)) COLLATE \"C\"), wanted.text) > 0))"
)
_TASKS = f"SELECT id, {TASK_COLUMNS}, result FROM task WHERE id = ANY($1)"
_RUNS = f"SELECT id, {RUN_COLUMNS} FROM run WHERE id = ANY($1)"


class PostgresStore(Store):
    """See ``Store``. Open it with ``open``; it belongs to the event loop that did."""

    def __init__(self, address: Address, namespace: str, writers: Pool, readers: Pool, meters: Meters | None) -> None:
        self._address = address
        self._namespace = namespace
        self._loop = asyncio.get_running_loop()
        self._writers = writers
        self._readers = readers
        self._reader = Readers(readers, meters)
        self._tasks = Heads(self._reader, _TASKS, task_from_row, _no_task)
        self._runs = Heads(self._reader, _RUNS, run_from_row, _no_run)
        self._pulse = Pulse(self._reader)
        self._revocations: Revocations | None = None
        self._listener: Listener = _nobody
        self._remembered = Remembered()
        self._wakeup: PostgresWakeup | None = None
        # Without prepared statements the driver may be given another connection between parsing and executing one, and
        # only a transaction holds it.
        self._has_direct = address.statement_cache_size > 0
        direct = DirectAppends(writers, self._remembered)
        self._committer = GroupCommitter(self._transact, self._report, direct.run, meters=meters)
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, url: str, *, create: bool = True, meters: Meters | None = None) -> PostgresStore:
        """Connect to the database, and make or migrate its schema. Raises StoreOpenError; see ``open_store``."""
        address = Address.parse(url)
        namespace = await migrate(address, create=create)
        writers = await address.open_pool(LANES + 2)  # for the sealer, and for retention
        store = cls(address, namespace, writers, await address.open_pool(READERS), meters)
        try:
            store._revocations = await Revocations.open(store._reader, store._report)
        except StoreUnavailable as error:
            await store.close()
            raise StoreOpenError(f"cannot open database {address.public}: {error.message}") from error
        return store

    def listen(self, listener: Listener) -> None:
        self._listener = listener

    def tell(self, partial: Partial) -> None:
        self._heard(partial)
        if self._wakeup is not None:
            self._wakeup.tell(partial)

    @property
    def tells_all(self) -> bool:
        return False

    async def ping(self) -> None:
        await self._pulse.feel()

    async def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._revocations is not None:
            await self._revocations.close()
        try:
            await asyncio.wait_for(self._committer.close(), CLOSE_TIMEOUT)
        except asyncio.TimeoutError:
            self._writers.terminate()  # which ends what hangs
            await self._committer.close()
        for pool in (self._readers, self._writers):
            try:
                await asyncio.wait_for(pool.close(), CLOSE_TIMEOUT)
            except asyncio.TimeoutError:
                pool.terminate()
        await self._pulse.close()
        await self._tasks.close()
        await self._runs.close()

    async def open_wakeup(self, listen_url: str | None = None) -> PostgresWakeup:
        listen = self._address if listen_url is None else Address.parse(listen_url)
        self._wakeup = PostgresWakeup(self._readers, listen, self._namespace, self._heard)
        await self._wakeup.start()
        return self._wakeup

    # --- tasks -------------------------------------------------------------------

    async def create_task(self, new: NewTask, now: int) -> Task:
        return await self._submit("tasks", TaskWrites.create, new, now, tasks=[new.id], alone=new.place is not None)

    async def get_task(self, task_id: str) -> Task:
        return await self._tasks.get(task_id)

    async def list_tasks(self, where: TaskFilter, limit: int, before: int | None = None) -> list[Task]:
        conditions: list[tuple[str, Any]] = [("log < {}", before)] if before is not None else []
        if where.owner is not None:
            conditions.append(("owner = {}", where.owner))
        if where.state is not None:
            conditions.append(("state = {}", where.state.value))
        if where.name is not None:
            conditions.append(("name = {}", where.name))
        if where.text is not None:
            conditions.append((_HAS_TEXT, where.text))
        if where.labels:
            conditions.append(("labels @> {}::text[]", label_texts(where.labels)))
        clause = " AND ".join(text.format(f"${number}") for number, (text, _) in enumerate(conditions, 2))
        clause = f" WHERE {clause}" if clause else ""
        sql = f"SELECT {TASK_COLUMNS} FROM task{clause} ORDER BY log DESC LIMIT $1"
        rows = await self._reader.query(sql, limit, *(value for _, value in conditions))
        return [task_from_row(row) for row in rows]

    async def count_live_tasks(self) -> dict[TaskState, int]:
        sql = "SELECT (SELECT count(*) FROM task WHERE state = $1), (SELECT count(*) FROM task WHERE state = $2)"
        live = (TaskState.QUEUED, TaskState.RUNNING)
        ((queued, running),) = await self._reader.query(sql, *(state.value for state in live))
        return dict(zip(live, (queued, running), strict=True))

    async def append(
        self,
        task_id: str,
        lines: Lines,
        first: int | None,
        now: int,
        limit: int = MAX_LINE_NUMBER,
        log: int | None = None,
    ) -> Appended:
        arguments = (task_id, lines, first, now, limit, log)
        operation = Operation("tasks", TaskWrites.append, arguments, (task_id,), size=len(lines.payload))
        direct = lines.count > 0 and self._has_direct and self._remembered.get(task_id) is not None
        answer: Appended = await self._committer.submit(operation, direct=direct)
        return answer

    async def finish(
        self,
        task_id: str,
        outcome: Outcome,
        now: int,
        lines: Lines | None = None,
        first: int | None = None,
        limit: int = MAX_LINE_NUMBER,
    ) -> Task:
        size = len(outcome.result or b"") + (len(lines.payload) if lines is not None else 0)
        arguments = (task_id, outcome, now, lines, first, limit)
        return await self._submit("tasks", TaskWrites.finish, *arguments, tasks=[task_id], size=size)

    async def heartbeat(self, task_id: str, now: int) -> Task:
        return await self._submit("tasks", TaskWrites.heartbeat, task_id, now, tasks=[task_id])

    async def request_cancel(self, task_id: str, now: int) -> Task:
        return await self._submit("tasks", TaskWrites.request_cancel, task_id, now, tasks=[task_id])

    async def delete_task(self, task_id: str) -> None:
        await self._submit("tasks", TaskWrites.delete, task_id, tasks=[task_id])

    async def expire_leases(self, now: int, heard_since: int = 0) -> list[Task]:
        # Looked for by a reader first: most of the time nothing is overdue, and a commit is not free.
        overdue = await self._reader.query(f"SELECT 1 FROM task WHERE {OVERDUE} LIMIT 1", now, now - heard_since)
        expire = ("tasks", TaskWrites.expire_leases, now, heard_since)
        return await self._submit(*expire, alone=True, prompt=True) if overdue else []

    # --- runs --------------------------------------------------------------------

    async def put_dag(self, new: NewDag, now: int) -> Dag:
        return await self._submit("runs", RunWrites.put_dag, new, uuid7(now), now, alone=True)

    async def get_dag(self, dag_id: str) -> Dag:
        return await self._dag("dag_id = $1", dag_id)

    async def find_dag(self, config_id: uuid.UUID) -> Dag:
        return await self._dag("config_id = $1", config_id)

    async def list_dags(self, owner: str | None) -> list[Dag]:
        sql = f"SELECT {DAG_COLUMNS} FROM dag WHERE $1::text IS NULL OR owner = $1 ORDER BY dag_id"
        return [dag_from_row(row) for row in await self._reader.query(sql, owner)]

    async def create_run(self, new: NewRun, now: int) -> Run:
        return await self._submit("runs", RunWrites.create, new, now)

    async def get_run(self, run: uuid.UUID) -> Run:
        return await self._runs.get(run)

    async def find_run(self, dag_id: str, run_id: str) -> Run:
        return await self._run(run_id, "dag_id = $1 AND run_id = $2", dag_id, run_id)

    async def find_tagged_run(self, tag: str, owner: str | None) -> Run:
        where = "tag = $1 AND ($2::text IS NULL OR owner = $2) ORDER BY log DESC LIMIT 1"
        return await self._run(tag, where, tag, owner)

    async def list_runs(self, dag_id: str, limit: int, offset: int) -> tuple[list[Run], int]:
        page = f"SELECT {RUN_COLUMNS} FROM run WHERE dag_id = $1 ORDER BY log LIMIT $2 OFFSET $3"
        count = "SELECT count(*) FROM run WHERE dag_id = $1"
        rows, ((total,),) = await self._reader.snapshot((page, (dag_id, limit, offset)), (count, (dag_id,)))
        return [run_from_row(row) for row in rows], total

    async def claim_run(
        self, owner: str | None, dag_ids: tuple[str, ...], claim: str, lease_us: int, now: int
    ) -> Run | None:
        return await self._submit("runs", RunWrites.claim, owner, dag_ids, claim, lease_us, now, alone=True)

    async def heartbeat_run(self, run: uuid.UUID, claim: str, now: int) -> Run:
        return await self._submit("runs", RunWrites.heartbeat, run, claim, now, alone=True)

    async def finish_run(self, run: uuid.UUID, claim: str | None, state: RunState | None, error: str, now: int) -> Run:
        return await self._submit("runs", RunWrites.finish, run, claim, state, error, now, alone=True)

    async def release_run(self, run: uuid.UUID, claim: str, now: int) -> Run:
        return await self._submit("runs", RunWrites.release, run, claim, now, run=run, alone=True)

    async def cancel_run(self, run: uuid.UUID, now: int) -> Run:
        return await self._submit("runs", RunWrites.request_cancel, run, now, run=run, alone=True)

    async def delete_run(self, run: uuid.UUID) -> None:
        await self._submit("runs", RunWrites.delete, run, alone=True)

    async def expire_runs(self, now: int, heard_since: int = 0) -> list[Run]:
        overdue = await self._reader.query(f"SELECT 1 FROM run WHERE {OVERDUE} LIMIT 1", now, now - heard_since)
        expire = ("runs", RunWrites.expire_leases, now, heard_since)
        return await self._submit(*expire, alone=True, prompt=True) if overdue else []

    async def run_tasks(self, run: uuid.UUID, results_of: Collection[str] | None = ()) -> list[Task]:
        sql = (
            f"SELECT {TASK_COLUMNS}, CASE WHEN $2::text[] IS NULL OR task_id = ANY($2) THEN result END"
            " FROM task WHERE run = $1 ORDER BY log"
        )
        rows = await self._reader.query(sql, run, None if results_of is None else list(results_of))
        return [task_from_row(row) for row in rows]

    async def keep_secret(self, name: str, value: bytes) -> bytes:
        return await self._submit("keys", KeyWrites.keep_secret, name, value)

    async def _dag(self, where: str, *values: object) -> Dag:
        rows = await self._reader.query(f"SELECT {DAG_COLUMNS} FROM dag WHERE {where}", *values)
        if not rows:
            raise DagNotFound(f"there is no dag {str(values[0])!r}")
        return dag_from_row(rows[0])

    async def _run(self, name: str, where: str, *values: object) -> Run:
        rows = await self._reader.query(f"SELECT {RUN_COLUMNS} FROM run WHERE {where}", *values)
        if not rows:
            raise _no_run(name)
        return run_from_row(rows[0])

    # --- output ------------------------------------------------------------------

    async def read(self, log: int, first: int, end: int, max_bytes: int) -> list[Chunk]:
        return await self._reader.chunks(log, first, end, max_bytes)

    async def unsealed(self, limit: int) -> list[Task]:
        sql = f"SELECT {TASK_COLUMNS} FROM task WHERE finished_at IS NOT NULL AND NOT sealed ORDER BY log LIMIT $1"
        return [task_from_row(row) for row in await self._reader.query(sql, limit)]

    async def seal(self, log: int) -> None:
        await seal(self._writers, log)

    # --- retention ---------------------------------------------------------------

    async def count_ended(self, before: int) -> Ended:
        ((tasks, runs),) = await self._reader.query(COUNT_ENDED, before)
        return Ended(tasks, runs)

    async def prune(self, before: int, limit: int) -> Ended:
        # As with leases: a reader looks first.
        if not await self._reader.query(ANY_ENDED, before):
            return Ended()
        ended, changes = await prune(self._writers, before, limit)
        self._report(changes)
        return ended

    async def sweep(self) -> bool:
        if not await self._reader.query(ANY_DISCARDED):
            return False
        more, changes = await sweep(self._writers)
        self._report(changes)
        return more

    # --- keys --------------------------------------------------------------------

    async def add_key(self, key: ApiKey) -> None:
        await self._submit("keys", KeyWrites.add, key)

    async def get_key(self, key_id: str) -> ApiKey:
        rows = await self._reader.query(f"SELECT {KEY_COLUMNS} FROM api_key WHERE id = $1", key_id)
        if not rows:
            raise KeyNotFound(f"there is no key with id {key_id!r}")
        return key_from_row(rows[0])

    async def list_keys(self) -> list[ApiKey]:
        rows = await self._reader.query(f"SELECT {KEY_COLUMNS} FROM api_key ORDER BY created_at, id")
        return [key_from_row(row) for row in rows]

    async def revoke_key(self, key_id: str, now: int) -> ApiKey:
        return await self._submit("keys", KeyWrites.revoke, key_id, now)

    # --- plumbing ----------------------------------------------------------------

    async def _submit(
        self,
        part: str,
        method: Callable[..., Awaitable[T]],
        *arguments: Any,
        tasks: Sequence[str] = (),
        run: uuid.UUID | None = None,
        alone: bool = False,
        size: int = 0,
        prompt: bool = False,
    ) -> T:
        begin_by = self._loop.time() + PROMPT if prompt else math.inf
        operation = Operation(part, method, arguments, tasks, run, alone, size, begin_by)
        answer: T = await self._committer.submit(operation)
        return answer

    async def _transact(self, jobs: Sequence[Job], alone: bool) -> list[AnyChange]:
        """See ``committer.Transact``."""
        async with transaction(self._writers) as connection:
            work = PostgresTransaction(connection, alone=alone)
            await work.prepare(jobs)
            for job in jobs:
                try:
                    if self._loop.time() > job.operation.begin_by:
                        raise StoreUnavailable("the database was too slow")
                    job.result = await job.operation(work)
                except TaskServerError as error:
                    job.error = error
            await work.flush()
        return work.changes

    def _heard(self, partial: Partial) -> None:
        self._listener([partial])

    def _report(self, changes: Sequence[AnyChange]) -> None:
        self._remembered.take_over(changes)
        self._listener(changes)


def _no_task(task_id: str) -> TaskNotFound:
    return TaskNotFound(f"there is no task {task_id!r}")


def _no_run(run: uuid.UUID | str) -> RunNotFound:
    return RunNotFound(f"there is no run {str(run)!r}")


def _nobody(changes: Sequence[AnyChange]) -> None:
    """The listener of a store that nobody listens to."""
