"""What the server answers, as Python values, and the two errors of the client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import aiohttp
import orjson

# Codes of ApiError that a producer or a worker has to tell apart.
TASK_EXISTS, APPEND_CONFLICT, TASK_FINISHED, OUTPUT_FULL = 1001, 1002, 1003, 1012
DAG_EXISTS, RUN_FINISHED, RUN_CLAIMED = 1006, 1008, 1009


class ApiError(Exception):
    """The server answered that it will not or cannot.

    Attributes:
        status: the HTTP status.
        code: the room's number for the error (PROTOCOLS.md, A2); 0 if the answer
            was none of the server's, such as a proxy's error page.
        message: one sentence.
        payload: facts for programs, such as ``{"last": 23}``, or None.
        retry_after: seconds to wait before another try, if the server said so.
    """

    def __init__(
        self, status: int, code: int, message: str, payload: Any = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.payload = payload
        self.retry_after = retry_after


class RunFailed(Exception):
    """A run has ended otherwise than as a success; ``run`` is how."""

    def __init__(self, run: RunInfo) -> None:
        super().__init__(f"run {run.id} of {run.dag_id} has ended as {run.state}: {run.error or 'without a reason'}")
        self.run = run


class Unreachable(Exception):
    """There was no whole answer: nobody listens, the connection broke, or it took too long.

    Whether the request was carried out is not known.
    """


@dataclass(frozen=True)
class TaskInfo:
    """A task as the server told of it (PROTOCOLS.md, A1).

    ``output`` and ``result`` are filled by ``TaskClient.get`` and ``wait`` only;
    ``lease`` is in seconds; ``run`` is its place in a run (A6), if it has one.
    """

    id: str
    name: str
    state: str
    finished: bool
    code: int
    error: str
    last: int
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    labels: Mapping[str, str] = field(default_factory=dict)
    lease: float | None = None
    cancel_requested: bool = False
    run: Mapping[str, Any] | None = None
    result: Any = None
    output: Sequence[str] = ()


@dataclass(frozen=True)
class TaskPage:
    """Some tasks of a list, and the ``cursor`` of the next page (None: there is none)."""

    tasks: Sequence[TaskInfo]
    cursor: str | None


@dataclass(frozen=True)
class OutputPage:
    """Lines ``[first, last)`` of a task's output. ``finished``: the task has ended and these are its last."""

    first: int
    last: int
    lines: Sequence[str]
    finished: bool


@dataclass(frozen=True)
class Appended:
    """Where appended lines stand, ``[first, last)``, and whether the producer is asked to stop."""

    first: int
    last: int
    cancel_requested: bool


@dataclass(frozen=True)
class RunInfo:
    """A run as the server told of it (PROTOCOLS.md, A6).

    ``tasks`` is filled by ``RunClient.get`` only, ``results`` (values by task id)
    by ``call`` and ``wait``, ``claim`` by ``claim``.
    """

    id: str
    dag_id: str
    run_id: str
    state: str
    finished: bool
    error: str
    conf: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 0
    cancel_requested: bool = False
    tasks: Sequence[TaskInfo] = ()
    results: Mapping[str, Any] = field(default_factory=dict)
    claim: str = field(default="", repr=False)


@dataclass(frozen=True)
class TailLine:
    """A line that one of a run's tasks has printed. ``map_index`` is -1 if the task is not mapped."""

    task_id: str
    map_index: int
    text: str


@dataclass(frozen=True)
class KeyInfo:
    """An API key. ``secret`` is known only in the answer of ``create_key``."""

    id: str
    name: str
    owner: str
    scopes: Sequence[str]
    created_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None
    secret: str | None = field(default=None, repr=False)


# --- from JSON ---------------------------------------------------------------------


def to_nothing(answer: Any) -> None:
    """For answers that say nothing."""


@dataclass(frozen=True)
class Pruned:
    """What was removed: tasks outside of runs, and runs. With ``more``, there is more: ask again."""

    tasks: int
    runs: int
    more: bool


def to_error(response: aiohttp.ClientResponse, body: bytes) -> ApiError:
    """An answer with an error status, also one that is not in the room's shape."""
    try:
        retry_after: float | None = float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        retry_after = None
    try:
        answer = orjson.loads(body)
        return ApiError(response.status, answer["code"], answer["error"], answer.get("payload"), retry_after)
    except (ValueError, KeyError, TypeError):
        message = f"the answer was HTTP {response.status} {response.reason or ''}".rstrip()
        return ApiError(response.status, 0, message, None, retry_after)


def to_time(text: str | None) -> datetime | None:
    """An RFC 3339 time."""
    # Python 3.10 does not know the Z of RFC 3339.
    return None if text is None else datetime.fromisoformat(text.replace("Z", "+00:00"))


def to_task(answer: Any) -> TaskInfo:
    """A task, alone or of a list."""
    return TaskInfo(
        id=answer["id"],
        name=answer["name"],
        state=answer["state"],
        finished=answer["finished"],
        code=answer["code"],
        error=answer["error"],
        last=answer["last"],
        created_at=to_time(answer["created_at"]),
        started_at=to_time(answer["started_at"]),
        finished_at=to_time(answer["finished_at"]),
        labels=answer["labels"],
        lease=answer["lease"],
        cancel_requested=answer["cancel_requested"],
        run=answer.get("run"),
        result=answer.get("result"),
        output=answer.get("output", ()),
    )


def to_run(answer: Any) -> RunInfo:
    """A run, or what came out of one."""
    return RunInfo(
        id=answer["id"],
        dag_id=answer["dag_id"],
        run_id=answer["run_id"],
        state=answer["state"],
        finished=answer["finished"],
        error=answer["error"],
        conf=answer.get("conf", {}),
        attempt=answer.get("attempt", 0),
        cancel_requested=answer.get("cancel_requested", False),
        tasks=[to_task(task) for task in answer.get("tasks", ())],
        results=answer.get("results", {}),
        claim=answer.get("claim", ""),
    )


def to_page(answer: Any) -> TaskPage:
    """A page of a list of tasks."""
    return TaskPage([to_task(task) for task in answer["tasks"]], answer["cursor"])


def to_output(answer: Any) -> OutputPage:
    """A page of output."""
    return OutputPage(answer["first"], answer["last"], answer["output"], answer["finished"])


def to_appended(answer: Any) -> Appended:
    """The answer to an append."""
    return Appended(answer["first"], answer["last"], answer["cancel_requested"])


def to_key(answer: Any) -> KeyInfo:
    """An API key."""
    return KeyInfo(
        id=answer["id"],
        name=answer["name"],
        owner=answer["owner"],
        scopes=answer["scopes"],
        created_at=to_time(answer["created_at"]),
        expires_at=to_time(answer["expires_at"]),
        revoked_at=to_time(answer["revoked_at"]),
        secret=answer.get("key"),
    )


def to_pruned(answer: Any) -> Pruned:
    """The answer to pruning."""
    return Pruned(answer["tasks"], answer["runs"], answer["more"])
