"""A network that can be cut: a TCP proxy on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

from tests.server import EVENT_LIMIT

BUFFER = 65536

T = TypeVar("T")


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
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:  # connections that were ending by themselves
            await asyncio.wait(left)

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
            self._pipes.discard(pipe)
            for copy in copies:
                copy.cancel()
            for end in ends:
                _break(end)
            await asyncio.gather(*copies, return_exceptions=True)


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
