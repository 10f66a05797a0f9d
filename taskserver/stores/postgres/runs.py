"""The run part of a transaction: dags, runs, claims and the event log of each run.

Events are collected and written as one chunk per run and group. Methods raise
before they change anything. All but those of dags are run alone: what they
change is no task of the group, or not only.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from taskserver.dagmodel import Dag, NewDag, NewRun, Run, RunState
from taskserver.model import Task
from taskserver.store import MAX_REMOVED, RunChange
from taskserver.stores import runrules
from taskserver.stores.postgres.rows import LEASED, OVERDUE, dag_from_row, marks, run_from_row, run_to_row
from taskserver.stores.rows import DAG_COLUMNS, RUN_CHANGES, RUN_COLUMNS, RUN_FIELDS, Row, dump_dag_tasks
from taskserver.summaries import encode_event

if TYPE_CHECKING:
    from taskserver.stores.postgres.transaction import PostgresTransaction

_INSERT = f"INSERT INTO run ({RUN_COLUMNS}) VALUES ({marks(len(RUN_FIELDS))}) ON CONFLICT DO NOTHING RETURNING log"
_UPDATE = f"UPDATE run SET {', '.join(f'{name} = ${n}' for n, name in enumerate(RUN_CHANGES, 2))} WHERE log = $1"
_LOCK = f"SELECT {RUN_COLUMNS} FROM run WHERE id = ANY($1) ORDER BY id FOR UPDATE"
_PUT_DAG = (
    f"INSERT INTO dag ({DAG_COLUMNS}) VALUES ({marks(8)}) ON CONFLICT (dag_id) DO UPDATE SET"
    " display_name = excluded.display_name, retries = excluded.retries, tasks = excluded.tasks,"
    f" updated_at = excluded.updated_at WHERE dag.owner = excluded.owner RETURNING {DAG_COLUMNS}"
)
# Two nodes that were given one claim at the same time must not give it two runs.
_LOCK_CLAIM = "SELECT pg_advisory_xact_lock(hashtextextended('taskserver claim ' || $1, 0))"
_MINE = f"SELECT {RUN_COLUMNS} FROM run WHERE {LEASED} AND claim = $1 AND ($2::text IS NULL OR owner = $2) FOR UPDATE"
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
            raise runrules.dag_taken(new.dag_id)
        return dag_from_row(row)

    # --- runs --------------------------------------------------------------------

    async def create(self, new: NewRun, now: int) -> Run:
        row = await self._tx.db.fetchrow(f"SELECT {DAG_COLUMNS} FROM dag WHERE dag_id = $1", new.dag_id)
        if row is None:
            raise runrules.no_dag(new.dag_id)
        dag = dag_from_row(row)
        run = runrules.new_run(new, dag, await self._tx.next_log(), now)
        if await self._tx.db.fetchrow(_INSERT, *run_to_row(run)) is None:
            raise runrules.run_taken(new)
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
        self._become(work, runrules.claimed(work.run, claim, lease_us, now))
        return self._settle(work)

    async def heartbeat(self, run: uuid.UUID, claim: str, now: int) -> Run:
        work = await self._load(run)
        runrules.check_open(work.run, claim)
        self._become(work, runrules.heard_of(work.run, now))
        return self._settle(work)

    async def finish(self, run: uuid.UUID, claim: str | None, state: RunState | None, error: str, now: int) -> Run:
        work = await self._load(run)
        tasks = await self._tx.tasks.states_of_run(run)
        self._become(work, runrules.finished(work.run, claim, state, error, tasks, now))
        return self._settle(work)

    async def request_cancel(self, run: uuid.UUID, now: int) -> Run:
        work = await self._load(run)
        if work.run.finished or work.run.cancel_requested:
            return work.run
        await self._tx.tasks.cancel_run(run, now)
        await self._take_notes()
        self._become(work, runrules.cancelled(work.run, now))
        return self._settle(work)

    async def delete(self, run: uuid.UUID, most: int = MAX_REMOVED) -> int:
        """Remove a run and at most so many of its tasks; how many. ``Store.sweep`` removes the others."""
        await self._tx.tasks.lock_of_run(run, most)  # locked before the run, as everywhere
        work = await self._load(run)
        removed = await self._tx.tasks.remove_of_run(run, most)  # what was added before the run was locked too
        await self._tx.discard([work.run.log], run if removed == most else None)
        await self._tx.db.execute("DELETE FROM run WHERE log = $1", work.run.log)
        self._works[run] = None
        self._tx.changes.append(RunChange(work.run, deleted=True))
        return removed

    async def expire_leases(self, now: int, heard_since: int = 0) -> list[Run]:
        """Offer each run whose claimant is lost again, or end it if it has no retries left."""
        await self._tx.flush()
        overdue = f"SELECT id FROM run WHERE {OVERDUE}"
        runs = [row[0] for row in await self._tx.db.fetch(overdue, now, now - heard_since)]
        if not runs:
            return []
        await self._tx.tasks.lock((), runs)  # before the runs, as everywhere
        await self.lock(runs)
        lost = []
        for run in runs:
            work = self._works[run]
            if work is None or work.run.lease_expires_at is None or work.run.lease_expires_at > now:
                continue  # another node dealt with it, heard of it or deleted it, while its lock was waited for
            await self._tx.tasks.interrupt_run(work.run.id, runrules.claimant_lost(work.run), now)
            await self._take_notes()
            self._become(work, runrules.without_claimant(work.run, now))
            lost.append(self._settle(work))
        return lost

    async def release(self, run: uuid.UUID, claim: str, now: int) -> Run:
        work = await self._load(run)
        runrules.check_open(work.run, claim)
        live = not all(task.finished for task in await self._tx.tasks.states_of_run(run))
        if live:
            await self._tx.tasks.interrupt_run(run, runrules.GIVEN_BACK, now)
            await self._take_notes()
        self._become(work, runrules.given_back(work.run, live, now))
        return self._settle(work)

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
        runrules.check_open((await self._load(run)).run, claim)

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
            raise runrules.no_run(run)
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
            self._become(work, runrules.started_by(work.run, task))

    def _become(self, work: _Work, run: Run) -> None:
        if run is not work.run:
            work.run = run
            work.changed = True

    def _settle(self, work: _Work) -> Run:
        """Take over a run's collected events and note the change; the run as it then stands."""
        if not work.changed:
            return work.run
        work.run, chunk = runrules.committed(work.run, work.events)
        if chunk is not None:
            self._tx.add_chunk(work.run.log, chunk)
        self._tx.changes.append(RunChange(work.run, chunk))
        work.events, work.changed, work.dirty = [], False, True
        return work.run


def _update_row(run: Run) -> Row:
    """The arguments of _UPDATE."""
    values = dict(zip(RUN_FIELDS, run_to_row(run), strict=True))
    return (run.log, *(values[name] for name in RUN_CHANGES))
