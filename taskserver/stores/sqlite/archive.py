"""A SQLite file as an archive."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

from taskserver.errors import CannotCopy, StoreFull, StoreUnavailable
from taskserver.jsontext import dumps
from taskserver.stores.archive import (
    PAGE_BYTES,
    PAGE_ROWS,
    START,
    Archive,
    Discarded,
    Key,
    Kind,
    Record,
    Secret,
    Size,
    StoredChunk,
    StoredTask,
)
from taskserver.stores.rows import DAG_COLUMNS, KEY_COLUMNS, RUN_COLUMNS, Row, key_from_row, key_to_row
from taskserver.stores.sqlite.file import DatabaseFile
from taskserver.stores.sqlite.rows import (
    INSERT_CHUNK,
    LINE_BITS,
    TASK_COLUMNS,
    chunk_key,
    dag_from_row,
    dag_to_row,
    place_to_row,
    run_from_row,
    run_to_row,
    task_from_row,
)

MAX_LOG = 2 ** (63 - LINE_BITS) - 1

_TASK_ROW = (
    "log, id, owner, name, state, last, code, error, labels, created_at, started_at, finished_at, lease_us,"
    " lease_expires_at, cancel_requested, version, sealed, run, task_id, map_index, try_number, result"
)

T = TypeVar("T")


@dataclass(frozen=True)
class _Table:
    """How records of a kind lie: the table, its key, the columns to read and write, and what they hold."""

    name: str
    key: str
    read: str
    write: str
    from_row: Callable[[Row], Record]
    to_row: Callable[[Any], Row]
    width: Callable[[Row], int] = lambda row: 0

    @property
    def insert(self) -> str:
        marks = ", ".join("?" * (self.write.count(",") + 1))
        return f"INSERT INTO {self.name} ({self.write}) VALUES ({marks})"


def _task_row(stored: StoredTask) -> Row:
    task = stored.task
    return (
        task.log,
        task.id,
        task.owner,
        task.name,
        task.state.value,
        task.last,
        task.code,
        task.error,
        dumps(dict(task.labels)).decode(),
        task.created_at,
        task.started_at,
        task.finished_at,
        task.lease_us,
        task.lease_expires_at,
        task.cancel_requested,
        task.version - task.last,
        stored.sealed,
        *place_to_row(task.place),
        task.result,
    )


def _chunk_from_row(row: Row) -> StoredChunk:
    key, *rest = row
    return StoredChunk(key >> LINE_BITS, key & (1 << LINE_BITS) - 1, *rest)


def _chunk_row(chunk: StoredChunk) -> Row:
    if chunk.log > MAX_LOG:
        raise CannotCopy(f"the log number {chunk.log} is too large for SQLite")
    return (chunk_key(chunk.log, chunk.first), *chunk[2:])


_TABLES = {
    Kind.KEYS: _Table("api_key", "id", KEY_COLUMNS, KEY_COLUMNS, key_from_row, key_to_row),
    Kind.SECRETS: _Table("secret", "name", "name, value", "name, value", lambda row: Secret(*row), tuple),
    Kind.DAGS: _Table("dag", "dag_id", DAG_COLUMNS, DAG_COLUMNS, dag_from_row, dag_to_row),
    Kind.RUNS: _Table(
        "run", "log", RUN_COLUMNS, RUN_COLUMNS, run_from_row, run_to_row, lambda row: sum(map(_length, row))
    ),
    Kind.TASKS: _Table(
        "task",
        "log",
        f"{TASK_COLUMNS}, result, sealed",
        _TASK_ROW,
        lambda row: StoredTask(task_from_row(row[:-1]), bool(row[-1])),
        _task_row,
        lambda row: sum(map(_length, row)),
    ),
    Kind.DISCARDED: _Table(
        "discarded",
        "log",
        "log, run",
        "log, run",
        lambda row: Discarded(row[0], None if row[1] is None else uuid.UUID(row[1])),
        lambda discarded: (discarded.log, None if discarded.run is None else str(discarded.run)),
    ),
}
_CHUNKS = "SELECT key, count, codec, payload, side FROM chunk WHERE key > ? ORDER BY key"


def _length(value: object) -> int:
    return len(value) if isinstance(value, (bytes, str)) else 0


class SqliteArchive(Archive):
    """See ``Archive``. All that it does is done in a thread of its own."""

    def __init__(self, file: DatabaseFile, connection: sqlite3.Connection) -> None:
        self.name = str(file.path)
        self._file = file
        self._db = connection
        self._thread = ThreadPoolExecutor(1, "taskserver-archive")

    @classmethod
    async def open(cls, path: str, *, create: bool) -> SqliteArchive:
        """Lock and open a file, one that is being copied into too. Raises StoreOpenError."""
        # Commits wait for the disk when the log is folded into the file, and at the end: a copy that a power failure
        # takes back is made again.
        file = DatabaseFile(path, "normal", create=create, unfinished=True)
        return cls(file, await asyncio.to_thread(file.open))

    async def close(self) -> None:
        await self._do(self._db.close)
        self._thread.shutdown()
        self._file.unlock()

    # --- reading -----------------------------------------------------------------

    async def page(self, kind: Kind, after: Key) -> Sequence[Record]:
        return await self._do(self._page, kind, after)

    async def size(self) -> Size:
        sql = "SELECT count(*), coalesce(sum(count), 0), coalesce(sum(length(payload) + length(side)), 0) FROM chunk"
        return Size(*(await self._rows(sql))[0])

    async def last_log(self) -> int:
        ((number,),) = await self._rows("SELECT value FROM counter WHERE name = 'log'")
        return int(number)

    def _page(self, kind: Kind, after: Key) -> list[Record]:
        if kind is Kind.CHUNKS:
            cursor = self._db.execute(_CHUNKS, (chunk_key(*after) if after != START[kind] else -1,))
            return _read(cursor, _chunk_from_row, lambda row: len(row[3]) + len(row[4]))
        table = _TABLES[kind]
        sql = f"SELECT {table.read} FROM {table.name} WHERE {table.key} > ? ORDER BY {table.key}"
        return _read(self._db.execute(sql, after), table.from_row, table.width)

    # --- being filled ------------------------------------------------------------

    async def is_empty(self) -> bool:
        tables = [*(table.name for table in _TABLES.values()), "chunk"]
        for name in tables:
            if await self._rows(f"SELECT 1 FROM {name} LIMIT 1"):
                return False
        return True

    async def source(self) -> bytes | None:
        rows = await self._rows("SELECT source FROM copying")
        return rows[0][0] if rows else None

    async def begin(self, source: bytes) -> None:
        await self._write(("INSERT INTO copying VALUES (?)", [(source,)]))

    async def last_key(self, kind: Kind) -> Key:
        if kind is Kind.CHUNKS:
            rows = await self._rows("SELECT key >> 32, key & 4294967295 FROM chunk ORDER BY key DESC LIMIT 1")
        else:
            table = _TABLES[kind]
            rows = await self._rows(f"SELECT {table.key} FROM {table.name} ORDER BY {table.key} DESC LIMIT 1")
        return tuple(rows[0]) if rows else START[kind]

    async def load(self, kind: Kind, records: Sequence[Record]) -> None:
        if kind is Kind.CHUNKS:
            await self._write((INSERT_CHUNK, map(_chunk_row, records)))
        else:
            table = _TABLES[kind]
            await self._write((table.insert, map(table.to_row, records)))

    async def finish(self, last_log: int) -> None:
        await self._rows("PRAGMA synchronous = FULL")
        await self._write(
            ("UPDATE counter SET value = max(value, ?) WHERE name = 'log'", [(last_log,)]),
            ("DELETE FROM copying", [()]),
        )

    async def clear(self) -> None:
        names = [*(table.name for table in _TABLES.values()), "chunk", "copying"]
        await self._write(*((f"DELETE FROM {name}", [()]) for name in names))

    # --- plumbing ----------------------------------------------------------------

    async def _do(self, work: Callable[..., T], *arguments: Any) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        except sqlite3.Error as error:
            if "full" in str(error):
                raise StoreFull(f"cannot write {self.name}: the disk is full") from error
            raise StoreUnavailable(f"the database {self.name} failed: {error}") from error

    async def _rows(self, sql: str) -> list[Row]:
        return await self._do(lambda: self._db.execute(sql).fetchall())

    async def _write(self, *changes: tuple[str, Any]) -> None:
        """Do all of it in one transaction."""

        def write() -> None:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for sql, rows in changes:
                    self._db.executemany(sql, rows)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

        await self._do(write)


def _read(cursor: sqlite3.Cursor, from_row: Callable[[Row], Record], width: Callable[[Row], int]) -> list[Record]:
    """The next records, as many as make a page."""
    records, size = [], 0
    with closing(cursor):
        for row in cursor:
            records.append(from_row(row))
            size += width(row)
            if size >= PAGE_BYTES or len(records) == PAGE_ROWS:
                break
    return records
