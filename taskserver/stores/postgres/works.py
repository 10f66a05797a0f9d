"""The tasks that a group of operations works on: as they were locked, and what is still to be written of them.

Appends to one task become one row of the chunk table per group, and however
often a task changes within a group, its own row is written once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from taskserver.encoding import merge_lines
from taskserver.errors import TaskNotFound
from taskserver.model import Chunk, Lines, Task, TaskState, lease_end
from taskserver.store import Change
from taskserver.stores.postgres.rows import (
    TASK_COLUMNS,
    TASK_FIELDS,
    Row,
    add_chunks,
    columns_of,
    marks,
    task_from_row,
    task_to_row,
)

if TYPE_CHECKING:
    from taskserver.stores.postgres.transaction import PostgresTransaction

_LOCK = f"SELECT {TASK_COLUMNS}, result FROM task WHERE id = ANY($1) ORDER BY id FOR UPDATE"
_LOCK_OF_RUNS = f"SELECT {TASK_COLUMNS}, result FROM task WHERE id = ANY($1) OR run = ANY($2) ORDER BY id FOR UPDATE"
_INSERT = f"INSERT INTO task ({TASK_COLUMNS}, result) VALUES ({marks(len(TASK_FIELDS) + 1)})"
_UPDATE = (
    "UPDATE task SET state = new.state, last = new.last, started_at = new.started_at,"
    " lease_expires_at = new.lease_expires_at, cancel_requested = new.cancel_requested, version = new.version"
    " FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::boolean[], $7::bigint[])"
    " AS new (log, state, last, started_at, lease_expires_at, cancel_requested, version) WHERE task.log = new.log"
)
# Appends cost one round trip less this way.
_UPDATE_AND_ADD = f"WITH added AS ({add_chunks(8)}) {_UPDATE}"
_END = "UPDATE task SET code = $2, error = $3, result = $4, finished_at = $5 WHERE log = $1"


@dataclass(slots=True)
class Work:
    """A task as the group sees it.

    ``task`` is how it stands without the ``lines`` that were collected, and
    ``last`` where the output ends with them.
    """

    task: Task
    last: int
    stored: bool  # whether the table has a row of it
    ended: bool  # whether that row, if there is one, says that it has ended
    lines: list[Lines] = field(default_factory=list)
    touched_at: int | None = None  # when its producer was heard, if that is not in ``task`` yet
    changed: bool = False  # whether its row must be written


class Works:
    """The works of one transaction by task id; None for a task that there is not."""

    def __init__(self, tx: PostgresTransaction) -> None:
        self._tx = tx
        self._works: dict[str, Work | None] = {}

    async def lock(self, task_ids: Collection[str], runs: Collection[UUID] = ()) -> None:
        """Read and lock tasks, and all tasks of some runs."""
        if runs:
            rows = await self._tx.db.fetch(_LOCK_OF_RUNS, list(task_ids), list(runs))
        else:
            rows = await self._tx.db.fetch(_LOCK, list(task_ids))
        self._works.update(dict.fromkeys(task_ids))
        self.take(rows)

    def take(self, rows: Iterable[Row]) -> list[Work]:
        """Take over rows of TASK_COLUMNS and ``result`` that are locked; what is known already stays as it is."""
        found = []
        for row in rows:
            work = self._works.get(row[1])
            if work is None:
                task = task_from_row(row)
                work = self._works[task.id] = Work(task, task.last, stored=True, ended=task.finished)
            found.append(work)
        return found

    async def find(self, task_id: str) -> Work | None:
        """The work of a task, or None if there is no such task."""
        if task_id not in self._works:
            await self.lock([task_id])
        return self._works[task_id]

    async def load(self, task_id: str) -> Work:
        """The work of a task. Raises TaskNotFound."""
        work = await self.find(task_id)
        if work is None:
            raise TaskNotFound(f"there is no task {task_id!r}")
        return work

    def add(self, task: Task) -> None:
        """Add a new task."""
        self._works[task.id] = Work(task, task.last, stored=False, ended=False, changed=True)

    def gone(self, task_id: str) -> None:
        """Take note that a task has been deleted."""
        self._works[task_id] = None

    def forget_all(self) -> None:
        """Forget all tasks, since their rows are about to be changed elsewhere."""
        self._works.clear()

    # --- changes -------------------------------------------------------------------

    def settle(self, work: Work) -> None:
        """Take over what was collected of a task, and note the change."""
        now = work.touched_at
        if now is None:
            return
        task = work.task
        started = task.state is TaskState.QUEUED
        self.change(
            work,
            state=TaskState.RUNNING,
            started_at=now if task.started_at is None else task.started_at,
            lease_expires_at=lease_end(now, task.lease_us),
        )
        if started:
            self._tx.runs.note(work.task)

    def change(self, work: Work, **values: Any) -> Task:
        """Change fields of a task and take over its collected lines; the task as it then stands."""
        chunk = None
        if work.lines:
            lines = merge_lines(work.lines)
            chunk = Chunk(work.last - lines.count, lines.count, lines.payload, lines.side)
            self._tx.add_chunk(work.task.log, chunk)
        work.task = task = replace(work.task, last=work.last, version=work.task.version + 1, **values)
        work.lines, work.touched_at, work.changed = [], None, True
        self._tx.changes.append(Change(task, chunk))
        return task

    async def flush(self) -> None:
        """Write all that was collected."""
        added: list[Row] = []
        changed: list[Row] = []
        ended: list[Row] = []
        for work in self._works.values():
            if work is None:
                continue
            self.settle(work)
            if not work.changed:
                continue
            task = work.task
            if not work.stored:
                added.append(task_to_row(task))
            else:
                changed.append(_update_row(task))
                if task.finished and not work.ended:
                    ended.append((task.log, task.code, task.error, task.result, task.finished_at))
            work.stored, work.ended, work.changed = True, task.finished, False
        if added:
            await self._tx.db.executemany(_INSERT, added)
        chunks = self._tx.take_chunks() if changed else []
        if chunks:
            await self._tx.db.execute(_UPDATE_AND_ADD, *columns_of(changed), *columns_of(chunks))
        elif changed:
            await self._tx.db.execute(_UPDATE, *columns_of(changed))
        if ended:
            await self._tx.db.executemany(_END, ended)


def _update_row(task: Task) -> Row:
    """The arguments of _UPDATE."""
    return (
        task.log,
        task.state.value,
        task.last,
        task.started_at,
        task.lease_expires_at,
        task.cancel_requested,
        task.version,
    )
