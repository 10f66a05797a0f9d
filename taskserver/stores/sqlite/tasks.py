"""The task half of a transaction: what one group commit does to tasks and their output.

Each operation sees the ones before it; what they change is collected in
``works`` and written at the end of the group. Methods raise before they change
anything.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from taskserver.config import MAX_LINE_NUMBER
from taskserver.encoding import cut, dumps, json_pieces
from taskserver.errors import (
    AppendConflict,
    TaskExists,
    TaskFinished,
    TaskNotFinished,
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
from taskserver.stores.sqlite.rows import TASK_COLUMNS, Row, task_from_row
from taskserver.stores.sqlite.works import Heads, Work, Works

if TYPE_CHECKING:
    from taskserver.stores.sqlite.transaction import SqliteTransaction

_INSERT = (
    "INSERT INTO task (log, id, owner, name, state, labels, created_at, lease_us, lease_expires_at,"
    " run, task_id, map_index, try_number) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

_PRODUCERS_WORD = (TaskState.SUCCESS, TaskState.FAILED)  # ends that only somebody who worked on it can tell


class TaskWrites:
    """Changes to tasks within one transaction."""

    def __init__(self, tx: SqliteTransaction, heads: Heads) -> None:
        self._tx = tx
        self._db = tx.db
        self._works = Works(tx, heads)

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
        work = self._works.add(task)
        self._tx.changes.append(Change(task))
        self._tx.runs.note(task)
        if new.outcome is not None:
            self.mark_sealed(task.log)  # it has no output: the sealer need not look, with a commit for each
            return self._end(work, outcome_state(new.outcome, cancel_requested=False), new.outcome, now)
        return task

    def append(self, task_id: str, lines: Lines, first: int | None, now: int) -> Appended:
        work = self._works.load(task_id)
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
        work = self._works.load(task_id)
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
        work = self._works.load(task_id)
        self._check_running(work, None)
        work.touched_at = now
        self._works.settle(work)
        return work.task

    def request_cancel(self, task_id: str, now: int) -> Task:
        work = self._works.load(task_id)
        self._works.settle(work)
        task = work.task
        if task.finished or task.cancel_requested:
            return task
        if task.state is TaskState.QUEUED:
            outcome = Outcome(CANCELLED_CODE, "cancelled before it was started")
            return self._end(work, TaskState.CANCELLED, outcome, now, cancel_requested=True)
        return self._works.change(work, cancel_requested=True)

    def delete(self, task_id: str) -> None:
        task = self._works.load(task_id).task
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
            work = self._works.load(task_id)
            seconds = (work.task.lease_us or 0) / 1_000_000
            outcome = Outcome(INTERRUPTED_CODE, f"producer lost: not heard of for {seconds:g} s")
            ended.append(self._end(work, TaskState.INTERRUPTED, outcome, now))
        return ended

    def interrupt_run(self, run: uuid.UUID, error: str, now: int) -> None:
        """End the live tasks of a run whose claimant is lost."""
        for task in self.of_run(run):
            if not task.finished:
                self._end(self._works.load(task.id), TaskState.INTERRUPTED, Outcome(INTERRUPTED_CODE, error), now)

    def cancel_run(self, run: uuid.UUID, now: int) -> None:
        """Ask the live tasks of a run to stop."""
        for task in self.of_run(run):
            if not task.finished:
                self.request_cancel(task.id, now)

    def renew_leases(self, now: int) -> None:
        self.flush()
        self._works.forget_all()
        self._db.execute("UPDATE task SET lease_expires_at = ? + lease_us WHERE lease_expires_at IS NOT NULL", (now,))

    def replace_chunks(self, log: int, old: Sequence[Chunk], rows: Iterable[Row]) -> bool:
        """Put ``rows`` in the place of the consecutive chunks ``old``; False if they do not stand there any more."""
        first, end = old[0].first, old[-1].end
        if self._tx.chunk_starts(log, first, end) != [chunk.first for chunk in old]:
            return False
        self._tx.delete_chunks(log, first, end)
        self._tx.add_rows(rows)
        return True

    def mark_sealed(self, log: int) -> None:
        self._db.execute("UPDATE task SET sealed = 1 WHERE log = ?", (log,))

    def of_run(self, run: uuid.UUID) -> list[Task]:
        """The tasks of a run as they stand now, without results."""
        self.flush()
        rows = self._db.execute(f"SELECT {TASK_COLUMNS} FROM task WHERE run = ?", (str(run),)).fetchall()
        return [task_from_row(row) for row in rows]

    # --- plumbing ------------------------------------------------------------------

    def flush(self) -> None:
        """Write what was collected."""
        self._works.flush()

    def committed(self) -> None:
        """Take note that all of it is durable."""
        self._works.committed()

    def _remove(self, task: Task) -> None:
        self._tx.delete_chunks(task.log)
        self._db.execute("DELETE FROM task WHERE log = ?", (task.log,))
        self._works.forget(task.id)
        self._tx.changes.append(Change(task, deleted=True))

    def _end(
        self, work: Work, state: TaskState, outcome: Outcome, now: int, *, cancel_requested: bool | None = None
    ) -> Task:
        task = work.task
        task = self._works.change(
            work,
            state=state,
            code=outcome.code,
            error=outcome.error,
            result=outcome.result,
            started_at=task.started_at or (now if state in _PRODUCERS_WORD else None),
            finished_at=now,
            lease_expires_at=None,
            cancel_requested=task.cancel_requested if cancel_requested is None else cancel_requested,
        )
        self._tx.runs.note(task)
        return task

    # --- checks --------------------------------------------------------------------

    def _check_place(self, place: Place) -> None:
        sql = "SELECT id FROM task WHERE run = ? AND task_id = ? AND map_index = ? AND try_number = ?"
        row = self._db.execute(sql, _columns(place)).fetchone()
        if row is not None:
            raise TaskExists(f"the run has try {place.try_number} of task {place.task_id!r} already", {"id": row[0]})

    def _check_running(self, work: Work, lines: Lines | None) -> None:
        if work.task.finished:
            raise _finished(work.task)
        if lines is not None and work.last + lines.count > MAX_LINE_NUMBER:
            raise TooLarge(f"a task's output holds at most {MAX_LINE_NUMBER} lines", {"last": work.last})

    def _check_repeat(self, work: Work, lines: Lines, first: int) -> None:
        """Return if ``lines`` stand at ``first`` already, as they do when a producer repeats itself."""
        end = first + lines.count
        if end > work.last or not self._stands(work, lines, first, end):
            raise _finished(work.task) if work.task.finished else _conflict(work, first)

    def _stands(self, work: Work, lines: Lines, first: int, end: int) -> bool:
        self._works.settle(work)
        stored = [cut(chunk, first, end) for chunk in self._tx.read_chunks(work.task.log, first, end)]
        return b"".join(json_pieces(stored)) == lines.payload

    def _check_same_end(self, work: Work, outcome: Outcome, lines: Lines | None, first: int | None) -> Task:
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


def _conflict(work: Work, first: int) -> AppendConflict:
    message = f"first is {first}, but the output ends at line {work.last} and other lines stand there"
    return AppendConflict(message, {"last": work.last})
