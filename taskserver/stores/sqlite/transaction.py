"""SqliteTransaction: one group commit. Its three parts change tasks, runs and keys."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from taskserver.config import MAX_LINE_NUMBER
from taskserver.model import Chunk
from taskserver.store import AnyChange
from taskserver.stores.sqlite.keys import KeyWrites
from taskserver.stores.sqlite.rows import INSERT_CHUNK, Row, chunk_key, chunk_to_rows
from taskserver.stores.sqlite.runs import RunWrites
from taskserver.stores.sqlite.tasks import TaskWrites

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """What to do in a transaction: a method of one of its parts, and the arguments.

    Unlike a closure it can be sent to another process.
    """

    part: str
    method: Callable[..., T]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]

    def __call__(self, transaction: SqliteTransaction) -> T:
        return self.method(getattr(transaction, self.part), *self.args, **self.kwargs)


class SqliteTransaction:
    """See ``committer.Transaction``. ``changes`` is what to report when it is durable."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.db = connection
        self.changes: list[AnyChange] = []
        self.tasks = TaskWrites(self)
        self.runs = RunWrites(self)
        self.keys = KeyWrites(self)

    def flush(self) -> None:
        """Write what was collected: tasks first, since their transitions are events of their runs."""
        self.tasks.flush()
        self.runs.flush()

    def next_log(self) -> int:
        """A number for a new log. It is never given twice, not even when the log is deleted."""
        row = self.db.execute("UPDATE counter SET value = value + 1 WHERE name = 'log' RETURNING value").fetchone()
        number: int = row[0]
        return number

    def add_chunk(self, log: int, chunk: Chunk) -> None:
        """Add lines to a log."""
        self.insert_chunks(chunk_to_rows(log, chunk))

    def insert_chunks(self, rows: Iterable[Row]) -> None:
        """Add rows of the chunk table."""
        self.db.executemany(INSERT_CHUNK, rows)

    def chunk_starts(self, log: int, first: int, end: int) -> list[int]:
        """Where the chunks begin that begin at lines ``[first, end)`` of a log."""
        sql = "SELECT first FROM chunk WHERE key >= ? AND key < ? ORDER BY key"
        return [row[0] for row in self.db.execute(sql, (chunk_key(log, first), chunk_key(log, end)))]

    def delete_chunks(self, log: int, first: int = 0, end: int = MAX_LINE_NUMBER) -> None:
        """Remove the chunks that begin at lines ``[first, end)`` of a log."""
        keys = (chunk_key(log, first), chunk_key(log, end))
        self.db.execute("DELETE FROM chunk WHERE key >= ? AND key < ?", keys)
