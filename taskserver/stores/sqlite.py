"""SqliteStore: one file, one process that writes.

Writing goes through the group committer's connection and thread; reading goes
through connections of their own, which WAL mode lets read beside it.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import aiosqlite

from taskserver.config import MAX_LINE_NUMBER
from taskserver.encoding import cut, dumps
from taskserver.errors import KeyNotFound, StoreUnavailable, TaskNotFound
from taskserver.model import ApiKey, Chunk, Lines, NewTask, Outcome, Task, TaskFilter
from taskserver.store import Appended, Change, Listener, Store
from taskserver.stores.committer import GroupCommitter
from taskserver.stores.sqlite_file import DatabaseFile
from taskserver.stores.sqlite_rows import (
    FIND_CHUNKS,
    KEY_COLUMNS,
    TASK_COLUMNS,
    Row,
    chunk_from_row,
    find_chunks_arguments,
    join_chunks,
    key_from_row,
    sealed_row,
    split_chunk,
    task_from_row,
)
from taskserver.stores.sqlite_transaction import SqliteTransaction

READERS = 2  # one more than one, so that a long catch-up does not stand in the way of a short look
FIRST_ROWS = 4  # four full chunks fill a page; if they are small, their average tells how many more to ask for
MAX_ROWS = 4096
SEAL_BYTES = 1024 * 1024  # of output per commit of the sealer: what waits behind it waits some milliseconds

# json_each and not json_extract: a label's name may hold quotes and dots.
_HAS_LABEL = (
    "EXISTS (SELECT 1 FROM json_each(task.labels) AS has, json_each(?) AS wanted"
    " WHERE has.key = wanted.key AND has.value = wanted.value)"
)

T = TypeVar("T")


class SqliteStore(Store):
    """See ``Store``. Open it with ``open``; it belongs to the event loop that did."""

    def __init__(self, file: DatabaseFile, writer: sqlite3.Connection, readers: Sequence[aiosqlite.Connection]) -> None:
        self._file = file
        self._readers = readers
        self._next_reader = itertools.cycle(readers)
        self._listener: Listener = _nobody
        self._committer = GroupCommitter(writer, SqliteTransaction, self._report)

    @classmethod
    async def open(cls, path: str, *, synchronous: str = "full") -> SqliteStore:
        """Open, create or migrate the database file. Raises StoreOpenError; see ``open_store``."""
        file = DatabaseFile(path, synchronous)
        writer = await asyncio.to_thread(file.open)
        readers = [await aiosqlite.connect(file.reader_uri, uri=True, isolation_level=None) for _ in range(READERS)]
        return cls(file, writer, readers)

    def listen(self, listener: Listener) -> None:
        self._listener = listener

    async def ping(self) -> None:
        await self._query("SELECT 1")

    async def close(self) -> None:
        await self._committer.close()
        for reader in self._readers:
            await reader.close()
        self._file.unlock()

    # --- tasks -------------------------------------------------------------------

    async def create_task(self, new: NewTask, now: int) -> Task:
        return await self._change(lambda tx: tx.create_task(new, now))

    async def get_task(self, task_id: str) -> Task:
        rows = await self._query(f"SELECT {TASK_COLUMNS}, result FROM task WHERE id = ?", (task_id,))
        if not rows:
            raise TaskNotFound(f"there is no task {task_id!r}")
        return task_from_row(rows[0])

    async def list_tasks(self, where: TaskFilter, limit: int, before: int | None = None) -> list[Task]:
        conditions: list[tuple[str, Any]] = [("log < ?", before)] if before is not None else []
        if where.owner is not None:
            conditions.append(("owner = ?", where.owner))
        if where.state is not None:
            conditions.append(("state = ?", where.state.value))
        if where.name is not None:
            conditions.append(("name = ?", where.name))
        conditions += [(_HAS_LABEL, dumps({name: value}).decode()) for name, value in where.labels.items()]
        clause = " WHERE " + " AND ".join(text for text, _ in conditions) if conditions else ""
        sql = f"SELECT {TASK_COLUMNS} FROM task{clause} ORDER BY log DESC LIMIT ?"
        rows = await self._query(sql, (*(value for _, value in conditions), limit))
        return [task_from_row(row) for row in rows]

    async def append(self, task_id: str, lines: Lines, first: int | None, now: int) -> Appended:
        return await self._change(lambda tx: tx.append(task_id, lines, first, now))

    async def finish(
        self, task_id: str, outcome: Outcome, now: int, lines: Lines | None = None, first: int | None = None
    ) -> Task:
        return await self._change(lambda tx: tx.finish(task_id, outcome, now, lines, first))

    async def heartbeat(self, task_id: str, now: int) -> Task:
        return await self._change(lambda tx: tx.heartbeat(task_id, now))

    async def request_cancel(self, task_id: str, now: int) -> Task:
        return await self._change(lambda tx: tx.request_cancel(task_id, now))

    async def delete_task(self, task_id: str) -> None:
        await self._change(lambda tx: tx.delete_task(task_id))

    async def expire_leases(self, now: int) -> list[Task]:
        # Looked for by a reader first: most of the time nothing is overdue, and a commit is not free.
        overdue = await self._query("SELECT 1 FROM task WHERE lease_expires_at <= ? LIMIT 1", (now,))
        return await self._change(lambda tx: tx.expire_leases(now)) if overdue else []

    async def renew_leases(self, now: int) -> None:
        await self._change(lambda tx: tx.renew_leases(now))

    # --- output ------------------------------------------------------------------

    async def read(self, log: int, first: int, end: int, max_bytes: int) -> list[Chunk]:
        chunks: list[Chunk] = []
        size, limit = 0, FIRST_ROWS
        while first < end and size < max_bytes:
            rows = await self._query(FIND_CHUNKS, find_chunks_arguments(log, first, end, limit))
            for row in rows:
                chunk = cut(chunk_from_row(row), first, end)
                if not chunk.count:  # it ends where we would begin: there is nothing at `first` yet
                    return chunks
                chunks.append(chunk)
                size += len(chunk.payload)
                first = chunk.end
                if size >= max_bytes:
                    break
            if len(rows) < limit:
                break
            average = size // len(chunks) + 1
            limit = max(1, min((max_bytes - size) // average + 1, MAX_ROWS))
        return chunks

    async def unsealed(self, limit: int) -> list[Task]:
        sql = f"SELECT {TASK_COLUMNS} FROM task WHERE finished_at IS NOT NULL AND sealed = 0 ORDER BY log LIMIT ?"
        return [task_from_row(row) for row in await self._query(sql, (limit,))]

    async def seal(self, log: int) -> None:
        first = 0
        while chunks := await self.read(log, first, MAX_LINE_NUMBER, SEAL_BYTES):
            # Compression runs in a thread: it takes milliseconds and lets go of the interpreter.
            rows = await asyncio.to_thread(_seal_rows, log, chunks)
            end = chunks[-1].end
            await self._change(
                functools.partial(SqliteTransaction.replace_chunks, log=log, rows=rows, first=first, end=end)
            )
            first = end
        await self._change(lambda tx: tx.mark_sealed(log))

    # --- keys --------------------------------------------------------------------

    async def add_key(self, key: ApiKey) -> None:
        await self._change(lambda tx: tx.add_key(key))

    async def get_key(self, key_id: str) -> ApiKey:
        rows = await self._query(f"SELECT {KEY_COLUMNS} FROM api_key WHERE id = ?", (key_id,))
        if not rows:
            raise KeyNotFound(f"there is no key with id {key_id!r}")
        return key_from_row(rows[0])

    async def list_keys(self) -> list[ApiKey]:
        rows = await self._query(f"SELECT {KEY_COLUMNS} FROM api_key ORDER BY created_at, id")
        return [key_from_row(row) for row in rows]

    async def revoke_key(self, key_id: str, now: int) -> ApiKey:
        return await self._change(lambda tx: tx.revoke_key(key_id, now))

    # --- plumbing ----------------------------------------------------------------

    def _change(self, operation: Callable[[SqliteTransaction], T]) -> asyncio.Future[T]:
        return self._committer.submit(operation)

    def _report(self, changes: Sequence[Change]) -> None:
        self._listener(changes)

    async def _query(self, sql: str, arguments: Iterable[Any] = ()) -> list[Row]:
        try:
            return list(await next(self._next_reader).execute_fetchall(sql, arguments))
        except (sqlite3.Error, ValueError) as error:  # ValueError: aiosqlite's word for a closed connection
            raise StoreUnavailable(f"the database failed: {error}") from error


def _nobody(changes: Sequence[Change]) -> None:
    """The listener of a store that nobody listens to."""


def _seal_rows(log: int, chunks: Sequence[Chunk]) -> list[Row]:
    return [sealed_row(log, part) for part in split_chunk(join_chunks(chunks))]
