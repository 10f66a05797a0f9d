"""The run part of a transaction: dags, runs, claims and the event log of each run.

Events are collected and written as one chunk per run and group. Methods raise
before they change anything.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from taskserver.dagmodel import Dag, NewDag, NewRun, Run, RunState
from taskserver.model import Task
from taskserver.store import MAX_REMOVED, RunChange
from taskserver.stores import runrules
from taskserver.stores.rows import DAG_COLUMNS, RUN_CHANGES, RUN_COLUMNS, RUN_FIELDS, dump_dag_tasks
from taskserver.stores.sqlite.rows import OVERDUE, dag_from_row, run_from_row, run_to_row
from taskserver.summaries import encode_event

if TYPE_CHECKING:
    from taskserver.stores.sqlite.transaction import SqliteTransaction

_OVERDUE = f"SELECT id FROM run WHERE {OVERDUE}"
_INSERT = f"INSERT INTO run ({RUN_COLUMNS}) VALUES ({', '.join('?' * len(RUN_FIELDS))})"
_UPDATE = f"UPDATE run SET {', '.join(f'{name} = ?' for name in RUN_CHANGES)} WHERE log = ?"
_PUT_DAG = (
    f"INSERT INTO dag ({DAG_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (dag_id) DO UPDATE SET"
    " display_name = excluded.display_name, retries = excluded.retries, tasks = excluded.tasks,"
    f" updated_at = excluded.updated_at RETURNING {DAG_COLUMNS}"
)


@dataclass(slots=True)
class _Work:
    """A run as the group sees it, and events that are not written yet."""

    run: Run
    events: list[bytes] = field(default_factory=list)
    changed: bool = False


class RunWrites:
    """Changes to dags and runs within one transaction."""

    def __init__(self, tx: SqliteTransaction) -> None:
        self._tx = tx
        self._db = tx.db
        self._works: dict[uuid.UUID, _Work] = {}

    # --- dags --------------------------------------------------------------------

    def put_dag(self, new: NewDag, config_id: uuid.UUID, now: int) -> Dag:
        row = self._db.execute("SELECT owner FROM dag WHERE dag_id = ?", (new.dag_id,)).fetchone()
        if row is not None and row[0] != new.owner:
            raise runrules.dag_taken(new.dag_id)
        tasks = dump_dag_tasks(new.tasks)
        values = (new.dag_id, new.owner, str(config_id), new.display_name, new.retries, tasks, now, now)
        return dag_from_row(self._db.execute(_PUT_DAG, values).fetchone())

    # --- runs --------------------------------------------------------------------

    def create(self, new: NewRun, now: int) -> Run:
        row = self._db.execute(f"SELECT {DAG_COLUMNS} FROM dag WHERE dag_id = ?", (new.dag_id,)).fetchone()
        if row is None:
            raise runrules.no_dag(new.dag_id)
        dag = dag_from_row(row)
        taken = "SELECT 1 FROM run WHERE dag_id = ? AND (run_id = ? OR logical_date = ?)"
        if self._db.execute(taken, (dag.dag_id, new.run_id, new.logical_date)).fetchone():
            raise runrules.run_taken(new)
        run = runrules.new_run(new, dag, self._tx.next_log(), now)
        self._db.execute(_INSERT, run_to_row(run))
        self._tx.changes.append(RunChange(run))
        return run

    def claim(self, owner: str | None, dag_ids: tuple[str, ...], claim: str, lease_us: int, now: int) -> Run | None:
        self._tx.flush()
        mine = "SELECT id FROM run WHERE lease_expires_at IS NOT NULL AND claim = ? AND coalesce(owner = ?, 1)"
        if row := self._db.execute(mine, (claim, owner)).fetchone():
            return self.heartbeat(uuid.UUID(row[0]), claim, now)
        due = "SELECT id FROM run WHERE state = 'queued' AND run_after <= ?"
        values: list[object] = [now]
        if owner is not None:
            due += " AND owner = ?"
            values.append(owner)
        if dag_ids:
            due += f" AND dag_id IN ({', '.join('?' * len(dag_ids))})"
            values += dag_ids
        row = self._db.execute(f"{due} ORDER BY run_after, log LIMIT 1", values).fetchone()
        if row is None:
            return None
        work = self._load(uuid.UUID(row[0]))
        self._become(work, runrules.claimed(work.run, claim, lease_us, now))
        return self._write(work)

    def heartbeat(self, run: uuid.UUID, claim: str, now: int) -> Run:
        work = self._load(run)
        runrules.check_open(work.run, claim)
        self._become(work, runrules.heard_of(work.run, now))
        return self._write(work)

    def finish(self, run: uuid.UUID, claim: str | None, state: RunState | None, error: str, now: int) -> Run:
        work = self._load(run)
        tasks = self._tx.tasks.of_run(run)
        self._become(work, runrules.finished(work.run, claim, state, error, tasks, now))
        return self._write(work)

    def request_cancel(self, run: uuid.UUID, now: int) -> Run:
        work = self._load(run)
        if work.run.finished or work.run.cancel_requested:
            return work.run
        self._tx.tasks.cancel_run(run, now)
        self._become(work, runrules.cancelled(work.run, now))
        return self._write(work)

    def delete(self, run: uuid.UUID, most: int = MAX_REMOVED) -> int:
        """Remove a run and at most so many of its tasks; how many. ``Store.sweep`` removes the others."""
        work = self._load(run)
        removed = self._tx.tasks.remove_of_run(run, most)
        self._tx.discard(work.run.log, run if removed == most else None)
        self._db.execute("DELETE FROM run WHERE log = ?", (work.run.log,))
        del self._works[run]
        self._tx.changes.append(RunChange(work.run, deleted=True))
        return removed

    def expire_leases(self, now: int, heard_since: int = 0) -> list[Run]:
        """Offer each run whose claimant is lost again, or end it if it has no retries left."""
        self._tx.flush()
        lost = []
        for (text,) in self._db.execute(_OVERDUE, (now, now - heard_since)).fetchall():
            work = self._load(uuid.UUID(text))
            self._tx.tasks.interrupt_run(work.run.id, runrules.claimant_lost(work.run), now)
            self._become(work, runrules.without_claimant(work.run, now))
            lost.append(self._write(work))
        return lost

    def release(self, run: uuid.UUID, claim: str, now: int) -> Run:
        work = self._load(run)
        runrules.check_open(work.run, claim)
        live = not all(task.finished for task in self._tx.tasks.of_run(run))
        if live:
            self._tx.tasks.interrupt_run(run, runrules.GIVEN_BACK, now)
        self._become(work, runrules.given_back(work.run, live, now))
        return self._write(work)

    # --- for the task half -----------------------------------------------------------

    def check_claim(self, run: uuid.UUID, claim: str | None) -> None:
        """Raise unless a task may be created in the run by this claimant (or by anybody, if it has none)."""
        runrules.check_open(self._load(run).run, claim)

    def note(self, task: Task) -> None:
        """Note a task's transition in its run, if it belongs to one."""
        if task.place is None:
            return
        work = self._find(task.place.run)
        if work is None or work.run.finished:
            return  # its event log is closed, or gone; what a straggler does stands in its own state
        work.events.append(encode_event(task))
        self._become(work, runrules.started_by(work.run, task))

    def flush(self) -> None:
        """Write all collected events and changes."""
        for work in self._works.values():
            self._write(work)

    # --- plumbing ----------------------------------------------------------------------

    def _load(self, run: uuid.UUID) -> _Work:
        work = self._find(run)
        if work is None:
            raise runrules.no_run(run)
        return work

    def _find(self, run: uuid.UUID) -> _Work | None:
        work = self._works.get(run)
        if work is None:
            row = self._db.execute(f"SELECT {RUN_COLUMNS} FROM run WHERE id = ?", (str(run),)).fetchone()
            if row is None:
                return None
            work = self._works[run] = _Work(run_from_row(row))
        return work

    def _become(self, work: _Work, run: Run) -> None:
        if run is not work.run:
            work.run = run
            work.changed = True

    def _write(self, work: _Work) -> Run:
        """Write a run's collected events and changes; the run as it then stands."""
        if not work.events and not work.changed:
            return work.run
        work.run, chunk = runrules.committed(work.run, work.events)
        if chunk is not None:
            self._tx.add_chunk(work.run.log, chunk)
        values = dict(zip(RUN_FIELDS, run_to_row(work.run), strict=True))
        self._db.execute(_UPDATE, (*(values[name] for name in RUN_CHANGES), work.run.log))
        self._tx.changes.append(RunChange(work.run, chunk))
        work.events, work.changed = [], False
        return work.run
