"""The run part of a transaction: dags, runs, claims and the event log of each run.

Events are collected and written as one chunk per run and group. Methods raise
before they change anything. All but those of dags are run alone: what they
change is no task of the group, or not only.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from taskserver.dagmodel import Dag, NewDag, NewRun, Run, RunState, derived_state
from taskserver.encoding import SEPARATOR, encode_event
from taskserver.errors import (
    DagExists,
    DagNotFound,
    RunClaimed,
    RunExists,
    RunFinished,
    RunNotFound,
    TasksRunning,
)
from taskserver.model import Chunk, Task, lease_end
from taskserver.store import RunChange
from taskserver.stores.postgres.rows import (
    DAG_COLUMNS,
    RUN_COLUMNS,
    RUN_FIELDS,
    Row,
    dag_from_row,
    dump_dag_tasks,
    marks,
    run_from_row,
    run_to_row,
)

if TYPE_CHECKING:
    from taskserver.stores.postgres.transaction import PostgresTransaction

_INSERT = f"INSERT INTO run ({RUN_COLUMNS}) VALUES ({marks(len(RUN_FIELDS))}) ON CONFLICT DO NOTHING RETURNING log"
_CHANGING = (
    "state", "started_at", "finished_at", "error", "last", "attempt", "claim", "lease_us", "lease_expires_at",
    "cancel_requested", "version",
)  # fmt: skip
_UPDATE = f"UPDATE run SET {', '.join(f'{name} = ${n}' for n, name in enumerate(_CHANGING, 2))} WHERE log = $1"
_LOCK = f"SELECT {RUN_COLUMNS} FROM run WHERE id = ANY($1) ORDER BY id FOR UPDATE"
_PUT_DAG = (
    f"INSERT INTO dag ({DAG_COLUMNS}) VALUES ({marks(8)}) ON CONFLICT (dag_id) DO UPDATE SET"
    " display_name = excluded.display_name, retries = excluded.retries, tasks = excluded.tasks,"
    f" updated_at = excluded.updated_at WHERE dag.owner = excluded.owner RETURNING {DAG_COLUMNS}"
)
_LEASED = "finished_at IS NULL AND lease_us IS NOT NULL"
# Two nodes that were given one claim at the same time must not give it two runs.
_LOCK_CLAIM = "SELECT pg_advisory_xact_lock(hashtextextended('taskserver claim ' || $1, 0))"
_MINE = f"SELECT {RUN_COLUMNS} FROM run WHERE {_LEASED} AND claim = $1 AND ($2::text IS NULL OR owner = $2) FOR UPDATE"
# What is locked is being given to somebody else, or being started by one of its tasks.
_DUE = (
    f"SELECT {RUN_COLUMNS} FROM run WHERE state = 'queued' AND run_after <= $1 AND ($2::text IS NULL OR owner = $2)"
    " AND ($3::text[] IS NULL OR dag_id = ANY($3)) ORDER BY run_after, log LIMIT 1 FOR UPDATE SKIP LOCKED"
)


@dataclass(slots=True)
class _Work:
    """A run as the group sees it, and what is not written yet."""

    run: Run
    events: list[bytes] = field(default_factory=list)
    changed: bool = False  # whether something is to be told
    dirty: bool = False  # whether the row must be written


class RunWrites:
    """Changes to dags and runs within one transaction."""

    def __init__(self, tx: PostgresTransaction) -> None:
        self._tx = tx
        self._works: dict[uuid.UUID, _Work | None] = {}
        self._notes: list[Task] = []

    # --- dags --------------------------------------------------------------------

    async def put_dag(self, new: NewDag, config_id: uuid.UUID, now: int) -> Dag:
        tasks = dump_dag_tasks(new.tasks)
        values = (new.dag_id, new.owner, config_id, new.display_name, new.retries, tasks, now, now)
        row = await self._tx.db.fetchrow(_PUT_DAG, *values)
        if row is None:
            raise DagExists(f"dag id {new.dag_id!r} is taken", {"dag_id": new.dag_id})
        return dag_from_row(row)

    # --- runs --------------------------------------------------------------------

    async def create(self, new: NewRun, now: int) -> Run:
        row = await self._tx.db.fetchrow(f"SELECT {DAG_COLUMNS} FROM dag WHERE dag_id = $1", new.dag_id)
        if row is None:
            raise DagNotFound(f"there is no dag {new.dag_id!r}")
        dag = dag_from_row(row)
        run = Run(
            id=new.id,
            log=await self._tx.next_log(),
            owner=dag.owner,
            dag_id=dag.dag_id,
            run_id=new.run_id,
            state=RunState.QUEUED,
            tasks=dag.tasks,
            conf=new.conf,
            retries=dag.retries,
            queued_at=now,
            run_after=now if new.run_after is None else new.run_after,
            display_name=dag.display_name,
            triggered_by=new.triggered_by,
            metadata=new.metadata,
            tag=new.tag,
            note=new.note,
            partition_key=new.partition_key,
            logical_date=new.logical_date,
            data_interval_start=new.data_interval_start,
            data_interval_end=new.data_interval_end,
        )
        if await self._tx.db.fetchrow(_INSERT, *run_to_row(run)) is None:
            raise RunExists(
                f"dag {dag.dag_id!r} has a run with this run id or logical date already",
                {"dag_id": dag.dag_id, "run_id": new.run_id},
            )
        self._tx.changes.append(RunChange(run))
        return run

    async def claim(
        self, owner: str | None, dag_ids: tuple[str, ...], claim: str, lease_us: int, now: int
    ) -> Run | None:
        await self._tx.flush()
        await self._tx.db.execute(_LOCK_CLAIM, claim)
        if row := await self._tx.db.fetchrow(_MINE, claim, owner):
            return await self.heartbeat(self._take(row).run.id, claim, now)
        row = await self._tx.db.fetchrow(_DUE, now, owner, list(dag_ids) or None)
        if row is None:
            return None
        work = self._take(row)
        run = work.run
        self._change(
            work,
            state=RunState.RUNNING,
            started_at=now if run.started_at is None else run.started_at,
            attempt=run.attempt + 1,
            claim=claim,
            lease_us=lease_us,
            lease_expires_at=lease_end(now, lease_us),
        )
        return self._settle(work)

    async def heartbeat(self, run: uuid.UUID, claim: str, now: int) -> Run:
        work = await self._load(run)
        self._check_open(work, claim)
        self._change(work, lease_expires_at=lease_end(now, work.run.lease_us))
        return self._settle(work)

    async def finish(self, run: uuid.UUID, claim: str | None, state: RunState | None, error: str, now: int) -> Run:
        work = await self._load(run)
        tasks = await self._tx.tasks.states_of_run(run)
        if state is None and all(task.finished for task in tasks):
            state = derived_state(tasks)
        if state is RunState.FAILED and work.run.cancel_requested:
            state = RunState.CANCELLED
        if work.run.finished and (work.run.claim, work.run.state, work.run.error) == (claim, state, error):
            return work.run
        self._check_open(work, claim)
        if state is None:
            raise TasksRunning("some of the run's tasks still run; end them first, or say how the run has ended")
        self._end(work, state, error, now)
        return self._settle(work)

    async def request_cancel(self, run: uuid.UUID, now: int) -> Run:
        work = await self._load(run)
        if work.run.finished or work.run.cancel_requested:
            return work.run
        await self._tx.tasks.cancel_run(run, now)
        await self._take_notes()
        self._change(work, cancel_requested=True)
        if work.run.state is RunState.QUEUED:
            self._end(work, RunState.CANCELLED, "cancelled while it was queued", now)
        return self._settle(work)

    async def delete(self, run: uuid.UUID) -> None:
        work = await self._load(run)
        await self._tx.tasks.delete_of_run(run)
        await self._tx.delete_chunks([work.run.log])
        await self._tx.db.execute("DELETE FROM run WHERE log = $1", work.run.log)
        self._works[run] = None
        self._tx.changes.append(RunChange(work.run, deleted=True))

    async def expire_leases(self, now: int) -> list[Run]:
        """Offer each run whose claimant is lost again, or end it if it has no retries left."""
        await self._tx.flush()
        overdue = f"SELECT id FROM run WHERE {_LEASED} AND lease_expires_at <= $1"
        runs = [row[0] for row in await self._tx.db.fetch(overdue, now)]
        if not runs:
            return []
        await self._tx.tasks.lock((), runs)  # before the runs, as everywhere
        await self.lock(runs)
        lost = []
        for run in runs:
            work = await self._load(run)
            if work.run.lease_expires_at is None or work.run.lease_expires_at > now:
                continue  # another node dealt with it, or heard of it, while its lock was waited for
            error = f"claimant lost: not heard of for {(work.run.lease_us or 0) / 1_000_000:g} s"
            await self._tx.tasks.interrupt_run(work.run.id, error, now)
            await self._take_notes()
            if work.run.attempt <= work.run.retries and not work.run.cancel_requested:
                self._change(work, state=RunState.QUEUED, claim=None, lease_us=None, lease_expires_at=None)
            else:
                self._end(work, RunState.INTERRUPTED, error, now)
            lost.append(self._settle(work))
        return lost

    async def renew_leases(self, now: int) -> None:
        await self._tx.flush()
        self._works.clear()
        sql = (
            "UPDATE run SET lease_expires_at = $1::bigint + lease_us WHERE log IN"
            f" (SELECT log FROM run WHERE {_LEASED} ORDER BY id FOR UPDATE)"
        )
        await self._tx.db.execute(sql, now)

    # --- for the task part -----------------------------------------------------------

    async def lock(self, runs: Collection[uuid.UUID]) -> None:
        """Read and lock runs."""
        unknown = [run for run in runs if run not in self._works]
        if unknown:
            self._tx.need_alone()
            self._works.update(dict.fromkeys(unknown))
            for row in await self._tx.db.fetch(_LOCK, unknown):
                self._take(row)

    async def check_claim(self, run: uuid.UUID, claim: str | None) -> None:
        """Raise unless a task may be created in the run by this claimant (or by anybody, if it has none)."""
        self._check_open(await self._load(run), claim)

    def note(self, task: Task) -> None:
        """Note a task's transition in its run, if it belongs to one."""
        if task.place is not None:
            self._tx.need_alone()
            self._notes.append(task)

    async def flush(self) -> None:
        """Write all collected events and changes, except for the chunks."""
        await self._take_notes()
        dirty = []
        for work in self._works.values():
            if work is not None:
                self._settle(work)
                if work.dirty:
                    dirty.append(_update_row(work.run))
                    work.dirty = False
        if dirty:
            await self._tx.db.executemany(_UPDATE, dirty)

    # --- plumbing ----------------------------------------------------------------------

    def _take(self, row: Row) -> _Work:
        """Take over a row of RUN_COLUMNS that is locked; what is known already stays as it is."""
        run = run_from_row(row)
        work = self._works.get(run.id)
        if work is None:
            work = self._works[run.id] = _Work(run)
        return work

    async def _load(self, run: uuid.UUID) -> _Work:
        """A run, locked, with what its tasks have done in this group. Raises RunNotFound."""
        await self.lock([run])
        await self._take_notes()
        work = self._works[run]
        if work is None:
            raise RunNotFound(f"there is no run {str(run)!r}")
        return work

    async def _take_notes(self) -> None:
        """Turn the transitions that were noted into events."""
        if not self._notes:
            return
        notes, self._notes = self._notes, []
        await self.lock({task.place.run for task in notes if task.place is not None})
        for task in notes:
            assert task.place is not None
            work = self._works[task.place.run]
            if work is None or work.run.finished:
                continue  # its event log is closed; what a straggler does stands in its own state
            work.events.append(encode_event(task))
            work.changed = True
            if task.started_at is not None and work.run.state is RunState.QUEUED:
                self._change(work, state=RunState.RUNNING, started_at=work.run.started_at or task.started_at)

    def _check_open(self, work: _Work, claim: str | None) -> None:
        run = work.run
        if run.finished:
            raise RunFinished(f"run {str(run.id)!r} has ended as {run.state.value}", {"state": run.state.value})
        if run.claim != claim:
            raise RunClaimed(f"run {str(run.id)!r} is not claimed with this claim", {"state": run.state.value})

    def _change(self, work: _Work, **values: object) -> None:
        work.run = replace(work.run, **values)  # type: ignore[arg-type]
        work.changed = True

    def _end(self, work: _Work, state: RunState, error: str, now: int) -> None:
        self._change(work, state=state, error=error, finished_at=now, lease_expires_at=None)

    def _settle(self, work: _Work) -> Run:
        """Take over a run's collected events and note the change; the run as it then stands."""
        if not work.changed:
            return work.run
        chunk = None
        work.run = replace(work.run, version=work.run.version + 1)
        if work.events:
            chunk = Chunk(work.run.last, len(work.events), SEPARATOR.join(work.events))
            self._tx.add_chunk(work.run.log, chunk)
            work.run = replace(work.run, last=chunk.end)
        self._tx.changes.append(RunChange(work.run, chunk))
        work.events, work.changed, work.dirty = [], False, True
        return work.run


def _update_row(run: Run) -> Row:
    """The arguments of _UPDATE."""
    values = dict(zip(RUN_FIELDS, run_to_row(run), strict=True))
    return (run.log, *(values[name] for name in _CHANGING))
