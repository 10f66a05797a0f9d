"""How accepted connections get from the process that listens to those that answer: through a socket, one by one.

Sharing the listening socket would spread them unevenly: who wakes first takes
all that wait (of 2,000 that came at once 1,500 went to one of two workers). And
a worker that outlived its supervisor would hold the port.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

log = logging.getLogger(__name__)

OPEN = b"o"
CONNECTION = b"c"
LAST_HANDSHAKES = 0.5  # seconds at a stop
AT_ONCE = 64  # connections taken before the event loop turns


def hand_over(door: socket.socket, connection: socket.socket) -> bool:
    """Give a connection away; tell whether it was taken. If not, it stays the caller's."""
    try:
        socket.send_fds(door, [CONNECTION], [connection.fileno()])
    except OSError:  # the worker has too many before it, or is gone
        return False
    connection.close()
    return True


class Reception:
    """Where accepted connections are answered: each gets a protocol of ``make_protocol``, behind ``tls`` if given."""

    def __init__(self, make_protocol: Callable[[], asyncio.BaseProtocol], tls: ssl.SSLContext | None) -> None:
        self._make_protocol = make_protocol
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._entering: set[asyncio.Task[None]] = set()

    def take(self, connection: socket.socket) -> bool:
        """Take a connection."""
        task = self._loop.create_task(self._enter(connection))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)
        return True

    async def close(self) -> None:
        """Return when those that were taken have their protocols; who is slow to agree on TLS gets none."""
        if self._entering:
            await asyncio.wait(self._entering, timeout=LAST_HANDSHAKES)
        for task in self._entering:
            task.cancel()
        if self._entering:
            await asyncio.wait(self._entering)

    async def _enter(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, connection, ssl=self._tls)
        except OSError:  # the client has left already, or does not speak TLS
            connection.close()


class Entrance:
    """The worker's end of a door: what comes through is taken to a reception."""

    def __init__(self, door: socket.socket, reception: Reception) -> None:
        self._door = door
        self._reception = reception
        self._loop = asyncio.get_running_loop()

    def open(self) -> None:
        """Take connections from now on, and tell the other side."""
        self._door.setblocking(False)
        self._loop.add_reader(self._door, self._take)
        self._door.send(OPEN)

    async def close(self) -> None:
        """Take what was handed over so far, and no more."""
        self._take()
        self._loop.remove_reader(self._door)
        self._door.close()
        await self._reception.close()

    def _take(self) -> None:
        for _ in range(AT_ONCE):
            try:
                data, descriptors, _, _ = socket.recv_fds(self._door, 1, 1)
            except BlockingIOError:
                return
            if not data:  # the supervisor is gone, which the store tells too
                self._loop.remove_reader(self._door)
                return
            if not descriptors:
                log.error("a connection was lost: this process has too many open files")
            for descriptor in descriptors:
                self._reception.take(socket.socket(fileno=descriptor))


async def opened(door: socket.socket) -> bool:
    """Return when the worker takes connections; False if it ended before."""
    try:
        return await asyncio.get_running_loop().sock_recv(door, len(OPEN)) == OPEN
    except OSError:
        return False
