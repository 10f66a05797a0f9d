"""The task half of a transaction: what one group commit does to tasks and their output.

Appends to one task are collected and written as one row per group; everything
else first writes what was collected, so that each operation sees the ones
before it. Methods raise before they change anything.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from taskserver.config import MAX_LINE_NUMBER
from taskserver.encoding import SEPARATOR, cut, dumps, merge_lines
from taskserver.errors import (
    AppendConflict,
    TaskExists,
    TaskFinished,
    TaskNotFinished,
    TaskNotFound,
    TooLarge,
)
from taskserver.model import (
    CANCELLED_CODE,
    INTERRUPTED_CODE,
    Chunk,
    Lines,
    NewTask,
    Outcome,
    Place,
    Task,
    TaskState,
    lease_end,
    outcome_state,
)
from taskserver.store import Appended, Change
from taskserver.stores.sqlite.rows import (
    TASK_COLUMNS,
    Row,
    read_chunks,
    task_from_row,
)

if TYPE_CHECKING:
    from taskserver.stores.sqlite.transaction import SqliteTransaction

_SELECT = f"SELECT {TASK_COLUMNS}, result FROM task WHERE id = ?"
_UPDATE = (
    "UPDATE task SET state = ?, last = ?, started_at = ?, lease_expires_at = ?, cancel_requested = ?, version = ?"
    " WHERE log = ?"
)
_INSERT = (
    "INSERT INTO task (log, id, owner, name, state, labels, created_at, lease_us, lease_expires_at,"
    " run, task_id, map_index, try_number) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_END = "UPDATE task SET code = ?, error = ?, result = ?, finished_at = ? WHERE log = ?"

_PRODUCERS_WORD = (TaskState.SUCCESS, TaskState.FAILED)  # ends that only somebody who worked on it can tell


@dataclass(slots=True)
class _Work:
    """A task as the group sees it: as loaded, plus lines that are not written yet."""

    task: Task
    lines: list[Lines] = field(default_factory=list)
    last: int = 0
    touched_at: int | None = None  # when its producer was heard in this group


class TaskWrites:
    """Changes to tasks within one transaction."""

    def __init__(self, tx: SqliteTransaction) -> None:
        self._tx = tx
        self._db = tx.db
        self._works: dict[str, _Work] = {}

    def create(self, new: NewTask, now: int) -> Task:
        if self._db.execute("SELECT 1 FROM task WHERE id = ?", (new.id,)).fetchone():
            raise TaskExists(f"task id {new.id!r} is taken", {"id": new.id})
        if new.place is not None:
            self._check_place(new.place)
            self._tx.runs.check_claim(new.place.run, new.claim)
        task = Task(
            id=new.id,
            log=self._tx.next_log(),
            owner=new.owner,
            name=new.name,
            state=TaskState.QUEUED,
            created_at=now,
            labels=new.labels,
            lease_us=new.lease_us,
            lease_expires_at=lease_end(now, new.lease_us),
            place=new.place,
        )
        labels = dumps(dict(task.labels)).decode()
        lease = (task.lease_us, task.lease_expires_at)
        row = (task.log, task.id, task.owner, task.name, task.state.value, labels, now, *lease, *_columns(task.place))
        self._db.execute(_INSERT, row)
        self._tx.changes.append(Change(task))
        self._tx.runs.note(task)
        return task

    def append(self, task_id: str, lines: Lines, first: int | None, now: int) -> Appended:
        work = self._load(task_id)
        if first is not None and first != work.last:
            self._check_repeat(work, lines, first)
            return Appended(first, first + lines.count, work.task.cancel_requested)
        self._check_running(work, lines)
        start = work.last
        if lines.count:
            work.lines.append(lines)
            work.last += lines.count
        work.touched_at = now
        return Appended(start, work.last, work.task.cancel_requested)

    def finish(self, task_id: str, outcome: Outcome, now: int, lines: Lines | None, first: int | None) -> Task:
        work = self._load(task_id)
        if work.task.finished:
            return self._check_same_end(work, outcome, lines, first)
        added = lines is not None and lines.count > 0
        if lines is not None and added:
            if first is not None and first != work.last:
                self._check_repeat(work, lines, first)
            else:
                self._check_running(work, lines)
                work.lines.append(lines)
                work.last += lines.count
        elif first is not None and first != work.last:
            raise _conflict(work, first)
        state = outcome_state(outcome, work.task.cancel_requested)
        return self._end(work, state, outcome, now)

    def heartbeat(self, task_id: str, now: int) -> Task:
        work = self._load(task_id)
        self._check_running(work, None)
        work.touched_at = now
        self._flush_task(work)
        return work.task

    def request_cancel(self, task_id: str, now: int) -> Task:
        work = self._load(task_id)
        self._flush_task(work)
        task = work.task
        if task.finished or task.cancel_requested:
            return task
        work.task = replace(task, cancel_requested=True)
        if task.state is TaskState.QUEUED:
            outcome = Outcome(CANCELLED_CODE, "cancelled before it was started")
            return self._end(work, TaskState.CANCELLED, outcome, now)
        self._write(work)
        return work.task

    def delete(self, task_id: str) -> None:
        task = self._load(task_id).task
        if not task.finished:
            raise TaskNotFinished(f"task {task_id!r} is {task.state.value}; only a finished task can be deleted")
        self._remove(task)

    def delete_of_run(self, run: uuid.UUID) -> None:
        """Remove the tasks of a run, whatever their states."""
        for task in self.of_run(run):
            self._remove(task)

    def expire_leases(self, now: int) -> list[Task]:
        self.flush()
        ended = []
        for (task_id,) in self._db.execute("SELECT id FROM task WHERE lease_expires_at <= ?", (now,)).fetchall():
            work = self._load(task_id)
            seconds = (work.task.lease_us or 0) / 1_000_000
            outcome = Outcome(INTERRUPTED_CODE, f"producer lost: not heard of for {seconds:g} s")
            ended.append(self._end(work, TaskState.INTERRUPTED, outcome, now))
        return ended

    def interrupt_run(self, run: uuid.UUID, error: str, now: int) -> None:
        """End the live tasks of a run whose claimant is lost."""
        for task in self.of_run(run):
            if not task.finished:
                self._end(self._load(task.id), TaskState.INTERRUPTED, Outcome(INTERRUPTED_CODE, error), now)

    def cancel_run(self, run: uuid.UUID, now: int) -> None:
        """Ask the live tasks of a run to stop."""
        for task in self.of_run(run):
            if not task.finished:
                self.request_cancel(task.id, now)

    def renew_leases(self, now: int) -> None:
        self.flush()
        self._works.clear()
        self._db.execute("UPDATE task SET lease_expires_at = ? + lease_us WHERE lease_expires_at IS NOT NULL", (now,))

    def replace_chunks(self, log: int, old: Sequence[Chunk], rows: Iterable[Row]) -> bool:
        """Put ``rows`` in the place of the consecutive chunks ``old``; False if they do not stand there any more."""
        first, end = old[0].first, old[-1].end
        if self._tx.chunk_starts(log, first, end) != [chunk.first for chunk in old]:
            return False
        self._tx.delete_chunks(log, first, end)
        self._tx.insert_chunks(rows)
        return True

    def mark_sealed(self, log: int) -> None:
        self._db.execute("UPDATE task SET sealed = 1 WHERE log = ?", (log,))

    def of_run(self, run: uuid.UUID) -> list[Task]:
        """The tasks of a run as they stand now, without results."""
        self.flush()
        rows = self._db.execute(f"SELECT {TASK_COLUMNS} FROM task WHERE run = ?", (str(run),)).fetchall()
        return [task_from_row(row) for row in rows]

    # --- the collected lines -------------------------------------------------------

    def flush(self) -> None:
        """Write all collected lines."""
        for work in self._works.values():
            self._flush_task(work)

    def _remove(self, task: Task) -> None:
        self._tx.delete_chunks(task.log)
        self._db.execute("DELETE FROM task WHERE log = ?", (task.log,))
        self._works.pop(task.id, None)
        self._tx.changes.append(Change(task, deleted=True))

    def _load(self, task_id: str) -> _Work:
        work = self._works.get(task_id)
        if work is None:
            row = self._db.execute(_SELECT, (task_id,)).fetchone()
            if row is None:
                raise TaskNotFound(f"there is no task {task_id!r}")
            task = task_from_row(row)
            work = self._works[task_id] = _Work(task, last=task.last)
        return work

    def _flush_task(self, work: _Work) -> None:
        """Write a task's collected lines as one append, and note the change."""
        now = work.touched_at
        if now is None:
            return
        task = work.task
        work.task = replace(
            task,
            state=TaskState.RUNNING,
            last=work.last,
            started_at=now if task.started_at is None else task.started_at,
            lease_expires_at=lease_end(now, task.lease_us),
        )
        self._write(work)
        if task.state is TaskState.QUEUED:
            self._tx.runs.note(work.task)

    def _write(self, work: _Work) -> None:
        work.task = task = replace(work.task, version=work.task.version + 1)
        chunk = None
        if work.lines:
            lines = merge_lines(work.lines)
            first = work.last - lines.count
            chunk = Chunk(first, lines.count, lines.payload, lines.side)
            self._tx.add_chunk(task.log, chunk)
        self._db.execute(
            _UPDATE,
            (
                task.state.value,
                task.last,
                task.started_at,
                task.lease_expires_at,
                task.cancel_requested,
                task.version,
                task.log,
            ),
        )
        work.lines, work.touched_at = [], None
        self._tx.changes.append(Change(task, chunk))

    def _end(self, work: _Work, state: TaskState, outcome: Outcome, now: int) -> Task:
        work.task = task = replace(
            work.task,
            state=state,
            last=work.last,
            code=outcome.code,
            error=outcome.error,
            result=outcome.result,
            started_at=work.task.started_at or (now if state in _PRODUCERS_WORD else None),
            finished_at=now,
            lease_expires_at=None,
        )
        self._db.execute(_END, (task.code, task.error, task.result, now, task.log))
        self._write(work)
        self._tx.runs.note(work.task)
        return work.task

    # --- checks --------------------------------------------------------------------

    def _check_place(self, place: Place) -> None:
        sql = "SELECT id FROM task WHERE run = ? AND task_id = ? AND map_index = ? AND try_number = ?"
        row = self._db.execute(sql, _columns(place)).fetchone()
        if row is not None:
            raise TaskExists(f"the run has try {place.try_number} of task {place.task_id!r} already", {"id": row[0]})

    def _check_running(self, work: _Work, lines: Lines | None) -> None:
        if work.task.finished:
            raise _finished(work.task)
        if lines is not None and work.last + lines.count > MAX_LINE_NUMBER:
            raise TooLarge(f"a task's output holds at most {MAX_LINE_NUMBER} lines", {"last": work.last})

    def _check_repeat(self, work: _Work, lines: Lines, first: int) -> None:
        """Return if ``lines`` stand at ``first`` already, as they do when a producer repeats itself."""
        end = first + lines.count
        if end > work.last or not self._stands(work, lines, first, end):
            raise _finished(work.task) if work.task.finished else _conflict(work, first)

    def _stands(self, work: _Work, lines: Lines, first: int, end: int) -> bool:
        self._flush_task(work)
        parts = [cut(chunk, first, end).payload for chunk in read_chunks(self._db, work.task.log, first, end)]
        return SEPARATOR.join(parts) == lines.payload

    def _check_same_end(self, work: _Work, outcome: Outcome, lines: Lines | None, first: int | None) -> Task:
        task = work.task
        same = (task.code, task.error, task.result) == (outcome.code, outcome.error, outcome.result)
        if same and lines is not None and lines.count:
            start = task.last - lines.count if first is None else first
            same = start >= 0 and start + lines.count == task.last and self._stands(work, lines, start, task.last)
        if not same:
            raise _finished(task)
        return task


def _columns(place: Place | None) -> tuple[str | None, str | None, int | None, int | None]:
    if place is None:
        return None, None, None, None
    return str(place.run), place.task_id, place.map_index, place.try_number


def _finished(task: Task) -> TaskFinished:
    payload = {"last": task.last, "state": task.state.value, "code": task.code}
    return TaskFinished(f"task {task.id!r} has ended as {task.state.value}", payload)


def _conflict(work: _Work, first: int) -> AppendConflict:
    message = f"first is {first}, but the output ends at line {work.last} and other lines stand there"
    return AppendConflict(message, {"last": work.last})
