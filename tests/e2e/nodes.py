"""Servers that share a PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.server import Server


@dataclass
class Nodes:
    """Two servers, which share a database and their first key."""

    a: Server
    b: Server


def make_nodes(folder: Path, *urls: str, arguments: tuple[str, ...] = ()) -> list[Server]:
    """Servers on these databases, not started yet, which share their first key."""
    nodes = []
    for number, url in enumerate(urls):
        place = folder / str(number)
        place.mkdir()
        server = Server(place, "--bootstrap-key-file", str(folder / "admin.key"), *arguments)
        server.database, server.key_file = url, folder / "admin.key"
        nodes.append(server)
    return nodes


def two_nodes(database: str, folder: Path) -> Iterator[Nodes]:
    """Two servers on the database with this URL."""
    a, b = make_nodes(folder, database, database)
    with a, b:
        yield Nodes(a, b)
