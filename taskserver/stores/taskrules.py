"""What may happen to a task, and what it then is: the rules that all stores follow, without I/O."""

from __future__ import annotations

from typing import Any

from taskserver.errors import AppendConflict, OutputFull, TaskExists, TaskFinished, TaskNotFinished, TaskNotFound
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
)

CANCELLED_IN_QUEUE = Outcome(CANCELLED_CODE, "cancelled before it was started")

_PRODUCERS_WORD = (TaskState.SUCCESS, TaskState.FAILED)  # ends that only somebody who worked on it can tell


def new_task(new: NewTask, log: int, now: int) -> Task:
    """A task as it begins."""
    return Task(
        id=new.id,
        log=log,
        owner=new.owner,
        name=new.name,
        state=TaskState.QUEUED,
        created_at=now,
        labels=new.labels,
        lease_us=new.lease_us,
        lease_expires_at=lease_end(now, new.lease_us),
        place=new.place,
    )


def id_taken(task_id: str) -> TaskExists:
    """The error for a task whose id is another one's."""
    return TaskExists(f"task id {task_id!r} is taken", {"id": task_id})


def place_taken(place: Place, task_id: str) -> TaskExists:
    """The error for a task whose place in a run has another one, ``task_id``."""
    return TaskExists(f"the run has try {place.try_number} of task {place.task_id!r} already", {"id": task_id})


def check_log(task: Task, log: int | None) -> None:
    """Raise TaskNotFound if a caller means another task, which had this one's id."""
    if log is not None and log != task.log:
        raise TaskNotFound(f"there is no task {task.id!r}")


def check_running(task: Task) -> None:
    """Raise TaskFinished if it has ended."""
    if task.finished:
        raise has_finished(task)


def check_room(task: Task, last: int, lines: Lines, limit: int) -> None:
    """Raise TaskFinished, or OutputFull if the output, which ends at ``last``, would have more than ``limit`` lines."""
    check_running(task)
    if lines.count and last + lines.count > limit:
        message = f"the output has {last} lines of at most {limit}: there is no room for {lines.count} more"
        raise OutputFull(message, {"last": last, "limit": limit})


def check_deletable(task: Task) -> None:
    """Raise TaskNotFinished if it has not ended."""
    if not task.finished:
        raise TaskNotFinished(f"task {task.id!r} is {task.state.value}; only a finished task can be deleted")


def refused_append(task: Task, last: int, first: int) -> TaskFinished | AppendConflict:
    """The error for lines that neither stand at ``first`` nor can be appended there: the output ends at ``last``."""
    if task.finished:
        return has_finished(task)
    return AppendConflict(
        f"first is {first}, but the output ends at line {last} and other lines stand there", {"last": last}
    )


def has_finished(task: Task) -> TaskFinished:
    """The error for a change of a task that has ended."""
    payload = {"last": task.last, "state": task.state.value, "code": task.code}
    return TaskFinished(f"task {task.id!r} has ended as {task.state.value}", payload)


def is_same_end(task: Task, outcome: Outcome) -> bool:
    """Whether an ended task has ended this way: its producer may be repeating itself."""
    return (task.code, task.error, task.result) == (outcome.code, outcome.error, outcome.result)


def last_lines_at(task: Task, lines: Lines, first: int | None) -> int | None:
    """Where ``lines`` must stand if an ended task has ended with them; None if they cannot have been its last."""
    start = task.last - lines.count if first is None else first
    return start if start >= 0 and start + lines.count == task.last else None


def end_of(task: Task, state: TaskState, outcome: Outcome, now: int) -> dict[str, Any]:
    """The fields that change when a task ends."""
    return {
        "state": state,
        "code": outcome.code,
        "error": outcome.error,
        "result": outcome.result,
        "started_at": task.started_at or (now if state in _PRODUCERS_WORD else None),
        "finished_at": now,
        "lease_expires_at": None,
    }


def interruption(error: str) -> Outcome:
    """How a task ends whose producer is lost."""
    return Outcome(INTERRUPTED_CODE, error)


def lost(who: str, lease_us: int | None) -> str:
    """The error of a task or run whose producer or claimant has not renewed its lease."""
    return f"{who} lost: not heard of for {(lease_us or 0) / 1_000_000:g} s"
