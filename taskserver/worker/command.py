"""A task that is a command: its output streams as that of ``taskserver run`` does."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from taskserver.config import KIB
from taskserver.model import Stream
from taskserver.producer.process import CannotStart, Process, start_on_pipes
from taskserver.producer.pump import Pump, Stop
from taskserver.worker.errors import TaskStopped
from taskserver.worker.guard import GUARD
from taskserver.worker.stopping import Stopper

KILL_AFTER = 4.0  # seconds from the SIGTERM to the SIGKILL; it must come before STOP_GRACE is over
GROUP_POLL = 0.05  # seconds; nothing tells of the end of a group
GRACE = 3.0  # seconds for which output of what the command left behind is read
LAST_LINE_BYTES = 64 * KIB


class CommandFailed(Exception):
    """A command has ended otherwise than with 0."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def run_command(command: object, stopper: Stopper, write: Callable[[Stream, bytes], object]) -> str:
    """Run a command to its end; the last line that it wrote to its standard output. Raises CommandFailed."""
    words = _words(command)
    with GUARD.watching() as watched:
        try:
            process = start_on_pipes(words, watched.environment)
        except CannotStart as error:
            raise CommandFailed(error.message, error.code) from None
        watched.started(process.group)
        return _run(process, stopper, write)


def _run(process: Process, stopper: Stopper, write: Callable[[Stream, bytes], object]) -> str:
    ending = _Ending(process)
    last, stop = _LastLine(), Stop()

    def sink(stream: Stream, data: bytes) -> None:
        if stream is Stream.STDOUT:
            last.feed(data)
        write(stream, data)

    pumps = [start_pump(source.fd, source.stream, sink, stop) for source in process.sources]
    try:
        with stopper.by(ending.begin):
            end = asyncio.run(process.wait())
    except TaskStopped:  # it was stopped before it began
        ending.begin()
        end = asyncio.run(process.wait())
    ending.complete()
    wait_for_pumps(pumps, stop)
    if end.code:
        raise CommandFailed(end.error, end.code)
    return last.text


def wait_for_pumps(pumps: Sequence[threading.Event], stop: Stop) -> None:
    """Return when all that was written has been read; if something that was left behind writes on, soon."""
    for ended in pumps:
        ended.wait(GRACE)
    stop.set()
    if all(ended.wait(GRACE) for ended in pumps):
        stop.close()


def _words(command: object) -> list[str]:
    if isinstance(command, str):
        return ["/bin/sh", "-c", command]
    if not isinstance(command, (list, tuple)) or not command:
        raise CommandFailed(f"the task must return a command, a list of words or a line for the shell: {command!r}", 1)
    return [str(word) for word in command]


def start_pump(fd: int, stream: Stream, sink: Callable[[Stream, bytes], object], stop: Stop) -> threading.Event:
    """Read a descriptor in a thread until its end; the event tells that."""
    ended = threading.Event()

    def take(data: bytes) -> None:
        sink(stream, data)

    Pump(fd, None, take, stop, ended.set, print).start()
    return ended


class _LastLine:
    """Remembers the last line of a stream."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> None:
        """Take more of it."""
        self._data = (self._data + data)[-LAST_LINE_BYTES:]
        end = self._data.rstrip(b"\r\n").rfind(b"\n")
        self._data = self._data[end + 1 :]

    @property
    def text(self) -> str:
        """The line."""
        return self._data.rstrip(b"\r\n").decode("utf-8", "replace")


class _Ending:
    """The end of a command that is stopped, and of all that it started in its group: none of it runs on."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._deadline = 0.0

    def begin(self) -> None:
        """SIGTERM, and some time later SIGKILL."""
        self._deadline = time.monotonic() + KILL_AFTER
        self._process.signal(signal.SIGTERM)
        killer = threading.Timer(KILL_AFTER, self._process.signal, [signal.SIGKILL])
        killer.daemon = True
        killer.start()

    def complete(self) -> None:
        """A command that was stopped has ended: its children have the rest of the time, then they are killed."""
        if not self._deadline:
            return
        with suppress(ProcessLookupError, PermissionError):  # nothing is left; it became somebody else
            while time.monotonic() < self._deadline:
                os.killpg(self._process.group, 0)
                time.sleep(GROUP_POLL)
            os.killpg(self._process.group, signal.SIGKILL)
