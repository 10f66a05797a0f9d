"""The task half of a transaction: what one group commit does to tasks and their output.

Each operation sees the ones before it; what they change is collected in
``works`` and written at the end of the group. Methods raise before they change
anything.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from taskserver.encoding import cut, json_pieces
from taskserver.jsontext import dumps
from taskserver.model import Chunk, Lines, NewTask, Outcome, Place, Task, TaskState, outcome_state
from taskserver.store import Appended, Change
from taskserver.stores import taskrules
from taskserver.stores.rows import Row
from taskserver.stores.sqlite.rows import OVERDUE, TASK_COLUMNS, place_to_row, task_from_row
from taskserver.stores.sqlite.works import Heads, Work, Works

if TYPE_CHECKING:
    from taskserver.stores.sqlite.transaction import SqliteTransaction

_INSERT = (
    "INSERT INTO task (log, id, owner, name, state, labels, created_at, lease_us, lease_expires_at,"
    " run, task_id, map_index, try_number) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

_OVERDUE = f"SELECT id FROM task WHERE {OVERDUE}"


class TaskWrites:
    """Changes to tasks within one transaction."""

    def __init__(self, tx: SqliteTransaction, heads: Heads) -> None:
        self._tx = tx
        self._db = tx.db
        self._works = Works(tx, heads)

    def create(self, new: NewTask, now: int) -> Task:
        if self._db.execute("SELECT 1 FROM task WHERE id = ?", (new.id,)).fetchone():
            raise taskrules.id_taken(new.id)
        if new.place is not None:
            self._check_place(new.place)
            self._tx.runs.check_claim(new.place.run, new.claim)
        task = taskrules.new_task(new, self._tx.next_log(), now)
        labels = dumps(dict(task.labels)).decode()
        lease = (task.lease_us, task.lease_expires_at)
        head = (task.log, task.id, task.owner, task.name, task.state.value, labels, now)
        row = (*head, *lease, *place_to_row(task.place))
        self._db.execute(_INSERT, row)
        work = self._works.add(task)
        self._tx.changes.append(Change(task))
        self._tx.runs.note(task)
        if new.outcome is not None:
            self.mark_sealed(task.log)  # it has no output: the sealer need not look, with a commit for each
            return self._end(work, outcome_state(new.outcome, cancel_requested=False), new.outcome, now)
        return task

    def append(self, task_id: str, lines: Lines, first: int | None, now: int, limit: int, log: int | None) -> Appended:
        work = self._works.load(task_id)
        taskrules.check_log(work.task, log)
        if first is not None and first != work.last:
            self._check_repeat(work, lines, first)
            return Appended(first, first + lines.count, work.task.cancel_requested)
        taskrules.check_room(work.task, work.last, lines, limit)
        start = work.last
        if lines.count:
            work.lines.append(lines)
            work.last += lines.count
        work.touched_at = now
        return Appended(start, work.last, work.task.cancel_requested)

    def finish(
        self, task_id: str, outcome: Outcome, now: int, lines: Lines | None, first: int | None, limit: int
    ) -> Task:
        work = self._works.load(task_id)
        if work.task.finished:
            return self._check_same_end(work, outcome, lines, first)
        added = lines is not None and lines.count > 0
        if lines is not None and added:
            if first is not None and first != work.last:
                self._check_repeat(work, lines, first)
            else:
                taskrules.check_room(work.task, work.last, lines, limit)
                work.lines.append(lines)
                work.last += lines.count
        elif first is not None and first != work.last:
            raise taskrules.refused_append(work.task, work.last, first)
        state = outcome_state(outcome, work.task.cancel_requested)
        return self._end(work, state, outcome, now)

    def heartbeat(self, task_id: str, now: int) -> Task:
        work = self._works.load(task_id)
        taskrules.check_running(work.task)
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
            return self._end(work, TaskState.CANCELLED, taskrules.CANCELLED_IN_QUEUE, now, cancel_requested=True)
        return self._works.change(work, cancel_requested=True)

    def delete(self, task_id: str) -> None:
        task = self._works.load(task_id).task
        taskrules.check_deletable(task)
        self.remove(task)

    def remove_of_run(self, run: uuid.UUID, limit: int) -> int:
        """Remove tasks of a run, whatever their states; how many, at most ``limit``."""
        tasks = self.of_run(run, limit)
        for task in tasks:
            self.remove(task)
        return len(tasks)

    def expire_leases(self, now: int, heard_since: int = 0) -> list[Task]:
        self.flush()
        ended = []
        for (task_id,) in self._db.execute(_OVERDUE, (now, now - heard_since)).fetchall():
            work = self._works.load(task_id)
            ended.append(self._interrupt(work, taskrules.lost("producer", work.task.lease_us), now))
        return ended

    def interrupt_run(self, run: uuid.UUID, error: str, now: int) -> None:
        """End the live tasks of a run whose claimant is lost."""
        for task in self.of_run(run):
            if not task.finished:
                self._interrupt(self._works.load(task.id), error, now)

    def cancel_run(self, run: uuid.UUID, now: int) -> None:
        """Ask the live tasks of a run to stop."""
        for task in self.of_run(run):
            if not task.finished:
                self.request_cancel(task.id, now)

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

    def of_run(self, run: uuid.UUID, limit: int = -1) -> list[Task]:
        """The tasks of a run as they stand now, without results; with a ``limit``, not more of them."""
        self.flush()
        sql = f"SELECT {TASK_COLUMNS} FROM task WHERE run = ? LIMIT ?"
        rows = self._db.execute(sql, (str(run), limit)).fetchall()
        return [task_from_row(row) for row in rows]

    def remove(self, task: Task) -> None:
        """Remove a task that has just been read."""
        self._tx.discard(task.log)
        self._db.execute("DELETE FROM task WHERE log = ?", (task.log,))
        self._works.forget(task.id)
        self._tx.changes.append(Change(task, deleted=True))

    # --- plumbing ------------------------------------------------------------------

    def flush(self) -> None:
        """Write what was collected."""
        self._works.flush()

    def committed(self) -> None:
        """Take note that all of it is durable."""
        self._works.committed()

    def _interrupt(self, work: Work, error: str, now: int) -> Task:
        return self._end(work, TaskState.INTERRUPTED, taskrules.interruption(error), now)

    def _end(self, work: Work, state: TaskState, outcome: Outcome, now: int, **also: Any) -> Task:
        task = self._works.change(work, **taskrules.end_of(work.task, state, outcome, now), **also)
        self._tx.runs.note(task)
        return task

    # --- checks --------------------------------------------------------------------

    def _check_place(self, place: Place) -> None:
        sql = "SELECT id FROM task WHERE run = ? AND task_id = ? AND map_index = ? AND try_number = ?"
        row = self._db.execute(sql, place_to_row(place)).fetchone()
        if row is not None:
            raise taskrules.place_taken(place, row[0])

    def _check_repeat(self, work: Work, lines: Lines, first: int) -> None:
        """Return if ``lines`` stand at ``first`` already, as they do when a producer repeats itself."""
        end = first + lines.count
        if end > work.last or not self._stands(work, lines, first, end):
            raise taskrules.refused_append(work.task, work.last, first)

    def _stands(self, work: Work, lines: Lines, first: int, end: int) -> bool:
        self._works.settle(work)
        stored = [cut(chunk, first, end) for chunk in self._tx.read_chunks(work.task.log, first, end)]
        return b"".join(json_pieces(stored)) == lines.payload

    def _check_same_end(self, work: Work, outcome: Outcome, lines: Lines | None, first: int | None) -> Task:
        task = work.task
        if not taskrules.is_same_end(task, outcome):
            raise taskrules.has_finished(task)
        if lines is not None and lines.count:
            start = taskrules.last_lines_at(task, lines, first)
            if start is None or not self._stands(work, lines, start, task.last):
                raise taskrules.has_finished(task)
        return task
