"""A store as one would explain it: plain lists and dictionaries, no database. What it says, a real store must say."""

from __future__ import annotations

from dataclasses import dataclass, field

from taskserver.errors import AppendConflict, TaskExists, TaskFinished, TaskNotFinished, TaskNotFound
from taskserver.model import Outcome, TaskState, outcome_state
from taskserver.store import Appended


@dataclass
class PlainTask:
    """A task and its lines."""

    lease_us: int | None
    lease_expires_at: int | None
    lines: list[str] = field(default_factory=list)
    state: TaskState = TaskState.QUEUED
    outcome: Outcome | None = None
    last_lines: tuple[str, ...] = ()
    cancel_requested: bool = False

    @property
    def finished(self) -> bool:
        return self.state.finished

    def stands(self, texts: tuple[str, ...], first: int) -> bool:
        """Whether exactly these lines stand at ``first``."""
        return first + len(texts) <= len(self.lines) and tuple(self.lines[first : first + len(texts)]) == texts

    def heard(self, now: int) -> None:
        self.state = TaskState.RUNNING
        if self.lease_us is not None:
            self.lease_expires_at = now + self.lease_us

    def end(self, state: TaskState, outcome: Outcome | None) -> None:
        self.state, self.outcome, self.lease_expires_at = state, outcome, None


class PlainStore:
    """The tasks of a store by id, in the order of their creation."""

    def __init__(self) -> None:
        self.tasks: dict[str, PlainTask] = {}

    def get(self, task_id: str) -> PlainTask:
        if task_id not in self.tasks:
            raise TaskNotFound("")
        return self.tasks[task_id]

    def create(self, task_id: str, lease_us: int | None, now: int) -> None:
        if task_id in self.tasks:
            raise TaskExists("")
        self.tasks[task_id] = PlainTask(lease_us, None if lease_us is None else now + lease_us)

    def append(self, task_id: str, texts: tuple[str, ...], first: int | None, now: int) -> Appended:
        task = self.get(task_id)
        last = len(task.lines)
        if first is not None and first != last:
            if not task.stands(texts, first):
                raise TaskFinished("") if task.finished else AppendConflict("", {"last": last})
            return Appended(first, first + len(texts), task.cancel_requested)
        if task.finished:
            raise TaskFinished("")
        task.lines.extend(texts)
        task.heard(now)
        return Appended(last, len(task.lines), task.cancel_requested)

    def finish(self, task_id: str, outcome: Outcome, texts: tuple[str, ...], first: int | None) -> None:
        task = self.get(task_id)
        last = len(task.lines)
        if task.finished:
            start = last - len(texts) if first is None else first
            at_the_end = start >= 0 and start + len(texts) == last and task.stands(texts, start)
            if task.outcome != outcome or (texts and not at_the_end):
                raise TaskFinished("")
            return
        if first is None or first == last:
            task.lines.extend(texts)
        elif not texts or not task.stands(texts, first):
            raise AppendConflict("", {"last": last})
        task.end(outcome_state(outcome, task.cancel_requested), outcome)

    def heartbeat(self, task_id: str, now: int) -> None:
        task = self.get(task_id)
        if task.finished:
            raise TaskFinished("")
        task.heard(now)

    def cancel(self, task_id: str) -> None:
        task = self.get(task_id)
        if task.finished:
            return
        task.cancel_requested = True
        if task.state is TaskState.QUEUED:
            task.end(TaskState.CANCELLED, None)

    def delete(self, task_id: str) -> None:
        if not self.get(task_id).finished:
            raise TaskNotFinished("")
        del self.tasks[task_id]

    def expire(self, now: int, heard_since: int) -> set[str]:
        overdue = {
            task_id
            for task_id, task in self.tasks.items()
            if task.lease_us is not None and task.lease_expires_at is not None
            if task.lease_expires_at < now and task.lease_us <= now - heard_since
        }
        for task_id in overdue:
            self.tasks[task_id].end(TaskState.INTERRUPTED, None)
        return overdue
