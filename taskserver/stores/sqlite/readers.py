"""Readers: the connections that only read, beside the one that writes, in any process."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Concatenate, ParamSpec, TypeVar

import aiosqlite

from taskserver.errors import StoreUnavailable
from taskserver.meters import Meters
from taskserver.stores.rows import Row
from taskserver.stores.sqlite.file import reader_uri

READERS = 2  # one more than one, so that a long list does not stand in the way of a short look
# Pages of lines are read by threads of their own, which decompress them as well: the event loop has one hop for all of
# it, and a look at a task's head does not queue behind megabytes.
PAGE_READERS = 2

P = ParamSpec("P")
T = TypeVar("T")


class Readers:
    """Connections to a database file that a process which commits has open. Open them with ``open``."""

    def __init__(
        self, connections: Sequence[aiosqlite.Connection], idle: Sequence[sqlite3.Connection], meters: Meters
    ) -> None:
        self._connections = connections
        self._meters = meters
        self._next = itertools.cycle(connections)
        self._threads = ThreadPoolExecutor(len(idle), "taskserver-reader")
        self._idle: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        for connection in idle:
            self._idle.put(connection)

    @classmethod
    async def open(cls, path: str, meters: Meters | None = None) -> Readers:
        """Open the connections."""
        uri = reader_uri(Path(path))
        connections = [await aiosqlite.connect(uri, uri=True, isolation_level=None) for _ in range(READERS)]
        # Each is used by one thread at a time, but not always by the same.
        idle = [
            sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False) for _ in range(PAGE_READERS)
        ]
        return cls(connections, idle, meters or Meters())

    async def query(self, sql: str, arguments: Iterable[Any] = ()) -> list[Row]:
        """All rows of a query. Raises StoreUnavailable."""
        try:
            return list(await next(self._next).execute_fetchall(sql, arguments))
        except (sqlite3.Error, ValueError) as error:  # ValueError: aiosqlite's word for a closed connection
            raise self._failed(error) from error

    async def run(self, read: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What ``read`` returns, which is run in a thread with a connection of its own. Raises StoreUnavailable."""
        try:
            reading = self._threads.submit(self._read, lambda connection: read(connection, *args, **kwargs))
        except RuntimeError as error:  # its word for being closed
            raise self._failed(error) from error
        try:
            return await asyncio.wrap_future(reading)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._idle.get_nowait()  # there are as many as threads
        try:
            return read(connection)
        finally:
            self._idle.put(connection)

    async def close(self) -> None:
        """Close the connections. A repeat does nothing."""
        for connection in self._connections:
            await connection.close()
        await asyncio.to_thread(self._threads.shutdown)
        while not self._idle.empty():
            self._idle.get_nowait().close()

    def _failed(self, error: Exception) -> StoreUnavailable:
        failure = StoreUnavailable(f"the database failed: {error}")
        self._meters.store_failed(failure)
        return failure
