"""SqliteTransaction: one group commit. Its parts change tasks, runs and keys, and remove what is old."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from taskserver.model import Chunk
from taskserver.store import AnyChange
from taskserver.stores.rows import Row
from taskserver.stores.sqlite.keys import KeyWrites
from taskserver.stores.sqlite.retention import RetentionWrites
from taskserver.stores.sqlite.rows import INSERT_CHUNK, chunk_key, chunk_to_rows, read_chunks
from taskserver.stores.sqlite.runs import RunWrites
from taskserver.stores.sqlite.tasks import TaskWrites
from taskserver.stores.sqlite.works import Heads

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
    """See ``committer.Transaction``. ``heads`` live from one transaction to the next.

    Added chunks are collected and written together; what reads or removes chunks
    writes them first.
    """

    def __init__(self, connection: sqlite3.Connection, heads: Heads) -> None:
        self.db = connection
        self.changes: list[AnyChange] = []
        self._rows: list[Row] = []
        self.tasks = TaskWrites(self, heads)
        self.runs = RunWrites(self)
        self.keys = KeyWrites(self)
        self.retention = RetentionWrites(self)

    def flush(self) -> None:
        """Write what was collected: tasks first, since their transitions are events of their runs."""
        self.tasks.flush()
        self.runs.flush()
        self._write_chunks()

    def committed(self) -> Sequence[AnyChange]:
        """Take note that all of it is durable; what to report."""
        self.tasks.committed()
        return self.changes

    def next_log(self) -> int:
        """A number for a new log. It is never given twice, not even when the log is deleted."""
        row = self.db.execute("UPDATE counter SET value = value + 1 WHERE name = 'log' RETURNING value").fetchone()
        number: int = row[0]
        return number

    def add_chunk(self, log: int, chunk: Chunk) -> None:
        """Add lines to a log."""
        self._rows.extend(chunk_to_rows(log, chunk))

    def add_rows(self, rows: Iterable[Row]) -> None:
        """Add rows of the chunk table."""
        self._rows.extend(rows)

    def read_chunks(self, log: int, first: int, end: int) -> list[Chunk]:
        """All chunks that hold lines ``[first, end)`` of a log, whole."""
        self._write_chunks()
        return read_chunks(self.db, log, first, end)

    def chunk_starts(self, log: int, first: int, end: int) -> list[int]:
        """Where the chunks begin that begin at lines ``[first, end)`` of a log."""
        self._write_chunks()
        sql = "SELECT first FROM chunk WHERE key >= ? AND key < ? ORDER BY key"
        return [row[0] for row in self.db.execute(sql, (chunk_key(log, first), chunk_key(log, end)))]

    def discard(self, log: int, run: uuid.UUID | None = None) -> None:
        """Hide a log for ever, and leave its chunks, and what tasks its run has left, to ``Store.sweep``."""
        self.db.execute("INSERT INTO discarded VALUES (?, ?)", (log, None if run is None else str(run)))

    def delete_chunks(self, log: int, first: int, end: int) -> None:
        """Remove the chunks that begin at lines ``[first, end)`` of a log."""
        self._write_chunks()
        keys = (chunk_key(log, first), chunk_key(log, end))
        self.db.execute("DELETE FROM chunk WHERE key >= ? AND key < ?", keys)

    def _write_chunks(self) -> None:
        if self._rows:
            self.db.executemany(INSERT_CHUNK, self._rows)
            self._rows = []
