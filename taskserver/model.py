"""The words of the domain, and the rules that need no I/O.

Times are integers: microseconds since 1970-01-01 UTC. Durations inside the
domain are microseconds too, and say so in their name.
"""

from __future__ import annotations

import enum
import re
import secrets
import string
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from taskserver.errors import TooLarge

ID_ALPHABET = string.ascii_letters + string.digits
ID_LENGTH = 16  # CONTRACTS A1; 95 bits, so ids cannot be guessed
# RFC 3986 "unreserved": never needs escaping in a URL. But "." and ".." have a meaning of their own in a path.
ID_PATTERN = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9_.~-]{1,64}\Z")

CANCELLED_CODE = 130  # what a shell reports of a command that was interrupted from the keyboard (128 + SIGINT)
INTERRUPTED_CODE = 255  # what ssh reports when the other side is gone

MICROSECONDS = 1_000_000


class TaskState(str, enum.Enum):
    """``queued -> running -> success, failed, cancelled or interrupted``."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"

    @property
    def finished(self) -> bool:
        """True for the four states that a task never leaves."""
        return self in FINAL_STATES


FINAL_STATES = frozenset({TaskState.SUCCESS, TaskState.FAILED, TaskState.CANCELLED, TaskState.INTERRUPTED})


class Stream(enum.IntEnum):
    """Where a line was written. The numbers are stored."""

    STDOUT = 0
    STDERR = 1


class Scope(str, enum.Enum):
    """What a key may do. ``admin`` includes the others and sees every owner's tasks."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a task stands in a run: which of its dag's tasks it is, and which try."""

    run: uuid.UUID
    task_id: str
    map_index: int = -1
    try_number: int = 1


@dataclass(frozen=True, slots=True)
class Task:
    """One piece of work with output, as it stood at one moment.

    ``last`` is the number of lines produced, ``log`` the store's number of its
    output. ``version`` grows with each change, so that of two heads the newer is
    known. ``result`` is the JSON text of ``{"type", "data"}``, kept encoded; it
    is None where a method of the store says that it leaves results out.
    """

    id: str
    log: int
    owner: str
    name: str
    state: TaskState
    created_at: int
    last: int = 0
    code: int = 0
    error: str = ""
    result: bytes | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    started_at: int | None = None
    finished_at: int | None = None
    lease_us: int | None = None
    lease_expires_at: int | None = None
    cancel_requested: bool = False
    version: int = field(default=0, compare=False)
    place: Place | None = None

    @property
    def finished(self) -> bool:
        """True when the task has ended, whatever the outcome."""
        return self.state in FINAL_STATES

    @property
    def size(self) -> int:
        """Bytes of what has no fixed size, about."""
        return len(self.result or b"") + len(self.error)

    def grown(self, count: int) -> Task:
        """The task with ``count`` more lines, each of them a change.

        As ``dataclasses.replace``, at a third of its cost: every append pays it.
        """
        return Task(
            self.id,
            self.log,
            self.owner,
            self.name,
            self.state,
            self.created_at,
            self.last + count,
            self.code,
            self.error,
            self.result,
            self.labels,
            self.started_at,
            self.finished_at,
            self.lease_us,
            self.lease_expires_at,
            self.cancel_requested,
            self.version + count,
            self.place,
        )


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines on their way in, encoded already (see ``encoding``).

    ``payload`` holds ``count`` JSON strings joined by ``,\\n``; ``side`` the
    stream and time of each.
    """

    count: int
    payload: bytes
    side: bytes


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive lines of a log: ``first``, ``first + 1`` … ``end - 1``.

    ``payload`` is as in ``Lines``, unless the chunk is ``bare``: then it has no
    quotes and no commas, and a newline stands between two lines. That is how
    the output of tasks that have ended is kept (see ``encoding``).
    """

    first: int
    count: int
    payload: bytes
    side: bytes = b""
    bare: bool = False

    @property
    def end(self) -> int:
        """The number of the line after the chunk's last one."""
        return self.first + self.count


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended, in its producer's words."""

    code: int = 0
    error: str = ""
    result: bytes | None = None


@dataclass(frozen=True, slots=True)
class NewTask:
    """What a producer says of a task that it creates.

    ``claim`` proves that the run of ``place`` is its to work on. With an
    ``outcome`` the task has ended already.
    """

    id: str
    owner: str
    name: str = ""
    lease_us: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    place: Place | None = None
    claim: str | None = None
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is known of an API key; the key itself is known to nobody but its holder.

    ``id`` is the start of the hash in hexadecimal: it can be computed from a
    key, never the other way round.
    """

    id: str
    name: str
    owner: str
    scopes: frozenset[Scope]
    hash: bytes = field(repr=False)
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks to list; None means any. ``name`` and the labels match exactly.

    ``text`` is to stand in the name, in the id or in a label as ``name=value``;
    of the letters A to Z the case does not matter.
    """

    owner: str | None = None
    state: TaskState | None = None
    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None


def now_us() -> int:
    """The current time in microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def new_id() -> str:
    """A new task id: 16 characters of ``[A-Za-z0-9]`` from a secure source."""
    return "".join(secrets.choice(ID_ALPHABET) for _ in range(ID_LENGTH))


def default_error(code: int) -> str:
    """The text that stands in for a missing ``error``: never empty when ``code != 0`` (CONTRACTS A1)."""
    return f"task failed with code {code}" if code else ""


def checked_outcome(outcome: Outcome, result_bytes: int) -> Outcome:
    """An outcome as it is kept: a code other than 0 without an error gets a default text. Raises TooLarge."""
    if outcome.result is not None and len(outcome.result) > result_bytes:
        raise TooLarge(f"result: larger than {result_bytes} bytes of JSON")
    return Outcome(outcome.code, outcome.error or default_error(outcome.code), outcome.result)


def outcome_state(outcome: Outcome, cancel_requested: bool) -> TaskState:
    """The state that an outcome leads to.

    A command that was asked to stop and stopped is ``cancelled``; one that
    succeeded all the same is a success.
    """
    if outcome.code == 0:
        return TaskState.SUCCESS
    return TaskState.CANCELLED if cancel_requested else TaskState.FAILED


def lease_end(now: int, lease_us: int | None) -> int | None:
    """When a lease that is renewed at ``now`` runs out, or None without a lease."""
    return None if lease_us is None else now + lease_us
