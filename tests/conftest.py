"""Fixtures of all tests."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests import postgres as postgres_server
from tests.postgres import PostgresServer
from tests.server import Server, in_thread

DatabaseIn = Callable[[Path], Awaitable[str]]
NewServer = Callable[..., Server]

# For main journeys, races and kills: one process, several that act as one, and a node on PostgreSQL.
every_way_to_serve = pytest.mark.parametrize("serving", ["alone", "workers", "postgres"])


def pytest_configure() -> None:
    # Who is started behind a shell's `&` ignores the first two, with `nohup` the third: and so would all that the tests
    # start. A worker of xdist still ends with its controller, whose pipe it reads.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


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
def serving(request: pytest.FixtureRequest) -> str:
    """How servers serve: see ``every_way_to_serve``."""
    return "postgres" if request.config.getoption("--database") == "postgres" else "alone"


@pytest.fixture
def new_server(request: pytest.FixtureRequest, tmp_path: Path, serving: str) -> NewServer:
    """``new_server(*arguments)`` gives a server on an empty database, which has not been started yet."""

    if serving != "postgres" and request.config.getoption("--database") == "postgres":
        pytest.skip("this is done without --database")

    def new(*arguments: str) -> Server:
        if serving == "workers":
            arguments = ("--workers", "2", *arguments)
        server = Server(tmp_path, *arguments)
        if serving == "postgres":
            found: PostgresServer = request.getfixturevalue("postgres")
            server.use_database(in_thread(found.database(tmp_path)))
        return server

    return new


@pytest.fixture
def server(new_server: NewServer) -> Iterator[Server]:
    """A server process on an empty database."""
    with new_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server."""
    yield from postgres_server.start()
