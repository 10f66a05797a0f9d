"""The task part of a transaction. Methods raise before they change anything."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from taskserver.encoding import cut, json_pieces
from taskserver.model import Lines, NewTask, Outcome, Place, Task, TaskState, outcome_state
from taskserver.store import Appended, Change
from taskserver.stores import taskrules
from taskserver.stores.postgres.rows import OVERDUE, TASK_COLUMNS, place_to_row, task_from_row
from taskserver.stores.postgres.works import Work, Works

if TYPE_CHECKING:
    from taskserver.stores.postgres.transaction import PostgresTransaction

MAX_EXPIRED = 1000  # tasks in one commit; the reaper comes again soon

# What is locked is being heard of at this moment, or dealt with by another node.
_OVERDUE = (
    f"SELECT {TASK_COLUMNS}, result FROM task WHERE {OVERDUE} ORDER BY id LIMIT {MAX_EXPIRED} FOR UPDATE SKIP LOCKED"
)
# For removal: without results, which may be large.
_OF_RUN = f"SELECT {TASK_COLUMNS} FROM task WHERE run = $1 ORDER BY id LIMIT $2 FOR UPDATE"
_LOCK_OF_RUN = "SELECT 1 FROM task WHERE run = $1 ORDER BY id LIMIT $2 FOR UPDATE"
# What is locked is being sealed, or its producer repeats itself: it comes last. Then one is waited for at a time, since
# whoever locks several tasks takes them in the order of their ids.
_ENDED = f"SELECT {TASK_COLUMNS} FROM task WHERE finished_at < $1 AND run IS NULL ORDER BY finished_at"
_FREE = f"{_ENDED} LIMIT $2 FOR UPDATE SKIP LOCKED"
_FIRST = f"{_ENDED} LIMIT 1 FOR UPDATE"
_ANY_ENDED = "SELECT 1 FROM task WHERE finished_at < $1 AND run IS NULL LIMIT 1"


class TaskWrites:
    """Changes to tasks within one transaction."""

    def __init__(self, tx: PostgresTransaction) -> None:
        self._tx = tx
        self._works = Works(tx)

    async def lock(self, task_ids: Collection[str], runs: Collection[uuid.UUID]) -> None:
        """Read and lock tasks, and all tasks of some runs."""
        await self._works.lock(task_ids, runs)

    async def create(self, new: NewTask, now: int) -> Task:
        if await self._works.find(new.id) is not None:
            raise taskrules.id_taken(new.id)
        if new.place is not None:
            self._tx.need_alone()
            await self._tx.runs.lock([new.place.run])  # nobody else takes a place in it meanwhile
            await self._check_place(new.place)
            await self._tx.runs.check_claim(new.place.run, new.claim)
        task = taskrules.new_task(new, await self._tx.next_log(), now)
        work = self._works.add(task)
        self._tx.changes.append(Change(task))
        self._tx.runs.note(task)
        if new.outcome is not None:
            return self._end(work, outcome_state(new.outcome, cancel_requested=False), new.outcome, now)
        return task

    async def append(
        self, task_id: str, lines: Lines, first: int | None, now: int, limit: int, log: int | None
    ) -> Appended:
        work = await self._works.load(task_id)
        taskrules.check_log(work.task, log)
        if first is not None and first != work.last:
            await self._check_repeat(work, lines, first)
            return Appended(first, first + lines.count, work.task.cancel_requested)
        taskrules.check_room(work.task, work.last, lines, limit)
        start = work.last
        if lines.count:
            work.lines.append(lines)
            work.last += lines.count
        work.touched_at = now
        return Appended(start, work.last, work.task.cancel_requested)

    async def finish(
        self, task_id: str, outcome: Outcome, now: int, lines: Lines | None, first: int | None, limit: int
    ) -> Task:
        work = await self._works.load(task_id)
        if work.task.finished:
            return await self._check_same_end(work, outcome, lines, first)
        added = lines is not None and lines.count > 0
        if lines is not None and added:
            if first is not None and first != work.last:
                await self._check_repeat(work, lines, first)
            else:
                taskrules.check_room(work.task, work.last, lines, limit)
                work.lines.append(lines)
                work.last += lines.count
        elif first is not None and first != work.last:
            raise taskrules.refused_append(work.task, work.last, first)
        return self._end(work, outcome_state(outcome, work.task.cancel_requested), outcome, now)

    async def heartbeat(self, task_id: str, now: int) -> Task:
        work = await self._works.load(task_id)
        taskrules.check_running(work.task)
        work.touched_at = now
        self._works.settle(work)
        return work.task

    async def request_cancel(self, task_id: str, now: int) -> Task:
        work = await self._works.load(task_id)
        self._works.settle(work)
        task = work.task
        if task.finished or task.cancel_requested:
            return task
        if task.state is TaskState.QUEUED:
            return self._end(work, TaskState.CANCELLED, taskrules.CANCELLED_IN_QUEUE, now, cancel_requested=True)
        return self._works.change(work, cancel_requested=True)

    async def delete(self, task_id: str) -> None:
        task = (await self._works.load(task_id)).task
        taskrules.check_deletable(task)
        await self._remove([task])

    async def lock_of_run(self, run: uuid.UUID, limit: int) -> None:
        """Lock tasks of a run, at most ``limit``, those that ``remove_of_run`` will remove."""
        await self._tx.flush()
        await self._tx.db.execute(_LOCK_OF_RUN, run, limit)

    async def remove_of_run(self, run: uuid.UUID, limit: int) -> int:
        """Remove tasks of a run, whatever their states; how many, at most ``limit``."""
        return await self._remove_rows(_OF_RUN, run, limit)

    async def remove_ended(self, before: int, limit: int) -> int:
        """Remove tasks outside of runs that ended before a moment; how many: up to ``limit``, 0 if none is left."""
        removed = await self._remove_rows(_FREE, before, limit)
        while not removed and await self._tx.db.fetchval(_ANY_ENDED, before) is not None:
            removed = await self._remove_rows(_FIRST, before)
        return removed

    async def expire_leases(self, now: int, heard_since: int = 0) -> list[Task]:
        await self._tx.flush()
        overdue = self._works.take(await self._tx.db.fetch(_OVERDUE, now, now - heard_since))
        return [self._interrupt(work, taskrules.lost("producer", work.task.lease_us), now) for work in overdue]

    async def interrupt_run(self, run: uuid.UUID, error: str, now: int) -> None:
        """End the live tasks of a run whose claimant is lost."""
        for work in await self._of_run(run):
            if not work.task.finished:
                self._interrupt(work, error, now)

    async def cancel_run(self, run: uuid.UUID, now: int) -> None:
        """Ask the live tasks of a run to stop."""
        for work in await self._of_run(run):
            await self.request_cancel(work.task.id, now)

    async def states_of_run(self, run: uuid.UUID) -> list[Task]:
        """The tasks of a run as they stand now, without results, and without a lock."""
        await self._tx.flush()
        rows = await self._tx.db.fetch(f"SELECT {TASK_COLUMNS} FROM task WHERE run = $1 ORDER BY log", run)
        return [task_from_row(row) for row in rows]

    # --- plumbing ------------------------------------------------------------------

    async def flush(self) -> None:
        """Write what was collected."""
        await self._works.flush()

    async def _of_run(self, run: uuid.UUID) -> list[Work]:
        """The tasks of a run in the order of their creation, locked."""
        await self._tx.flush()
        sql = f"SELECT {TASK_COLUMNS}, result FROM task WHERE run = $1 ORDER BY id FOR UPDATE"
        works = self._works.take(await self._tx.db.fetch(sql, run))
        return sorted(works, key=lambda work: work.task.log)

    async def _remove_rows(self, sql: str, *arguments: object) -> int:
        """Remove the tasks that a query finds and locks; how many."""
        await self._tx.flush()
        tasks = [work.task for work in self._works.take(await self._tx.db.fetch(sql, *arguments))]
        await self._remove(tasks)
        return len(tasks)

    async def _remove(self, tasks: Sequence[Task]) -> None:
        await self._tx.flush()
        logs = [task.log for task in tasks]
        await self._tx.discard(logs)
        await self._tx.db.execute("DELETE FROM task WHERE log = ANY($1)", logs)
        for task in tasks:
            self._works.gone(task.id)
            self._tx.changes.append(Change(task, deleted=True))

    def _interrupt(self, work: Work, error: str, now: int) -> Task:
        return self._end(work, TaskState.INTERRUPTED, taskrules.interruption(error), now)

    def _end(self, work: Work, state: TaskState, outcome: Outcome, now: int, **also: Any) -> Task:
        task = self._works.change(work, **taskrules.end_of(work.task, state, outcome, now), **also)
        self._tx.runs.note(task)
        return task

    # --- checks --------------------------------------------------------------------

    async def _check_place(self, place: Place) -> None:
        await self._works.flush()
        sql = "SELECT id FROM task WHERE run = $1 AND task_id = $2 AND map_index = $3 AND try_number = $4"
        taken_by = await self._tx.db.fetchval(sql, *place_to_row(place))
        if taken_by is not None:
            raise taskrules.place_taken(place, taken_by)

    async def _check_repeat(self, work: Work, lines: Lines, first: int) -> None:
        """Return if ``lines`` stand at ``first`` already, as they do when a producer repeats itself."""
        end = first + lines.count
        if end > work.last or not await self._stands(work, lines, first, end):
            raise taskrules.refused_append(work.task, work.last, first)

    async def _stands(self, work: Work, lines: Lines, first: int, end: int) -> bool:
        self._works.settle(work)
        stored = [cut(chunk, first, end) for chunk in await self._tx.read_chunks(work.task.log, first, end)]
        return b"".join(json_pieces(stored)) == lines.payload

    async def _check_same_end(self, work: Work, outcome: Outcome, lines: Lines | None, first: int | None) -> Task:
        task = work.task
        if not taskrules.is_same_end(task, outcome):
            raise taskrules.has_finished(task)
        if lines is not None and lines.count:
            start = taskrules.last_lines_at(task, lines, first)
            if start is None or not await self._stands(work, lines, start, task.last):
                raise taskrules.has_finished(task)
        return task
