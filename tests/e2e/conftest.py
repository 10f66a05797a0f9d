"""Fixtures of the tests through real processes, and the figures that they report at the end of a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.commands import Commands
from tests.e2e.nodes import Nodes, two_nodes
from tests.postgres import PostgresServer
from tests.server import Server

Measured = Callable[[str, float, float], None]
FIGURE = "measured"


@pytest.fixture
def taskserver(server: Server, tmp_path: Path) -> Commands:
    """``taskserver …`` commands that find the server."""
    return Commands(server, tmp_path)


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
