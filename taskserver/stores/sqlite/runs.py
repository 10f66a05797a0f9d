"""The run part of a transaction: dags, runs, claims and the event log of each run.

Events are collected and written as one chunk per run and group. Methods raise
before they change anything.
"""

from __future__ import annotations

import uuid
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
from taskserver.stores.sqlite.rows import (
    DAG_COLUMNS,
    RUN_COLUMNS,
    RUN_FIELDS,
    dag_from_row,
    dump_dag_tasks,
    run_from_row,
    run_to_row,
)

if TYPE_CHECKING:
    from taskserver.stores.sqlite.transaction import SqliteTransaction

_INSERT = f"INSERT INTO run ({RUN_COLUMNS}) VALUES ({', '.join('?' * len(RUN_FIELDS))})"
_CHANGING = (
    "state", "started_at", "finished_at", "error", "last", "attempt", "claim", "lease_us", "lease_expires_at",
    "cancel_requested", "retries", "version",
)  # fmt: skip
_UPDATE = f"UPDATE run SET {', '.join(f'{name} = ?' for name in _CHANGING)} WHERE log = ?"
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
            raise DagExists(f"dag id {new.dag_id!r} is taken", {"dag_id": new.dag_id})
        tasks = dump_dag_tasks(new.tasks)
        values = (new.dag_id, new.owner, str(config_id), new.display_name, new.retries, tasks, now, now)
        return dag_from_row(self._db.execute(_PUT_DAG, values).fetchone())

    # --- runs --------------------------------------------------------------------

    def create(self, new: NewRun, now: int) -> Run:
        row = self._db.execute(f"SELECT {DAG_COLUMNS} FROM dag WHERE dag_id = ?", (new.dag_id,)).fetchone()
        if row is None:
            raise DagNotFound(f"there is no dag {new.dag_id!r}")
        dag = dag_from_row(row)
        taken = "SELECT 1 FROM run WHERE dag_id = ? AND (run_id = ? OR logical_date = ?)"
        if self._db.execute(taken, (dag.dag_id, new.run_id, new.logical_date)).fetchone():
            raise RunExists(
                f"dag {dag.dag_id!r} has a run with this run id or logical date already",
                {"dag_id": dag.dag_id, "run_id": new.run_id},
            )
        run = Run(
            id=new.id,
            log=self._tx.next_log(),
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
        return self._write(work)

    def heartbeat(self, run: uuid.UUID, claim: str, now: int) -> Run:
        work = self._load(run)
        self._check_open(work, claim)
        self._change(work, lease_expires_at=lease_end(now, work.run.lease_us))
        return self._write(work)

    def finish(self, run: uuid.UUID, claim: str | None, state: RunState | None, error: str, now: int) -> Run:
        work = self._load(run)
        tasks = self._tx.tasks.of_run(run)
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
        return self._write(work)

    def request_cancel(self, run: uuid.UUID, now: int) -> Run:
        work = self._load(run)
        if work.run.finished or work.run.cancel_requested:
            return work.run
        self._change(work, cancel_requested=True)
        self._tx.tasks.cancel_run(run, now)
        if work.run.state is RunState.QUEUED:
            self._end(work, RunState.CANCELLED, "cancelled while it was queued", now)
        return self._write(work)

    def delete(self, run: uuid.UUID) -> None:
        work = self._load(run)
        self._tx.tasks.delete_of_run(run)
        self._tx.delete_chunks(work.run.log)
        self._db.execute("DELETE FROM run WHERE log = ?", (work.run.log,))
        del self._works[run]
        self._tx.changes.append(RunChange(work.run, deleted=True))

    def expire_leases(self, now: int) -> list[Run]:
        """Offer each run whose claimant is lost again, or end it if it has no retries left."""
        self._tx.flush()
        lost = []
        for (text,) in self._db.execute("SELECT id FROM run WHERE lease_expires_at <= ?", (now,)).fetchall():
            work = self._load(uuid.UUID(text))
            error = f"claimant lost: not heard of for {(work.run.lease_us or 0) / 1_000_000:g} s"
            lost.append(self._lose(work, error, now))
        return lost

    def release(self, run: uuid.UUID, claim: str, now: int) -> Run:
        work = self._load(run)
        self._check_open(work, claim)
        if work.run.cancel_requested or not all(task.finished for task in self._tx.tasks.of_run(run)):
            return self._lose(work, "claimant lost: it gave the run back while tasks were running", now)
        self._queue_again(work, retries=work.run.retries + 1)
        return self._write(work)

    def _lose(self, work: _Work, error: str, now: int) -> Run:
        """What becomes of a run whose claimant is lost."""
        self._tx.tasks.interrupt_run(work.run.id, error, now)
        if work.run.attempt <= work.run.retries and not work.run.cancel_requested:
            self._queue_again(work)
        else:
            self._end(work, RunState.INTERRUPTED, error, now)
        return self._write(work)

    def _queue_again(self, work: _Work, **more: object) -> None:
        self._change(work, state=RunState.QUEUED, claim=None, lease_us=None, lease_expires_at=None, **more)

    def renew_leases(self, now: int) -> None:
        self.flush()
        self._works.clear()
        self._db.execute("UPDATE run SET lease_expires_at = ? + lease_us WHERE lease_expires_at IS NOT NULL", (now,))

    # --- for the task half -----------------------------------------------------------

    def check_claim(self, run: uuid.UUID, claim: str | None) -> None:
        """Raise unless a task may be created in the run by this claimant (or by anybody, if it has none)."""
        self._check_open(self._load(run), claim)

    def note(self, task: Task) -> None:
        """Note a task's transition in its run, if it belongs to one."""
        if task.place is None:
            return
        work = self._load(task.place.run)
        if work.run.finished:
            return  # its event log is closed; what a straggler does stands in its own state
        work.events.append(encode_event(task))
        if task.started_at is not None and work.run.state is RunState.QUEUED:
            self._change(work, state=RunState.RUNNING, started_at=work.run.started_at or task.started_at)

    def flush(self) -> None:
        """Write all collected events and changes."""
        for work in self._works.values():
            self._write(work)

    # --- plumbing ----------------------------------------------------------------------

    def _load(self, run: uuid.UUID) -> _Work:
        work = self._works.get(run)
        if work is None:
            row = self._db.execute(f"SELECT {RUN_COLUMNS} FROM run WHERE id = ?", (str(run),)).fetchone()
            if row is None:
                raise RunNotFound(f"there is no run {str(run)!r}")
            work = self._works[run] = _Work(run_from_row(row))
        return work

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

    def _write(self, work: _Work) -> Run:
        """Write a run's collected events and changes; the run as it then stands."""
        if not work.events and not work.changed:
            return work.run
        chunk = None
        work.run = replace(work.run, version=work.run.version + 1)
        if work.events:
            chunk = Chunk(work.run.last, len(work.events), SEPARATOR.join(work.events))
            self._tx.add_chunk(work.run.log, chunk)
            work.run = replace(work.run, last=chunk.end)
        values = dict(zip(RUN_FIELDS, run_to_row(work.run), strict=True))
        self._db.execute(_UPDATE, (*(values[name] for name in _CHANGING), work.run.log))
        self._tx.changes.append(RunChange(work.run, chunk))
        work.events, work.changed = [], False
        return work.run
