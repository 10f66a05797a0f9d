"""The task part of a transaction. Methods raise before they change anything."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from taskserver.config import MAX_LINE_NUMBER
from taskserver.encoding import cut, json_pieces
from taskserver.errors import AppendConflict, TaskExists, TaskFinished, TaskNotFinished, TooLarge
from taskserver.model import (
    CANCELLED_CODE,
    INTERRUPTED_CODE,
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
from taskserver.stores.postgres.rows import TASK_COLUMNS, place_to_row, task_from_row
from taskserver.stores.postgres.works import Work, Works

if TYPE_CHECKING:
    from taskserver.stores.postgres.transaction import PostgresTransaction

MAX_EXPIRED = 1000  # tasks in one commit; the reaper comes again soon

_PRODUCERS_WORD = (TaskState.SUCCESS, TaskState.FAILED)  # ends that only somebody who worked on it can tell

_LEASED = "finished_at IS NULL AND lease_us IS NOT NULL"
# What is locked is being heard of at this moment, or dealt with by another node.
_OVERDUE = (
    f"SELECT {TASK_COLUMNS}, result FROM task WHERE {_LEASED} AND lease_expires_at <= $1"
    f" ORDER BY id LIMIT {MAX_EXPIRED} FOR UPDATE SKIP LOCKED"
)
_RENEW = (
    "UPDATE task SET lease_expires_at = $1::bigint + lease_us WHERE log IN"
    f" (SELECT log FROM task WHERE {_LEASED} ORDER BY id FOR UPDATE)"
)


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
            raise TaskExists(f"task id {new.id!r} is taken", {"id": new.id})
        if new.place is not None:
            self._tx.need_alone()
            await self._tx.runs.lock([new.place.run])  # nobody else takes a place in it meanwhile
            await self._check_place(new.place)
            await self._tx.runs.check_claim(new.place.run, new.claim)
        task = Task(
            id=new.id,
            log=await self._tx.next_log(),
            owner=new.owner,
            name=new.name,
            state=TaskState.QUEUED,
            created_at=now,
            labels=new.labels,
            lease_us=new.lease_us,
            lease_expires_at=lease_end(now, new.lease_us),
            place=new.place,
        )
        self._works.add(task)
        self._tx.changes.append(Change(task))
        self._tx.runs.note(task)
        return task

    async def append(self, task_id: str, lines: Lines, first: int | None, now: int) -> Appended:
        work = await self._works.load(task_id)
        if first is not None and first != work.last:
            await self._check_repeat(work, lines, first)
            return Appended(first, first + lines.count, work.task.cancel_requested)
        self._check_running(work, lines)
        start = work.last
        if lines.count:
            work.lines.append(lines)
            work.last += lines.count
        work.touched_at = now
        return Appended(start, work.last, work.task.cancel_requested)

    async def finish(self, task_id: str, outcome: Outcome, now: int, lines: Lines | None, first: int | None) -> Task:
        work = await self._works.load(task_id)
        if work.task.finished:
            return await self._check_same_end(work, outcome, lines, first)
        added = lines is not None and lines.count > 0
        if lines is not None and added:
            if first is not None and first != work.last:
                await self._check_repeat(work, lines, first)
            else:
                self._check_running(work, lines)
                work.lines.append(lines)
                work.last += lines.count
        elif first is not None and first != work.last:
            raise _conflict(work, first)
        return self._end(work, outcome_state(outcome, work.task.cancel_requested), outcome, now)

    async def heartbeat(self, task_id: str, now: int) -> Task:
        work = await self._works.load(task_id)
        self._check_running(work, None)
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
            work.task = replace(task, cancel_requested=True)
            outcome = Outcome(CANCELLED_CODE, "cancelled before it was started")
            return self._end(work, TaskState.CANCELLED, outcome, now)
        return self._works.change(work, cancel_requested=True)

    async def delete(self, task_id: str) -> None:
        task = (await self._works.load(task_id)).task
        if not task.finished:
            raise TaskNotFinished(f"task {task_id!r} is {task.state.value}; only a finished task can be deleted")
        await self._remove([task])

    async def delete_of_run(self, run: uuid.UUID) -> None:
        """Remove the tasks of a run, whatever their states."""
        await self._remove([work.task for work in await self._of_run(run)])

    async def expire_leases(self, now: int) -> list[Task]:
        await self._tx.flush()
        lost = self._works.take(await self._tx.db.fetch(_OVERDUE, now))
        return [self._interrupt(work, _silence(work.task), now) for work in lost]

    async def interrupt_run(self, run: uuid.UUID, error: str, now: int) -> None:
        """End the live tasks of a run whose claimant is lost."""
        for work in await self._of_run(run):
            if not work.task.finished:
                self._interrupt(work, error, now)

    async def cancel_run(self, run: uuid.UUID, now: int) -> None:
        """Ask the live tasks of a run to stop."""
        for work in await self._of_run(run):
            await self.request_cancel(work.task.id, now)

    async def renew_leases(self, now: int) -> None:
        await self._tx.flush()
        self._works.forget_all()
        await self._tx.db.execute(_RENEW, now)

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

    async def _remove(self, tasks: Sequence[Task]) -> None:
        await self._tx.flush()
        logs = [task.log for task in tasks]
        await self._tx.delete_chunks(logs)
        await self._tx.db.execute("DELETE FROM task WHERE log = ANY($1)", logs)
        for task in tasks:
            self._works.gone(task.id)
            self._tx.changes.append(Change(task, deleted=True))

    def _interrupt(self, work: Work, error: str, now: int) -> Task:
        return self._end(work, TaskState.INTERRUPTED, Outcome(INTERRUPTED_CODE, error), now)

    def _end(self, work: Work, state: TaskState, outcome: Outcome, now: int) -> Task:
        task = self._works.change(
            work,
            state=state,
            code=outcome.code,
            error=outcome.error,
            result=outcome.result,
            started_at=work.task.started_at or (now if state in _PRODUCERS_WORD else None),
            finished_at=now,
            lease_expires_at=None,
        )
        self._tx.runs.note(task)
        return task

    # --- checks --------------------------------------------------------------------

    async def _check_place(self, place: Place) -> None:
        await self._works.flush()
        sql = "SELECT id FROM task WHERE run = $1 AND task_id = $2 AND map_index = $3 AND try_number = $4"
        taken_by = await self._tx.db.fetchval(sql, *place_to_row(place))
        if taken_by is not None:
            raise TaskExists(f"the run has try {place.try_number} of task {place.task_id!r} already", {"id": taken_by})

    def _check_running(self, work: Work, lines: Lines | None) -> None:
        if work.task.finished:
            raise _finished(work.task)
        if lines is not None and work.last + lines.count > MAX_LINE_NUMBER:
            raise TooLarge(f"a task's output holds at most {MAX_LINE_NUMBER} lines", {"last": work.last})

    async def _check_repeat(self, work: Work, lines: Lines, first: int) -> None:
        """Return if ``lines`` stand at ``first`` already, as they do when a producer repeats itself."""
        end = first + lines.count
        if end > work.last or not await self._stands(work, lines, first, end):
            raise _finished(work.task) if work.task.finished else _conflict(work, first)

    async def _stands(self, work: Work, lines: Lines, first: int, end: int) -> bool:
        self._works.settle(work)
        stored = [cut(chunk, first, end) for chunk in await self._tx.read_chunks(work.task.log, first, end)]
        return b"".join(json_pieces(stored)) == lines.payload

    async def _check_same_end(self, work: Work, outcome: Outcome, lines: Lines | None, first: int | None) -> Task:
        task = work.task
        same = (task.code, task.error, task.result) == (outcome.code, outcome.error, outcome.result)
        if same and lines is not None and lines.count:
            start = task.last - lines.count if first is None else first
            same = start >= 0 and start + lines.count == task.last
            same = same and await self._stands(work, lines, start, task.last)
        if not same:
            raise _finished(task)
        return task


def _silence(task: Task) -> str:
    return f"producer lost: not heard of for {(task.lease_us or 0) / 1_000_000:g} s"


def _finished(task: Task) -> TaskFinished:
    payload = {"last": task.last, "state": task.state.value, "code": task.code}
    return TaskFinished(f"task {task.id!r} has ended as {task.state.value}", payload)


def _conflict(work: Work, first: int) -> AppendConflict:
    message = f"first is {first}, but the output ends at line {work.last} and other lines stand there"
    return AppendConflict(message, {"last": work.last})
