"""Nodes that reach PostgreSQL through PgBouncer in transaction mode, and listen past it."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

from tests.e2e.network import Network
from tests.e2e.nodes import make_nodes
from tests.e2e.pg_world import World
from tests.e2e.private_postgres import PrivatePostgres
from tests.ports import held_port
from tests.postgres import missing
from tests.server import until

# Fewer connections to the server than the two nodes have to the pooler: they get one another's.
SETTINGS = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users.txt
pool_mode = transaction
default_pool_size = 5
"""
PLACES = f"{Path('/usr/sbin')}:{Path('/usr/local/sbin')}"  # where an ordinary user's PATH does not look


class PgBouncer:
    """A pooler before a server; use it as a context manager."""

    def __init__(self, postgres: PrivatePostgres) -> None:
        self._postgres = postgres
        self._program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path=PLACES)
        self._process: subprocess.Popen[bytes] | None = None
        self._holder = held_port()
        self.port: int = self._holder.getsockname()[1]

    def __enter__(self) -> PgBouncer:
        if self._program is None:
            missing(
                "PgBouncer is not installed, so nothing is tested through it (on Debian: apt-get install pgbouncer)"
            )
        folder = self._postgres.folder
        (folder / "users.txt").write_text('"postgres" ""\n')
        settings = SETTINGS.format(server=self._postgres.port, port=self.port, folder=folder)
        (folder / "pgbouncer.ini").write_text(settings)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._holder.close()

    def start(self) -> None:
        assert self._program is not None
        self._process = subprocess.Popen([self._program, "-q", "pgbouncer.ini"], **self._postgres.as_its_user())
        until(self._listens, "PgBouncer listens")

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


async def test_nodes_behind_a_pooler_do_as_others_do(private_postgres: PrivatePostgres, tmp_path: Path) -> None:
    with PgBouncer(private_postgres) as pooler, Network(private_postgres.port) as network:
        url = f"{private_postgres.url_at(pooler.port)}?statement_cache_size=0"
        first, second = make_nodes(tmp_path, url, url, arguments=("--listen-database", private_postgres.url))
        with first, second:
            world = World(private_postgres, network, [first, second])
            async with world.load() as load:
                await load.goes_on(1000)
                # What comes through one node wakes the other one's waits: they are over before these look again.
                task = await asyncio.to_thread(first.new_task)
                waiting = asyncio.create_task(asyncio.to_thread(second.get, f"/v1/tasks/{task}?wait=20"))
                began = time.monotonic()
                assert (await asyncio.to_thread(first.post, f"/v1/tasks/{task}/finish", {})).status == 200
                assert (await waiting).json["finished"]
                assert time.monotonic() - began < 8
                await asyncio.to_thread(pooler.kill)
                await asyncio.to_thread(pooler.start)
                await load.goes_on()
                await load.check()
