"""Pumps: threads that read a command's output, hand it on and echo it.

Threads, because an echo blocks for as long as whoever reads our own output
likes, and neither heartbeats nor the other stream may wait for that.
"""

from __future__ import annotations

import errno
import os
import select
import threading
from collections.abc import Callable

from taskserver.config import KIB, MIB
from taskserver.producer.echo import Echo

READ_BYTES = 256 * KIB
PIPE_BYTES = 1 * MIB  # as much as a pipe can hold without privileges: what may be left in it at the end


class Stop:
    """A one-way switch that threads can poll for; close it when they have ended."""

    def __init__(self) -> None:
        self.fd, self._write = os.pipe()

    def set(self) -> None:
        """Make ``fd`` readable, for ever. A repeat does nothing."""
        if self._write >= 0:
            os.close(self._write)
            self._write = -1

    def close(self) -> None:
        """Close both ends, when nobody polls any more."""
        self.set()
        os.close(self.fd)


class Pump(threading.Thread):
    """Copies ``source`` to ``echo`` (None: nowhere) and to ``sink``, until it ends or ``stop`` is set.

    After ``stop``, what has been written already is still read. The pump closes
    ``source`` itself. ``done`` is called at the end, in the thread.
    """

    def __init__(
        self,
        source: int,
        echo: Echo | None,
        sink: Callable[[bytes], None],
        stop: Stop,
        done: Callable[[], None],
        warn: Callable[[str], None],
    ) -> None:
        # A daemon: an echo that nobody reads must not keep the process alive.
        super().__init__(name=f"pump-{source}", daemon=True)
        self._source = source
        self._echo = echo
        self._sink = sink
        self._stop_fd = stop.fd
        self._done = done
        self._warn = warn
        self.reader_left = False
        """Whether the echo's reader is gone, as ``head`` is when it has enough."""

    def run(self) -> None:
        """Pump."""
        try:
            poll = select.poll()
            poll.register(self._source, select.POLLIN)
            poll.register(self._stop_fd, select.POLLIN)
            while self._source_ready(poll):
                if not self._pump():
                    return
            left = PIPE_BYTES
            while left > 0 and select.select([self._source], [], [], 0)[0] and (count := self._pump()):
                left -= count
        finally:
            os.close(self._source)
            self._done()

    def _source_ready(self, poll: select.poll) -> bool:
        """Wait for the source; False if it is time to stop instead."""
        return self._stop_fd not in [fd for fd, _ in poll.poll()]

    def _pump(self) -> int:
        """Read once and hand on what came; 0 at the end, and when whoever reads the echo has left."""
        try:
            data = os.read(self._source, READ_BYTES)
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal's way to say that its last user has left
                raise
            return 0
        if data:
            self._sink(data)
            if not self._echo_all(data):
                return 0
        return len(data)

    def _echo_all(self, data: bytes) -> bool:
        """Write to the echo. False if its reader has left."""
        if self._echo is None:
            return True
        try:
            self._echo.write(data)
        except BrokenPipeError:
            self.reader_left = True
            return False
        except OSError as error:
            self._warn(f"cannot echo the command's output any more: {error.strerror}")
            self._echo = None
        return True
