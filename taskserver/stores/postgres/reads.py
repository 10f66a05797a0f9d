"""Reading: what needs no transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

from taskserver.encoding import cut
from taskserver.errors import TaskServerError
from taskserver.model import Chunk
from taskserver.stores.postgres.connect import Pool, borrowed
from taskserver.stores.postgres.failures import as_answer
from taskserver.stores.postgres.rows import FIND_CHUNKS, Row, chunk_from_row, is_packed

K = TypeVar("K", bound=Hashable)
H = TypeVar("H")

FIRST_ROWS = 4  # four full chunks fill a page; if they are small, their average tells how many more to ask for
MAX_ROWS = 4096
MAX_HEADS = 200  # tasks read with one statement: each may have a result of a megabyte


class Readers:
    """Connections that only read."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def query(self, sql: str, *arguments: Any) -> Sequence[Row]:
        """The rows of a query; none where it looks for a text that cannot be stored. Raises StoreUnavailable."""
        if not all(_storable(argument) for argument in arguments if isinstance(argument, str)):
            return []
        try:
            async with borrowed(self._pool) as connection:
                return await connection.fetch(sql, *arguments)
        except Exception as error:
            raise as_answer(error) from error

    async def snapshot(self, *queries: tuple[str, Sequence[Any]]) -> list[Sequence[Row]]:
        """The rows of several queries, all of one moment. Raises StoreUnavailable."""
        try:
            async with (
                borrowed(self._pool) as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                return [await connection.fetch(sql, *arguments) for sql, arguments in queries]
        except Exception as error:
            raise as_answer(error) from error

    async def chunks(self, log: int, first: int, end: int, max_bytes: int) -> list[Chunk]:
        """See ``Store.read``."""
        chunks: list[Chunk] = []
        size, limit = 0, FIRST_ROWS
        while first < end and (size < max_bytes or not chunks):
            rows = await self.query(FIND_CHUNKS, log, first, end, limit)
            for stored in await _unpacked(rows):
                chunk = cut(stored, first, end)
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


async def _unpacked(rows: Sequence[Row]) -> list[Chunk]:
    """Chunks of rows of FIND_CHUNKS, in a thread if there is something to decompress."""
    if any(is_packed(row) for row in rows):
        return await asyncio.to_thread(lambda: [chunk_from_row(row) for row in rows])
    return [chunk_from_row(row) for row in rows]


def _storable(text: str) -> bool:
    """Whether PostgreSQL can keep a text: neither NUL nor lone surrogates."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


class Heads(Generic[K, H]):
    """Reads tasks or runs, all that are asked for at a time with one statement.

    What is asked for while a statement is under way goes into the next one, never
    into that one: an answer is not older than its question. So thousands of
    waiters that are woken at once cost two statements.

    Args:
        sql: selects the heads whose keys are in the list ``$1``, with the key first.
        head: a head from its row, the key left out.
        missing: the error for a key that there is not.
    """

    def __init__(
        self, readers: Readers, sql: str, head: Callable[[Row], H], missing: Callable[[K], TaskServerError]
    ) -> None:
        self._readers = readers
        self._sql = sql
        self._head = head
        self._missing = missing
        self._wanted: dict[K, asyncio.Future[H]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def get(self, key: K) -> H:
        """A head as committed last. Raises ``missing``, StoreUnavailable."""
        if isinstance(key, str) and not _storable(key):
            raise self._missing(key)
        future = self._wanted.get(key)
        if future is None:
            future = self._wanted[key] = asyncio.get_running_loop().create_future()
            if self._reading is None:
                self._reading = asyncio.create_task(self._read())
        # Shielded, because one who leaves must not take the others' answer along.
        return await asyncio.shield(future)

    async def close(self) -> None:
        """Return when nothing is being read any more."""
        while self._reading is not None:
            await asyncio.wait([self._reading])

    async def _read(self) -> None:
        while self._wanted:
            wanted: dict[K, asyncio.Future[H]] = {}
            while self._wanted and len(wanted) < MAX_HEADS:
                key, future = self._wanted.popitem()
                wanted[key] = future
            try:
                for key, *row in await self._readers.query(self._sql, list(wanted)):
                    wanted.pop(key).set_result(self._head(row))
            except Exception as error:
                answer = as_answer(error)
                for future in wanted.values():
                    _fail(future, answer)
            else:
                for key, future in wanted.items():
                    _fail(future, self._missing(key))
        self._reading = None


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    future.set_exception(error)
    future.exception()  # if all who asked have left, nobody will
