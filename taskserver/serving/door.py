"""How accepted connections get from the process that listens into those that answer: through a socket, one by one.

Sharing the listening socket would spread them unevenly: who wakes first takes
all that wait (of 2,000 that came at once 1,500 went to one of two workers). And
a worker that outlived its supervisor would hold the port.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

log = logging.getLogger(__name__)

OPEN = b"o"
CONNECTION = b"c"
AT_ONCE = 64  # connections taken before the event loop turns


def hand_over(door: socket.socket, connection: socket.socket) -> bool:
    """Give a connection away; tell whether it was taken. The caller's copy stays its to close."""
    try:
        socket.send_fds(door, [CONNECTION], [connection.fileno()])
    except OSError:  # the worker has too many before it, or is gone
        return False
    return True


class Entrance:
    """The worker's end of a door: each connection gets a protocol of ``make_protocol``."""

    def __init__(self, door: socket.socket, make_protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        self._door = door
        self._make_protocol = make_protocol
        self._loop = asyncio.get_running_loop()
        self._entering: set[asyncio.Task[None]] = set()

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
        if self._entering:
            await asyncio.wait(self._entering)

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
                task = self._loop.create_task(self._enter(socket.socket(fileno=descriptor)))
                self._entering.add(task)
                task.add_done_callback(self._entering.discard)

    async def _enter(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, connection)
        except OSError:  # the client has left already
            connection.close()


async def opened(door: socket.socket) -> bool:
    """Return when the worker takes connections; False if it ended before."""
    try:
        return await asyncio.get_running_loop().sock_recv(door, len(OPEN)) == OPEN
    except OSError:
        return False
