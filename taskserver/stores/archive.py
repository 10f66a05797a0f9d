"""Archive: a database as a whole, read and filled in the order of its keys, for ``copying``.

What is read here is independent of the backend; ``sqlite/archive.py`` and
``postgres/archive.py`` say how it lies there. An archive has its database for
itself: no server works on it.
"""

from __future__ import annotations

import abc
import enum
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from taskserver.model import Task

PAGE_ROWS = 2000
PAGE_BYTES = 4 * 1024 * 1024  # of payloads and results, about; a copy holds four pages at most


class Kind(enum.Enum):
    """What a database consists of, in the order in which it is copied."""

    KEYS = "keys"
    SECRETS = "secrets"
    DAGS = "dags"
    RUNS = "runs"
    TASKS = "tasks"
    DISCARDED = "discarded logs"
    CHUNKS = "output"


class Secret(NamedTuple):
    """What the server must not forget, such as what signs its tokens."""

    name: str
    value: bytes


class StoredTask(NamedTuple):
    """A task, and whether its output is sealed."""

    task: Task
    sealed: bool


class Discarded(NamedTuple):
    """A log that was deleted and whose chunks may be there still; see ``Store.sweep``."""

    log: int
    run: uuid.UUID | None


class StoredChunk(NamedTuple):
    """A chunk as it is stored, in its codec."""

    log: int
    first: int
    lines: int
    codec: int
    payload: bytes
    side: bytes


Record = Any  # of KEYS an ApiKey, of DAGS a Dag, of RUNS a Run, of the others what stands above
Key = tuple[Any, ...]

_KEYS: dict[Kind, Callable[[Record], Key]] = {
    Kind.KEYS: lambda key: (key.id,),
    Kind.SECRETS: lambda secret: (secret.name,),
    Kind.DAGS: lambda dag: (dag.dag_id,),
    Kind.RUNS: lambda run: (run.log,),
    Kind.TASKS: lambda stored: (stored.task.log,),
    Kind.DISCARDED: lambda discarded: (discarded.log,),
    Kind.CHUNKS: lambda chunk: (chunk.log, chunk.first),
}
START: dict[Kind, Key] = {
    Kind.KEYS: ("",),
    Kind.SECRETS: ("",),
    Kind.DAGS: ("",),
    Kind.RUNS: (-1,),
    Kind.TASKS: (-1,),
    Kind.DISCARDED: (-1,),
    Kind.CHUNKS: (-1, -1),
}
"""A key before all others."""


def key_of(kind: Kind, record: Record) -> Key:
    """The key of a record: unique among those of its kind, which come in the order of their keys."""
    return _KEYS[kind](record)


@dataclass(frozen=True)
class Size:
    """How much output there is; ``bytes`` as it is stored."""

    chunks: int = 0
    lines: int = 0
    bytes: int = 0


class Archive(abc.ABC):
    """One database. Methods raise StoreUnavailable, and those that write StoreFull."""

    name: str
    """For messages; without a password."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Let go of the database."""

    # --- reading -----------------------------------------------------------------

    @abc.abstractmethod
    async def page(self, kind: Kind, after: Key) -> Sequence[Record]:
        """The next records behind a key, in the order of their keys; none at the end.

        At most PAGE_ROWS, and no more than fit in about PAGE_BYTES.
        """

    @abc.abstractmethod
    async def size(self) -> Size:
        """How much output there is."""

    @abc.abstractmethod
    async def last_log(self) -> int:
        """The last number that was given to a log."""

    # --- being filled ------------------------------------------------------------

    @abc.abstractmethod
    async def is_empty(self) -> bool:
        """Whether it holds nothing."""

    @abc.abstractmethod
    async def source(self) -> bytes | None:
        """The fingerprint of what is being copied into it; None if nothing is."""

    @abc.abstractmethod
    async def begin(self, source: bytes) -> None:
        """Note that something is being copied into it: no server takes it before ``finish``."""

    @abc.abstractmethod
    async def last_key(self, kind: Kind) -> Key:
        """The last key that it has of a kind; START if there is none."""

    @abc.abstractmethod
    async def load(self, kind: Kind, records: Sequence[Record]) -> None:
        """Add records, whose keys are behind all others of their kind, all of them or none.

        Raises CannotCopy if one cannot be kept here.
        """

    @abc.abstractmethod
    async def finish(self, last_log: int) -> None:
        """Give the database to servers, which will number new logs behind ``last_log``. Durable when it returns."""

    @abc.abstractmethod
    async def clear(self) -> None:
        """Remove everything."""
