"""A PostgreSQL server of the tests' own, which may be restarted, killed and locked up."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.ports import held_port
from tests.postgres import new_cluster
from tests.server import EVENT_LIMIT, in_thread, until

# A deadlock is looked for at once; the rest keeps it small.
SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
port = {port}
deadlock_timeout = 100ms
max_connections = 100
shared_buffers = 16MB
"""


CONTROL_LIMIT = 60  # seconds; what pg_ctl waits for itself


class PrivatePostgres:
    """A server that listens on a port of its own; use it as a context manager.

    ``start`` after ``stop`` or ``kill`` begins it again, on the same port with the same data.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="taskserver-pg-"))
        self._holder = held_port()
        self.port: int = self._holder.getsockname()[1]
        self.database = "postgres"
        self._numbers = itertools.count()

    def __enter__(self) -> PrivatePostgres:
        self._cluster = new_cluster(self.folder)
        with (self._cluster.pgdata / "postgresql.conf").open("a") as conf:
            conf.write(SETTINGS.format(port=self.port))
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(subprocess.SubprocessError):  # it is down already
            self._control("stop", "-m", "immediate")
        self._holder.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """Where an operator reaches it."""
        return self.url_at(self.port)

    def url_at(self, port: int, user: str = "postgres") -> str:
        """The same through another port, such as a proxy's."""
        return f"postgresql://{user}@127.0.0.1:{port}/{self.database}"

    def new_database(self) -> None:
        """Make an empty database, which ``url`` names from now on."""
        name = f"test{next(self._numbers)}"
        self.fetch(f"CREATE DATABASE {name}")
        self.database = name

    def as_its_user(self) -> dict[str, Any]:
        """For ``subprocess``: silently, in a folder and as a user for servers that refuse to run as root."""
        nowhere = subprocess.DEVNULL
        user = self._cluster.system_user
        return {"stdin": nowhere, "stdout": nowhere, "stderr": nowhere, "user": user, "cwd": self.folder}

    def start(self) -> None:
        """Start it, unless it runs, and wait until it takes connections."""
        until(self._started, "PostgreSQL starts")

    def stop(self) -> None:
        """A fast shutdown: transactions are undone, connections told and closed."""
        self._control("stop", "-m", "fast")

    def restart(self) -> None:
        """What an operator does to it."""
        self._control("restart", "-m", "fast")

    def kill(self) -> None:
        """SIGKILL to the postmaster; its children end when they notice."""
        os.kill(int((self._cluster.pgdata / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    def fetch(self, sql: str, *arguments: Any) -> list[Any]:
        """The rows of a query by an operator, on a connection of its own."""

        async def ask() -> list[Any]:
            import asyncpg

            connection = await asyncpg.connect(self.url)
            try:
                rows: list[Any] = await connection.fetch(sql, *arguments)
                return rows
            finally:
                await connection.close()

        return in_thread(ask())

    def _started(self) -> bool:
        # Not "pg_ctl status": it takes one that was killed for running until somebody has asked for its exit status.
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), EVENT_LIMIT):
            return True
        try:
            self._control("start")
        except subprocess.SubprocessError:  # it, or a child of it, has not ended yet, or it recovers slowly
            return False
        return True

    def _control(self, *arguments: str) -> None:
        log = str(self._cluster.pgdata / "log")
        command = [str(self._cluster.bin_path / "pg_ctl"), "-w", "-D", str(self._cluster.pgdata), "-l", log, *arguments]
        # A child that lives on must not hold our pipes open, so there are none.
        subprocess.run(command, check=True, timeout=CONTROL_LIMIT, **self.as_its_user())
