"""Connections: how a node reaches its database."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg

from taskserver.errors import StoreOpenError
from taskserver.stores.postgres.failures import Lost, OutcomeUnknown, describe

APPLICATION_NAME = "taskserver"
CONNECT_TIMEOUT = 5.0  # seconds for a connection to be made
ACQUIRE_TIMEOUT = 5.0  # seconds for a connection of a pool to become free; then the answer is 503
COMMAND_TIMEOUT = 10.0  # seconds for a statement; a network that was cut is noticed by this
UNDO_TIMEOUT = 2.0  # seconds for a rollback; then the connection is given up
PLAN_LIFETIME = 30  # seconds; a plan that was made for a small table reads all of it, however large it has become
LOCK_TIMEOUT_MS = 5_000  # another node's transaction takes milliseconds, unless that node was cut off
IDLE_TIMEOUT_MS = 15_000  # PostgreSQL ends a transaction whose node is silent for so long, and frees its locks

# One round trip: the simple protocol takes several statements. SET LOCAL ends with the transaction, so that
# nothing is left on a connection that a pooler gives to somebody else.
BEGIN = (
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;"
    f" SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS};"
    f" SET LOCAL idle_in_transaction_session_timeout = {IDLE_TIMEOUT_MS}"
)


class Connection(Protocol):
    """What we use of asyncpg's connections, which have no types of their own."""

    async def execute(self, sql: str, *arguments: Any, timeout: float | None = None) -> str: ...

    async def executemany(self, sql: str, arguments: Iterable[Sequence[Any]]) -> None: ...

    async def fetch(self, sql: str, *arguments: Any, timeout: float | None = None) -> list[Sequence[Any]]: ...

    async def fetchrow(self, sql: str, *arguments: Any) -> Sequence[Any] | None: ...

    async def fetchval(self, sql: str, *arguments: Any) -> Any: ...

    async def copy_records_to_table(
        self, table: str, *, records: Iterable[Sequence[Any]], columns: Sequence[str]
    ) -> str: ...

    def transaction(self, *, isolation: str, readonly: bool) -> AbstractAsyncContextManager[None]: ...

    async def add_listener(self, channel: str, callback: Callable[..., None]) -> None: ...

    def add_termination_listener(self, callback: Callable[..., None]) -> None: ...

    def is_closed(self) -> bool: ...

    async def close(self, *, timeout: float | None = None) -> None: ...

    def terminate(self) -> None: ...


class Pool(Protocol):
    """What we use of asyncpg's pools."""

    async def acquire(self, *, timeout: float) -> Connection: ...

    async def release(self, connection: Connection) -> None: ...

    async def close(self) -> None: ...

    def terminate(self) -> None: ...


@dataclass(frozen=True)
class Address:
    """A database's URL, and what we ourselves understand of its query.

    ``statement_cache_size=0`` is for a pooler in transaction mode that knows no
    prepared statements (PgBouncer before 1.21, or its ``max_prepared_statements``
    0). All else is libpq's, such as ``sslmode``, or a setting of the session,
    such as ``search_path``.
    """

    dsn: str
    statement_cache_size: int = 100

    @classmethod
    def parse(cls, url: str) -> Address:
        """Raises StoreOpenError if it is not the URL of a PostgreSQL database."""
        parts = urlsplit(url)
        settings = dict(parse_qsl(parts.query))
        size = settings.pop("statement_cache_size", "100")
        if parts.scheme not in ("postgresql", "postgres") or not size.isdigit():
            raise StoreOpenError(f"cannot open database {_public(url)!r}: it must look like postgresql://host/database")
        query = f"?{urlencode(settings)}" if settings else ""
        return cls(f"{parts.scheme}://{parts.netloc}{parts.path}{query}", int(size))

    @property
    def public(self) -> str:
        """The URL without what must not be shown."""
        return _public(self.dsn)

    def _options(
        self, command_timeout: float | None = COMMAND_TIMEOUT, application_name: str = APPLICATION_NAME
    ) -> dict[str, Any]:
        return {
            "statement_cache_size": self.statement_cache_size,
            "max_cached_statement_lifetime": PLAN_LIFETIME,
            "timeout": CONNECT_TIMEOUT,
            "command_timeout": command_timeout,
            "server_settings": {"application_name": application_name},
        }

    async def connect(
        self, command_timeout: float | None = COMMAND_TIMEOUT, application_name: str = APPLICATION_NAME
    ) -> Connection:
        """A connection of its own. PostgreSQL shows the application's name to who looks at its connections."""
        connection: Connection = await asyncpg.connect(self.dsn, **self._options(command_timeout, application_name))
        return connection

    async def open_pool(self, size: int) -> Pool:
        """At most ``size`` connections, made when they are needed."""
        # None is kept in stock: asyncpg would try to replace it without a pause during an outage, and log each failure.
        pool: Pool = await asyncpg.create_pool(
            self.dsn, min_size=0, max_size=size, reset=_leave_as_it_is, **self._options()
        )
        return pool


async def _leave_as_it_is(connection: Connection) -> None:
    """Nothing that we do to a connection outlives a transaction, so its reset would be a round trip for nothing."""


@asynccontextmanager
async def borrowed(pool: Pool) -> AsyncIterator[Connection]:
    """A connection of a pool. Raises TimeoutError if none becomes free in time."""
    connection = await pool.acquire(timeout=ACQUIRE_TIMEOUT)
    try:
        yield connection
    except (*Lost, OutcomeUnknown, asyncio.CancelledError):
        # Something may be under way on it. Nobody waits for its end, which a network that was cut would never tell: its
        # release would, and then raise an error of its own in the place of this one.
        give_up(connection)
        raise
    finally:
        # Shielded, so that a caller who leaves does not leave a connection half returned.
        await asyncio.shield(pool.release(connection))


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Connection]:
    """A transaction on a connection of a pool: committed at the end, undone if an error comes out of it.

    Raises OutcomeUnknown if the connection breaks in the commit, and what ``borrowed`` and the driver raise.
    """
    async with borrowed(pool) as connection:
        await connection.execute(BEGIN)
        try:
            yield connection
        except (*Lost, asyncio.CancelledError):
            raise  # the connection is given up, which undoes everything
        except BaseException:
            await _undo(connection)
            raise
        try:
            await connection.execute("COMMIT")
        except Lost as error:
            raise OutcomeUnknown(describe(error)) from error


async def _undo(connection: Connection) -> None:
    try:
        if not connection.is_closed():
            await connection.execute("ROLLBACK", timeout=UNDO_TIMEOUT)
    except Exception:  # what matters is the error that led here
        give_up(connection)


def give_up(connection: Connection) -> None:
    """Close a connection of a pool, whatever is under way on it; the pool makes another one when it needs one."""
    with contextlib.suppress(asyncpg.InterfaceError):  # it was lost, so the pool has it back already
        connection.terminate()


def _public(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
