"""Readers: the connections that only read, beside the one that writes, in any process."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import aiosqlite

from taskserver.errors import StoreUnavailable
from taskserver.stores.sqlite.file import reader_uri
from taskserver.stores.sqlite.rows import Row

READERS = 2  # one more than one, so that a long catch-up does not stand in the way of a short look


class Readers:
    """Connections to a database file that a process which commits has open. Open them with ``open``."""

    def __init__(self, connections: Sequence[aiosqlite.Connection]) -> None:
        self._connections = connections
        self._next = itertools.cycle(connections)

    @classmethod
    async def open(cls, path: str) -> Readers:
        """Open the connections."""
        uri = reader_uri(Path(path))
        return cls([await aiosqlite.connect(uri, uri=True, isolation_level=None) for _ in range(READERS)])

    async def query(self, sql: str, arguments: Iterable[Any] = ()) -> list[Row]:
        """All rows of a query. Raises StoreUnavailable."""
        try:
            return list(await next(self._next).execute_fetchall(sql, arguments))
        except (sqlite3.Error, ValueError) as error:  # ValueError: aiosqlite's word for a closed connection
            raise StoreUnavailable(f"the database failed: {error}") from error

    async def close(self) -> None:
        """Close the connections. A repeat does nothing."""
        for connection in self._connections:
            await connection.close()
