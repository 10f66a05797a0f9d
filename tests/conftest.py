"""Fixtures of all tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests import postgres as postgres_server
from tests.postgres import PostgresServer
from tests.server import Server, running

DatabaseIn = Callable[[Path], Awaitable[str]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--database",
        choices=["sqlite", "postgres"],
        default="sqlite",
        help="What the tests' servers keep tasks in.",
    )


@pytest.fixture
def database_in(request: pytest.FixtureRequest) -> DatabaseIn:
    """Gives the URL of a database for a folder, empty at first, of the kind that --database says."""
    if request.config.getoption("--database") == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        return server.database

    async def sqlite(folder: Path) -> str:
        return f"sqlite:///{folder}/tasks.db"

    return sqlite


@pytest.fixture
def one_process(request: pytest.FixtureRequest) -> None:
    """For tests of what is answered from memory, which needs a process that hears of all changes."""
    if request.config.getoption("--database") == "postgres":
        pytest.skip("other nodes may have changed what this one remembers: it reads")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server process on an empty database."""
    yield from running(tmp_path)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server."""
    yield from postgres_server.start()
