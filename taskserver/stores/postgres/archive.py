"""A PostgreSQL schema as an archive."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from taskserver.errors import CannotCopy, StoreInUse, StoreOpenError
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
from taskserver.stores.postgres.connect import Address, Connection
from taskserver.stores.postgres.failures import as_answer, describe
from taskserver.stores.postgres.rows import (
    CHUNK_COLUMNS,
    TASK_COLUMNS,
    dag_from_row,
    dag_to_row,
    run_from_row,
    run_to_row,
    task_from_row,
    task_to_row,
)
from taskserver.stores.postgres.schema import NODES, migrate
from taskserver.stores.rows import DAG_COLUMNS, KEY_COLUMNS, RUN_COLUMNS, Row, key_from_row, key_to_row

CLOSE_TIMEOUT = 10.0  # seconds
LOCK_TIMEOUT = 2.0  # seconds; PostgreSQL takes a moment to notice that a client is gone that was killed
LOCK_PAUSE = 0.05


@dataclass(frozen=True)
class _Table:
    """How records of a kind lie: the table, its key, its columns, what they hold, and how wide a row is (SQL)."""

    name: str
    key: tuple[str, ...]
    columns: str
    from_row: Callable[[Row], Record]
    to_row: Callable[[Any], Row]
    width: str = "0"

    @property
    def page(self) -> str:
        """The query of a page. `octet_length` does not read what it measures, and so nothing else is read."""
        key = ", ".join(self.key)
        after = ", ".join(f"${number}" for number in range(1, len(self.key) + 1))
        behind = f"WHERE ({key}) > ({after}) ORDER BY {key} LIMIT {PAGE_ROWS}"
        few = f"SELECT *, {self.width} AS width FROM {self.name} {behind}"
        measured = f"SELECT *, sum(width) OVER (ORDER BY {key}) - width AS before FROM ({few}) AS few"
        return f"SELECT {self.columns} FROM ({measured}) AS measured WHERE before < {PAGE_BYTES} ORDER BY {key}"

    @property
    def last(self) -> str:
        """The query of the last key."""
        order = ", ".join(f"{column} DESC" for column in self.key)
        return f"SELECT {', '.join(self.key)} FROM {self.name} ORDER BY {order} LIMIT 1"


def _uuid(value: uuid.UUID | None) -> uuid.UUID | None:
    return None if value is None else uuid.UUID(int=value.int)  # the driver has a class of its own


_TABLES = {
    Kind.KEYS: _Table("api_key", ("id",), KEY_COLUMNS, key_from_row, key_to_row),
    Kind.SECRETS: _Table("secret", ("name",), "name, value", lambda row: Secret(*row), tuple),
    Kind.DAGS: _Table("dag", ("dag_id",), DAG_COLUMNS, dag_from_row, dag_to_row),
    Kind.RUNS: _Table(
        "run",
        ("log",),
        RUN_COLUMNS,
        run_from_row,
        run_to_row,
        "octet_length(conf) + coalesce(octet_length(metadata), 0) + octet_length(tasks)",
    ),
    Kind.TASKS: _Table(
        "task",
        ("log",),
        f"{TASK_COLUMNS}, result, sealed",
        lambda row: StoredTask(task_from_row(row[:-1]), row[-1]),
        lambda stored: (*task_to_row(stored.task), stored.sealed),
        "coalesce(octet_length(result), 0) + octet_length(error)",
    ),
    Kind.DISCARDED: _Table("discarded", ("log",), "log, run", lambda row: Discarded(row[0], _uuid(row[1])), tuple),
    Kind.CHUNKS: _Table(
        "chunk",
        ("log", "first"),
        CHUNK_COLUMNS,
        lambda row: StoredChunk(*row),
        tuple,
        "octet_length(payload) + octet_length(side)",
    ),
}


class PostgresArchive(Archive):
    """See ``Archive``. One connection, which must not lead through a pooler: its lock keeps nodes out."""

    def __init__(self, address: Address, connection: Connection) -> None:
        self.name = address.public
        self._db = connection

    @classmethod
    async def open(cls, url: str, *, create: bool) -> PostgresArchive:
        """Connect to a database on which no node works. Raises StoreOpenError, StoreInUse."""
        address = Address.parse(url)
        namespace = await migrate(address, create=create, copying=True)
        try:
            connection = await address.connect(command_timeout=None)  # counting may take long
        except (OSError, asyncio.TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise StoreOpenError(f"cannot open database {address.public}: {describe(error)}") from error
        archive = cls(address, connection)
        try:
            await archive._keep_nodes_out(int(namespace))
        except BaseException:
            await archive.close()
            raise
        return archive

    async def close(self) -> None:
        with contextlib.suppress(Exception):  # whatever is wrong with it, it is not needed any more
            await self._db.execute("SELECT pg_advisory_unlock_all()")
        with contextlib.suppress(Exception):
            await self._db.close(timeout=CLOSE_TIMEOUT)

    # --- reading -----------------------------------------------------------------

    async def page(self, kind: Kind, after: Key) -> Sequence[Record]:
        table = _TABLES[kind]
        return [table.from_row(row) for row in await self._rows(table.page, *after)]

    async def size(self) -> Size:
        sql = (
            "SELECT count(*), coalesce(sum(count), 0)::bigint,"
            " coalesce(sum(octet_length(payload) + octet_length(side)), 0)::bigint FROM chunk"
        )
        return Size(*(await self._rows(sql))[0])

    async def last_log(self) -> int:
        ((number,),) = await self._rows("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM log_number")
        return int(number)

    # --- being filled ------------------------------------------------------------

    async def is_empty(self) -> bool:
        for table in _TABLES.values():
            if await self._rows(f"SELECT 1 FROM {table.name} LIMIT 1"):
                return False
        return True

    async def source(self) -> bytes | None:
        rows = await self._rows("SELECT source FROM copying")
        return rows[0][0] if rows else None

    async def begin(self, source: bytes) -> None:
        async with self._transaction():
            await self._db.execute("INSERT INTO copying VALUES ($1)", source)

    async def last_key(self, kind: Kind) -> Key:
        rows = await self._rows(_TABLES[kind].last)
        return tuple(rows[0]) if rows else START[kind]

    async def load(self, kind: Kind, records: Sequence[Record]) -> None:
        table = _TABLES[kind]
        rows = [table.to_row(record) for record in records]
        async with self._transaction():
            try:
                await self._db.copy_records_to_table(table.name, records=rows, columns=table.columns.split(", "))
            except asyncpg.CharacterNotInRepertoireError as error:
                raise CannotCopy(f"among the {kind.value} is a text that PostgreSQL cannot keep: {error}") from error

    async def finish(self, last_log: int) -> None:
        last_log = max(last_log, await self.last_log())
        async with self._transaction():
            await self._db.execute("SELECT setval('log_number', greatest($1::bigint, 1), $1 > 0)", last_log)
            await self._db.execute("DELETE FROM copying")
        # The planner knows nothing of tables that have just been filled.
        async with self._transaction():
            await self._db.execute(f"ANALYZE {', '.join(table.name for table in _TABLES.values())}")

    async def clear(self) -> None:
        async with self._transaction():
            await self._db.execute(f"TRUNCATE copying, {', '.join(table.name for table in _TABLES.values())}")

    # --- plumbing ----------------------------------------------------------------

    async def _keep_nodes_out(self, namespace: int) -> None:
        """For as long as the connection lives. Raises StoreInUse if there are some."""
        for _ in range(int(LOCK_TIMEOUT / LOCK_PAUSE)):
            ((locked,),) = await self._rows(f"SELECT pg_try_advisory_lock({NODES})", namespace)
            if locked:
                return
            await asyncio.sleep(LOCK_PAUSE)
        raise StoreInUse(f"cannot open database {self.name}: taskservers are connected to it; stop them first")

    async def _rows(self, sql: str, *arguments: Any) -> list[Row]:
        try:
            return await self._db.fetch(sql, *arguments)
        except Exception as error:
            raise as_answer(error) from error

    @contextlib.asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        try:
            async with self._db.transaction(isolation="read_committed", readonly=False):
                yield
        except Exception as error:
            raise as_answer(error) from error
