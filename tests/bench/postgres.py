"""PostgreSQL as the figures about it need it: the server, nodes of ours on it, and programs that use it plainly."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.bench.load import LoadError
from tests.bench.servers import REPOSITORY, TICKS, Bench, Target
from tests.postgres import PostgresServer, start
from tests.server import Server, children

OWN = "postgres"  # what --database says for a server that the bench starts itself
PROGRAM_LIMIT = 60.0  # seconds


@dataclass(frozen=True)
class Node(Target):
    """A node of ours, and the database that it shares with others (its URL)."""

    database: str


@dataclass(frozen=True)
class Nodes(Target):
    """Some nodes as one target; its port is the first one's."""

    others: tuple[Target, ...]

    def cpu(self) -> float:
        return super().cpu() + sum(other.cpu() for other in self.others)


@contextlib.contextmanager
def server(database: str | None) -> Iterator[PostgresServer | None]:
    """The server that ``--database`` names: none, one of our own, or that of a URL. Raises LoadError."""
    if database is None or database != OWN:
        yield None if database is None else PostgresServer(database)
        return
    with contextlib.ExitStack() as stack:
        try:
            own = stack.enter_context(contextlib.contextmanager(start)())
        except (pytest.skip.Exception, pytest.fail.Exception) as error:
            raise LoadError(str(error)) from None
        yield own


async def describe(postgres: PostgresServer) -> dict[str, Any]:
    """What the numbers depend on."""
    settings = {}
    async with connected(postgres.url) as connection:
        for name in ("server_version", "fsync", "synchronous_commit", "shared_buffers"):
            settings[f"PostgreSQL {name}"] = await connection.fetchval("SELECT current_setting($1)", name)
    settings["PostgreSQL version"] = settings.pop("PostgreSQL server_version")
    return settings


async def first_process(postgres: PostgresServer) -> int | None:
    """The server's first process, if it runs on this machine and may be looked at."""
    async with connected(postgres.url) as connection:
        folder = await connection.fetchval("SELECT current_setting('data_directory', true)")
    return None if folder is None else _pid_in(Path(folder, "postmaster.pid"))


def _pid_in(file: Path) -> int | None:
    try:
        return int(file.read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return None


def cpu_of_all(process: int | None) -> float:
    """Seconds of CPU of a process and its children, those that have ended included; 0 if it is not known."""
    if process is None:
        return 0.0
    return sum(_cpu(each) for each in (process, *children(process)))


def _cpu(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has just ended, and counts as its parent's from now on
        return 0.0
    return sum(int(field) for field in fields[11:15]) / TICKS  # utime, stime, cutime, cstime: proc(5)


@contextlib.asynccontextmanager
async def nodes(bench: Bench, count: int, *command: str) -> AsyncIterator[list[Node]]:
    """Nodes of ours on an empty database. ``command`` starts them in the place of ``taskserver``."""
    async with scratch_database(bench) as (url, folder):
        with contextlib.ExitStack() as stack:
            found = []
            key_file = folder / "admin.key"
            for number in range(count):
                home = folder / str(number)
                home.mkdir()
                node = Server(home, "--bootstrap-key-file", str(key_file))
                node.database, node.key_file = url, key_file
                node.command = (*command, "serve") if command else node.command
                stack.enter_context(node)
                assert node.process is not None
                found.append(Node(node.port, node.process.pid, node.key, url))
            yield found


@contextlib.asynccontextmanager
async def scratch_database(bench: Bench) -> AsyncIterator[tuple[str, Path]]:
    """The URL of an empty schema, and an empty folder; both are gone afterwards."""
    assert bench.postgres is not None
    with bench.scratch() as folder:
        server = PostgresServer(bench.postgres.url)
        try:
            yield await server.database(folder), folder
        finally:
            await server.clean()


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    """A connection."""
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def plainly(what: str, url: str, seconds: float, *more: str) -> dict[str, float]:
    """Run ``tests.bench.plain`` in a process of its own; what it measured. Raises LoadError."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.plain", what, url, str(seconds), *more),
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), PROGRAM_LIMIT)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise LoadError(f"the program for {what!r} failed")
    found: dict[str, float] = json.loads(said)
    return found
