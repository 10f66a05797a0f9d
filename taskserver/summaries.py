"""What is told of tasks and runs, as JSON: in answers, lists and events. Pure functions."""

from __future__ import annotations

from typing import Any

import orjson

from taskserver.dagmodel import Run
from taskserver.jsontext import dumps, isotime
from taskserver.model import MICROSECONDS, Place, Task


def task_summary(task: Task) -> dict[str, Any]:
    """What lists tell of a task: all of A1 but its output and result."""
    return {
        "id": task.id,
        "name": task.name,
        "state": task.state.value,
        "finished": task.finished,
        "code": task.code,
        "error": task.error,
        "last": task.last,
        "labels": dict(task.labels),
        "created_at": isotime(task.created_at),
        "started_at": isotime(task.started_at),
        "finished_at": isotime(task.finished_at),
        "lease": None if task.lease_us is None else task.lease_us / MICROSECONDS,
        "cancel_requested": task.cancel_requested,
        "run": _place_summary(task.place),
    }


def _place_summary(place: Place | None) -> dict[str, Any] | None:
    if place is None:
        return None
    return {
        "id": str(place.run),
        "task_id": place.task_id,
        "map_index": place.map_index,
        "try_number": place.try_number,
    }


def run_head(run: Run) -> dict[str, Any]:
    """What our own API tells of a run first, wherever it stands."""
    return {
        "id": str(run.id),
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "state": run.state.value,
        "finished": run.finished,
        "error": run.error,
    }


def run_summary(run: Run) -> dict[str, Any]:
    """A run as our own API tells it; the claim is between the server and its claimant."""
    return {
        **run_head(run),
        "conf": orjson.Fragment(run.conf),
        "metadata": None if run.metadata is None else orjson.Fragment(run.metadata),
        "tag": run.tag,
        "note": run.note,
        "attempt": run.attempt,
        "queued_at": isotime(run.queued_at),
        "run_after": isotime(run.run_after),
        "started_at": isotime(run.started_at),
        "finished_at": isotime(run.finished_at),
        "cancel_requested": run.cancel_requested,
    }


def task_head(task: Task) -> bytes:
    """A task as JSON up to the opening bracket of its output (CONTRACTS A1).

    State and ``last`` come first, so that a large answer can be streamed behind
    them; ``task_tail`` closes it.
    """
    result = b"null" if task.result is None else task.result
    return dumps(task_summary(task))[:-1] + b',"result":' + result + b',"output":['


TASK_TAIL = b"]}"


def encode_event(task: Task) -> bytes:
    """A task's transition as a line of its run's event log: a JSON object, which can hold no raw newline either."""
    return dumps(event_fields(task))


def event_fields(task: Task) -> dict[str, Any]:
    """What a run's event says of a task (CONTRACTS C)."""
    assert task.place is not None
    duration = None
    if task.started_at is not None and task.finished_at is not None:
        duration = (task.finished_at - task.started_at) // 1000
    return {
        "execution_id": str(task.place.run),
        "task_id": task.place.task_id,
        "map_index": task.place.map_index,
        "status": task.state.value,
        "started_at": isotime(task.started_at),
        "completed_at": isotime(task.finished_at),
        "duration_ms": duration,
        "error": task.error,
    }
