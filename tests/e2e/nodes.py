"""Two servers on one PostgreSQL."""

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


def two_nodes(database: str, folder: Path) -> Iterator[Nodes]:
    """Two servers on the database with this URL."""
    key_file = folder / "admin.key"
    servers = []
    for name in ("a", "b"):
        own = folder / name
        own.mkdir()
        server = Server(own, "--bootstrap-key-file", str(key_file))
        server.database, server.key_file = database, key_file
        servers.append(server)
    with servers[0] as a, servers[1] as b:
        yield Nodes(a, b)
