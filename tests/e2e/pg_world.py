"""Two nodes on one PostgreSQL, a load on them, and whether anything is left when it is over."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.load import LEASE, Load
from tests.e2e.network import Network
from tests.e2e.private_postgres import PrivatePostgres
from tests.server import Server, until

ANSWER_LIMIT = 16.0  # seconds for the answer to any change: 10 as a rule (committer.PATIENCE), and a machine under load
CONNECTIONS = 12  # of a node to its database: 5 that write, 6 that read, 1 that listens
OTHER_FILES = 20  # that a node may have open after a load beside what it had before: there is some slack in clients
MEMORY = 64 * 1024  # kB that a node may have grown by
THEIRS = "application_name LIKE 'taskserver%' AND datname = current_database()"
LISTENING = "application_name LIKE '% listening'"


@dataclass
class World:
    """Two nodes on one database. The first one reaches it through ``network``, and both are reached directly."""

    postgres: PrivatePostgres
    network: Network
    nodes: list[Server]

    def connections(self, which: str = "true") -> list[int]:
        """The nodes' connections for which a condition on pg_stat_activity holds, by their processes' ids."""
        sql = f"SELECT pid FROM pg_stat_activity WHERE {THEIRS} AND {which} ORDER BY backend_start"
        return [row[0] for row in self.postgres.fetch(sql)]

    def terminate(self, which: str = "true") -> int:
        """End the nodes' connections for which a condition holds; how many there were."""
        sql = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {THEIRS} AND {which}"
        return len(self.postgres.fetch(sql))

    @contextlib.asynccontextmanager
    async def load(self, lease: float = LEASE) -> AsyncIterator[Load]:
        """A load while the context lasts, which must go on in the end and leave nothing behind."""
        seed = random.SystemRandom().getrandbits(32)
        files = [open_files(node) for node in self.nodes]
        memory = [memory_of(node) for node in self.nodes]
        try:
            async with Load(self.nodes, seed, lease=lease, may_refuse=True) as load:
                await load.goes_on()
                yield load
                await load.goes_on()
                figures = await load.finish()
                assert figures.slowest < ANSWER_LIMIT, str(figures)
            await asyncio.to_thread(self._check_rest, files, memory)
        except BaseException as error:
            logs = "\n".join(f"--- node {node.port}:\n{node.log[-6000:]}" for node in self.nodes)
            raise AssertionError(f"{error!r}; seed {seed}; {load.figures}\n{logs}") from error

    def _check_rest(self, files: list[int], memory: list[int]) -> None:
        """Nothing is left of the load, nor of what befell the nodes."""
        until(lambda: not self.connections("state LIKE 'idle in transaction%'"), "no transaction is left open")
        until(lambda: len(self.connections()) <= CONNECTIONS * len(self.nodes), "connections of earlier are closed")
        for node, files_before, memory_before in zip(self.nodes, files, memory, strict=True):
            bound = files_before + CONNECTIONS + OTHER_FILES
            until(lambda node=node, bound=bound: open_files(node) <= bound, "files are closed")  # type: ignore[misc]
            assert memory_of(node) - memory_before < MEMORY
            until(lambda node=node: node.get("/readyz").status == 200, "the node is ready")  # type: ignore[misc]
            # Whatever the database does is expected, and told in one line.
            assert "Traceback" not in node.log
            assert "never retrieved" not in node.log


def open_files(node: Server) -> int:
    assert node.process is not None
    return len(list(Path(f"/proc/{node.process.pid}/fd").iterdir()))


def memory_of(node: Server) -> int:
    """In kB."""
    assert node.process is not None
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    return next(int(row.split()[1]) for row in status.splitlines() if row.startswith("VmRSS:"))


async def happens(condition: Callable[[], bool], load: Load, limit: float = 40.0) -> None:
    """Return when a condition holds, with the load still in order."""
    deadline = time.monotonic() + limit
    while not await asyncio.to_thread(condition):
        load.raise_failures()
        assert time.monotonic() < deadline, str(load.figures)
        await asyncio.sleep(0.02)
