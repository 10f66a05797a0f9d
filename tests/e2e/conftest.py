"""Fixtures of the tests through real processes, and the figures that they report at the end of a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.commands import Commands
from tests.e2e.network import Network
from tests.e2e.nodes import Nodes, make_nodes, two_nodes
from tests.e2e.pg_world import World
from tests.e2e.private_postgres import PrivatePostgres
from tests.postgres import PostgresServer
from tests.server import Server

Measured = Callable[[str, float, float], None]
FIGURE = "measured"


@pytest.fixture
def taskserver(server: Server, tmp_path: Path) -> Commands:
    """``taskserver …`` commands that find the server."""
    return Commands(server, tmp_path)


@pytest.fixture(scope="package")
def postgres_server() -> Iterator[PrivatePostgres]:
    """A PostgreSQL server for tests that stop and kill it; it runs when a test begins."""
    with PrivatePostgres() as server:
        yield server


@pytest.fixture
def private_postgres(postgres_server: PrivatePostgres) -> PrivatePostgres:
    """The same with an empty database."""
    postgres_server.start()  # the test before may have failed while it was down
    postgres_server.new_database()
    return postgres_server


@pytest.fixture
def world(private_postgres: PrivatePostgres, tmp_path: Path) -> Iterator[World]:
    """Two nodes on a PostgreSQL of their own."""
    with Network(private_postgres.port) as network:
        nodes = make_nodes(tmp_path, private_postgres.url_at(network.port), private_postgres.url)
        with nodes[0], nodes[1]:
            yield World(private_postgres, network, nodes)


@pytest.fixture
def nodes(postgres: PostgresServer, tmp_path: Path) -> Iterator[Nodes]:
    """Two servers on one PostgreSQL."""
    yield from two_nodes(asyncio.run(postgres.database(tmp_path)), tmp_path)


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Report ``measured(what, seconds, goal)``.

    The figure is for people: a goal that is missed on a machine under load must not fail a test.
    """

    def note(what: str, seconds: float, goal: float) -> None:
        request.node.user_properties.append((FIGURE, f"{what} after {seconds:.3f} s (goal: {goal:g} s)"))

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures below the tests' results."""
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    figures = [text for report in reports for name, text in report.user_properties if name == FIGURE]
    if figures:
        terminalreporter.section("measured")
        for figure in figures:
            terminalreporter.line(figure)
