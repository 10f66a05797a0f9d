"""Dags and runs: the words, and the rules that need no I/O. Times are microseconds since 1970 UTC.

A *dag* is registered under an id that names its tasks; a *run* is one
execution of it: tasks that belong together. Dag run (Airflow) and execution
are other words for a run.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import orjson

from taskserver.model import MICROSECONDS, Task, TaskState

RunState = TaskState  # the same six words, with the same meaning

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{24})")

# Airflow's rule for the ids of dags and tasks, but for "." and "..": in a URL they mean another path.
KEY = re.compile(r"(?!\.{1,2}\Z)[\w.-]{1,250}\Z")
KEY_ERROR = "must be 1 to 250 of letters, digits, _ . -, and not . or .."

NOT_MAPPED = -1  # the map index of a task that is not mapped, as Airflow has it


@dataclass(frozen=True, slots=True)
class DagTask:
    """What a dag says of one of its tasks: whether its value is a result of the run, and whether it is mapped."""

    task_id: str
    result: bool = False
    mapped: bool = False


@dataclass(frozen=True, slots=True)
class Dag:
    """A registered dag. ``config_id`` is its UUID, for callers that know it by that.

    ``retries``: how often a run whose claimant is lost is offered again.
    """

    dag_id: str
    owner: str
    config_id: uuid.UUID
    display_name: str
    retries: int
    tasks: tuple[DagTask, ...]
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class NewDag:
    """What its author says of a dag."""

    dag_id: str
    owner: str
    display_name: str
    retries: int
    tasks: tuple[DagTask, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a dag, as it stood at one moment.

    ``id`` is a UUIDv7; ``run_id`` is the name that Airflow's callers know it by,
    unique within its dag. ``last`` counts its events, ``log`` is the store's
    number of them. ``conf`` and ``metadata`` are JSON text. ``attempt`` counts
    the claims; ``claim`` is the present claimant's token.
    """

    id: uuid.UUID
    log: int
    owner: str
    dag_id: str
    run_id: str
    state: RunState
    tasks: tuple[DagTask, ...]
    conf: bytes
    retries: int
    queued_at: int
    run_after: int
    display_name: str = ""
    triggered_by: str = ""
    metadata: bytes | None = None
    tag: str | None = None
    note: str | None = None
    partition_key: str | None = None
    logical_date: int | None = None
    data_interval_start: int | None = None
    data_interval_end: int | None = None
    started_at: int | None = None
    finished_at: int | None = None
    error: str = ""
    last: int = 0
    attempt: int = 0
    claim: str | None = None
    lease_us: int | None = None
    lease_expires_at: int | None = None
    cancel_requested: bool = False
    version: int = field(default=0, compare=False)

    @property
    def finished(self) -> bool:
        """True when the run has ended, whatever the outcome."""
        return self.state.finished

    @property
    def size(self) -> int:
        """Bytes of what has no fixed size, about."""
        return len(self.conf) + len(self.metadata or b"") + len(self.note or "") + len(self.error)


@dataclass(frozen=True, slots=True)
class NewRun:
    """What a caller says of a run that it wants. ``run_after`` is when it is due; None: at once."""

    id: uuid.UUID
    run_id: str
    triggered_by: str
    dag_id: str
    conf: bytes = b"{}"
    metadata: bytes | None = None
    tag: str | None = None
    note: str | None = None
    partition_key: str | None = None
    logical_date: int | None = None
    data_interval_start: int | None = None
    data_interval_end: int | None = None
    run_after: int | None = None


@dataclass(frozen=True, slots=True)
class RunStats:
    """A run's tasks counted by state; of a task that was tried more than once, the last try counts."""

    total: int
    completed: int
    failed: int
    in_progress: int

    @property
    def success_rate(self) -> float:
        """Completed of all, 0.0 to 1.0; 0 when there are none."""
        return self.completed / self.total if self.total else 0.0


def uuid7(now_us: int) -> uuid.UUID:
    """A UUID of version 7 (RFC 9562, 5.7): milliseconds, then randomness, so that ids sort by time."""
    value = (now_us // 1000) << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    return uuid.UUID(int=value)


def parse_uuid(text: str) -> uuid.UUID | None:
    """The UUID that a text is, in its usual form or as 32 hexadecimal digits; None if it is none.

    ``uuid.UUID`` takes more: braces, prefixes, hyphens anywhere.
    """
    return uuid.UUID(text) if _UUID.fullmatch(text) else None


def manual_run_id(now_us: int) -> str:
    """The id that Airflow would give to a run triggered now: ``manual__2026-11-20T19:41:12.544779+00:00``."""
    moment = datetime.fromtimestamp(now_us // MICROSECONDS, timezone.utc).replace(microsecond=now_us % MICROSECONDS)
    return f"manual__{moment.isoformat(timespec='microseconds')}"


def once_run_id(key: str) -> str:
    """The id of the one run that a dag has for an idempotency key: a retry finds it taken."""
    return f"once__{hashlib.sha256(key.encode()).hexdigest()[:32]}"


def last_tries(tasks: Iterable[Task]) -> list[Task]:
    """The last try of each task of a run, in order of task id and map index."""
    last: dict[tuple[str, int], Task] = {}
    for task in tasks:
        assert task.place is not None
        key = (task.place.task_id, task.place.map_index)
        known = last.get(key)
        if known is None or known.place is None or known.place.try_number < task.place.try_number:
            last[key] = task
    return [last[key] for key in sorted(last)]


def count_tasks(tasks: Iterable[Task]) -> RunStats:
    """The stats of a run's tasks."""
    states = [task.state for task in last_tries(tasks)]
    completed = states.count(TaskState.SUCCESS)
    in_progress = states.count(TaskState.QUEUED) + states.count(TaskState.RUNNING)
    return RunStats(len(states), completed, len(states) - completed - in_progress, in_progress)


def result_values(run: Run, tasks: Iterable[Task]) -> dict[str, Any]:
    """The values of a run's tasks by task id, sorted.

    A mapped task's value is a list in order of the map index. Tasks that have
    not ended, or have no value, are left out; of tries the last one counts.
    """
    mapped = {task.task_id for task in run.tasks if task.mapped}
    values: dict[str, list[Any]] = {}
    for task in last_tries(tasks):
        if task.place is None or task.result is None:
            continue
        if task.place.map_index != NOT_MAPPED:
            mapped.add(task.place.task_id)
        value = orjson.loads(task.result)["data"]
        if value is not None:
            values.setdefault(task.place.task_id, []).append(value)
    return {task_id: found if task_id in mapped else found[0] for task_id, found in values.items()}


def derived_state(tasks: Sequence[Task]) -> RunState:
    """What a run whose claimant says no more than "it is over" comes to: a success if all its tasks are."""
    states = {task.state for task in last_tries(tasks)}
    return RunState.SUCCESS if states <= {TaskState.SUCCESS} else RunState.FAILED
