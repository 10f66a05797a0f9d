"""A PostgreSQL server of a test's own, which may be restarted, killed and locked up, and a network that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

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
BUFFER = 65536

T = TypeVar("T")


class PrivatePostgres:
    """A server that listens on a port of its own; use it as a context manager.

    ``start`` after ``stop`` or ``kill`` begins it again, on the same port with the same data.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="taskserver-pg-"))
        self._holder = socket.socket()
        self.port = 0

    def __enter__(self) -> PrivatePostgres:
        # Bound as PostgreSQL will bind it, so that nobody else is given the port while it is down.
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind(("127.0.0.1", 0))
        self.port = self._holder.getsockname()[1]
        self._cluster = new_cluster(self._folder)
        with (self._cluster.pgdata / "postgresql.conf").open("a") as conf:
            conf.write(SETTINGS.format(port=self.port))
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):  # it is down already
            self._control("stop", "-m", "immediate")
        self._holder.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """Where an operator reaches it."""
        return self.url_at(self.port)

    def url_at(self, port: int, user: str = "postgres") -> str:
        """The same through another port, such as a proxy's."""
        return f"postgresql://{user}@127.0.0.1:{port}/postgres"

    def start(self) -> None:
        """Start it and wait until it takes connections."""
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
        try:
            self._control("start")
        except subprocess.CalledProcessError:  # a child of one that was killed has not ended yet
            return False
        return True

    def _control(self, *arguments: str) -> None:
        log = str(self._cluster.pgdata / "log")
        command = [str(self._cluster.bin_path / "pg_ctl"), "-w", "-D", str(self._cluster.pgdata), "-l", log, *arguments]
        # A child that lives on must not hold our pipes open, so there are none.
        subprocess.run(
            command,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=EVENT_LIMIT,
            user=self._cluster.system_user,
            cwd=self._folder,
        )


class Network:
    """What lies between a node and a port on this machine: a TCP proxy that can be cut; use it as a context manager.

    It runs in a thread of its own. What is held back is not lost: it arrives when
    the network is ``whole`` again, as TCP would repeat it.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._pipes: set[asyncio.Task[None]] = set()
        self.port = 0

    def __enter__(self) -> Network:
        self._thread.start()
        self._run(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def stall(self, *, up: bool = True, down: bool = True) -> None:
        """Deliver nothing more to the target (``up``) or from it (``down``), and tell nobody."""

        async def stall() -> None:
            for way, held in ((self._up, up), (self._down, down)):
                if held:
                    way.clear()

        self._run(stall())

    def whole(self) -> None:
        """Deliver everything."""

        async def whole() -> None:
            self._up.set()
            self._down.set()

        self._run(whole())

    def reset(self) -> None:
        """Break each connection (RST on both ends); what was held back on it is lost."""

        async def reset() -> None:
            await self._cancel()

        self._run(reset())

    @property
    def connections(self) -> int:
        """How many there are."""

        async def count() -> int:
            return len(self._pipes)

        return self._run(count())

    # --- in its thread -------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(EVENT_LIMIT)

    async def _open(self) -> None:
        self._up, self._down = asyncio.Event(), asyncio.Event()
        self._up.set()
        self._down.set()
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        await self._cancel()

    async def _cancel(self) -> None:
        pipes = list(self._pipes)
        for pipe in pipes:
            pipe.cancel()
        if pipes:
            await asyncio.wait(pipes)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pipe = asyncio.current_task()
        assert pipe is not None
        self._pipes.add(pipe)
        ends, copies = [writer], []
        try:
            await self._up.wait()  # no connection is made through a network that is cut
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            ends.append(far_writer)
            copies = [
                asyncio.create_task(_copy(reader, far_writer, self._up)),
                asyncio.create_task(_copy(far_reader, writer, self._down)),
            ]
            await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for copy in copies:
                copy.cancel()
            await asyncio.gather(*copies, return_exceptions=True)
            for end in ends:
                _break(end)
            self._pipes.discard(pipe)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, open_: asyncio.Event) -> None:
    """Copy until either end closes; that too is held back while the network is cut."""
    data = b"something"
    while data:
        try:
            data = await reader.read(BUFFER)
        except OSError:
            data = b""
        await open_.wait()
        writer.write(data)
        await writer.drain()


def _break(writer: asyncio.StreamWriter) -> None:
    """Close a connection with a reset."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
