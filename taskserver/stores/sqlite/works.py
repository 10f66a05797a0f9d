"""The tasks that a group of operations works on: as they were, and what is still to be written of them.

Appends to one task become one row of the chunk table per group, and however
often a task changes within a group, its own row is written once. Lines alone
do not touch that row at all: where a live task's output ends, its newest chunk
tells (see ``rows``).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from taskserver.encoding import merge_lines
from taskserver.errors import TaskNotFound
from taskserver.model import Chunk, Lines, Task, TaskState, lease_end
from taskserver.store import Change
from taskserver.stores.rows import Row
from taskserver.stores.sqlite.rows import TASK_COLUMNS, task_from_row

if TYPE_CHECKING:
    from taskserver.stores.sqlite.transaction import SqliteTransaction

HEADS = 4096  # live tasks whose appends read no table; about a kilobyte each, mostly shared with the server's own heads

_SELECT = f"SELECT {TASK_COLUMNS}, result FROM task WHERE id = ?"
_UPDATE = (
    "UPDATE task SET state = ?, last = ?, code = ?, error = ?, result = ?, started_at = ?, finished_at = ?,"
    " lease_expires_at = ?, cancel_requested = ?, version = ? WHERE log = ?"
)
_RENEW = "UPDATE task SET lease_expires_at = ?, version = ? WHERE log = ?"  # touches one index, where _UPDATE has three


class Heads:
    """Live tasks as they were committed last, the most lately written ones.

    There is one writer, so nobody changes them behind its back. A transaction takes
    out what it works on and puts it back when it is durable: after one that was
    undone they are read again.
    """

    def __init__(self, limit: int = HEADS) -> None:
        self._limit = limit
        self._tasks: OrderedDict[str, Task] = OrderedDict()

    def take(self, task_id: str) -> Task | None:
        """Take out a task, if it is here."""
        return self._tasks.pop(task_id, None)

    def put(self, task: Task) -> None:
        """Put a task in; the one that was quiet longest makes room."""
        self._tasks[task.id] = task
        if len(self._tasks) > self._limit:
            self._tasks.popitem(last=False)

    def clear(self) -> None:
        """Forget all tasks."""
        self._tasks.clear()


@dataclass(slots=True)
class Work:
    """A task as the group sees it.

    ``task`` is how it stands without the ``lines`` that were collected, and
    ``last`` where the output ends with them.
    """

    task: Task
    last: int
    lines: list[Lines] = field(default_factory=list)
    touched_at: int | None = None  # when its producer was heard, if that is not in ``task`` yet
    changed: bool = False  # whether its row must be written
    renewed: bool = False  # whether at least the lease in it must be


class Works:
    """The works of one transaction by task id."""

    def __init__(self, tx: SqliteTransaction, heads: Heads) -> None:
        self._tx = tx
        self._heads = heads
        self._works: dict[str, Work] = {}

    def load(self, task_id: str) -> Work:
        """The work of a task. Raises TaskNotFound."""
        work = self._works.get(task_id)
        if work is not None:
            return work
        task = self._heads.take(task_id)
        if task is None:
            row = self._tx.db.execute(_SELECT, (task_id,)).fetchone()
            if row is None:
                raise TaskNotFound(f"there is no task {task_id!r}")
            task = task_from_row(row)
        return self.add(task)

    def add(self, task: Task) -> Work:
        """The work of a task that is known."""
        work = self._works[task.id] = Work(task, task.last)
        return work

    def forget(self, task_id: str) -> None:
        """Forget a task that is gone."""
        self._works.pop(task_id, None)
        self._heads.take(task_id)

    def settle(self, work: Work) -> None:
        """Take over what was collected of a task, and note the change."""
        now = work.touched_at
        if now is None:
            return
        task = work.task
        if task.state is TaskState.QUEUED:
            self.change(work, state=TaskState.RUNNING, started_at=now, lease_expires_at=lease_end(now, task.lease_us))
            self._tx.runs.note(work.task)
        elif task.lease_us is not None:
            self._change(work, lease_expires_at=lease_end(now, task.lease_us))
            work.renewed = True
        elif work.lines:
            chunk = self._add_chunk(work)
            work.task = task.grown(chunk.count)
            self._tx.changes.append(Change(work.task, chunk))
        work.touched_at = None

    def change(self, work: Work, **values: Any) -> Task:
        """Change fields of a task and take over its collected lines; the task as it then stands."""
        work.changed = True
        return self._change(work, **values)

    def flush(self) -> None:
        """Write all that was collected, except for the chunks: those are the transaction's."""
        changed: list[Row] = []
        renewed: list[Row] = []
        for work in self._works.values():
            self.settle(work)
            task = work.task
            if work.changed:
                changed.append(_row(task))
            elif work.renewed:
                renewed.append((task.lease_expires_at, task.version - task.last, task.log))
            work.changed = work.renewed = False
        if changed:
            self._tx.db.executemany(_UPDATE, changed)
        if renewed:
            self._tx.db.executemany(_RENEW, renewed)

    def committed(self) -> None:
        """Keep the tasks as they stand: all of it is durable."""
        for work in self._works.values():
            if not work.task.finished:
                self._heads.put(work.task)

    def _change(self, work: Work, **values: Any) -> Task:
        chunk = self._add_chunk(work) if work.lines else None
        version = work.task.version + (work.last - work.task.last) + 1
        work.task = replace(work.task, last=work.last, version=version, **values)
        work.touched_at = None
        self._tx.changes.append(Change(work.task, chunk))
        return work.task

    def _add_chunk(self, work: Work) -> Chunk:
        lines = merge_lines(work.lines)
        chunk = Chunk(work.last - lines.count, lines.count, lines.payload, lines.side)
        self._tx.add_chunk(work.task.log, chunk)
        work.lines = []
        return chunk


def _row(task: Task) -> Row:
    """The arguments of _UPDATE."""
    return (
        task.state.value,
        task.last,
        task.code,
        task.error,
        task.result,
        task.started_at,
        task.finished_at,
        task.lease_expires_at,
        task.cancel_requested,
        task.version - task.last,
        task.log,
    )
