"""Guard: no command outlives the process that runs it as a task.

A command leads a session of its own, so nothing in the system ties it to its
worker: a worker that is killed can end nothing any more, and its run would be
begun again beside the command. So a small process watches (``end_groups``): one
for each process that runs commands, started with its first one. It is told of
each command before it is started, by a mark that the command will have in its
environment, since its number is known only when it runs already.

Linux' PR_SET_PDEATHSIG is no way: it follows the thread that forked, reaches
only the command itself, and has to be set between fork and exec, where a
process with threads must not run Python.
"""

from __future__ import annotations

import atexit
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from taskserver.worker import end_groups

CLOSE_LIMIT = 1.0  # seconds
# -I and -S: as in `producer.process`, it needs neither environment nor site packages, and starts faster.
SCRIPT = (sys.executable, "-I", "-S", str(Path(end_groups.__file__)))


class Watched:
    """A command on its way: start it with ``environment``, and say then which process ``group`` it leads."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self.mark = secrets.token_hex(8)
        self.group: int | None = None
        self.environment = {**os.environ, end_groups.VARIABLE: self.mark}

    def started(self, group: int) -> None:
        """It runs."""
        self.group = group
        self._guard.note(self)

    def line(self) -> str:
        """What ``end_groups`` is told of it."""
        return f"+{self.mark} {self.group or ''}\n"


class Guard:
    """Has process groups killed when this process ends without having said that they have ended."""

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._forked)
        atexit.register(self.close)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._watched: dict[str, Watched] = {}
        self._pipe = -1
        self._process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def watching(self) -> Iterator[Watched]:
        """Within the context a command, which is to be started there, does not outlive this process.

        Raises OSError if it cannot be watched.
        """
        with self._lock:
            if self._pipe < 0:
                self._start()
        watched = Watched(self)
        self.note(watched)
        try:
            yield watched
        finally:
            with self._lock:
                self._watched.pop(watched.mark, None)
                self._tell(f"-{watched.mark}\n")

    def note(self, watched: Watched) -> None:
        """Watch it, as it stands now."""
        with self._lock:
            self._watched[watched.mark] = watched
            self._tell(watched.line())

    def close(self) -> None:
        """Have everything killed that is watched."""
        with self._lock:
            process = self._process
            if process is not None:
                os.close(self._pipe)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(CLOSE_LIMIT)
                self._pipe, self._process = -1, None

    def _tell(self, line: str) -> None:
        if self._pipe < 0:
            return  # it was closed: the process is at its end
        try:
            os.write(self._pipe, line.encode())
        except BrokenPipeError:  # somebody has killed it
            assert self._process is not None
            self._process.wait()
            os.close(self._pipe)
            self._start()

    def _start(self) -> None:
        theirs, self._pipe = os.pipe()
        try:
            self._process = subprocess.Popen(
                SCRIPT,
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,  # what is sent to the worker's group is not meant for it
            )
        except BaseException:
            os.close(self._pipe)
            self._pipe = -1
            raise
        finally:
            os.close(theirs)
        os.write(self._pipe, "".join(watched.line() for watched in self._watched.values()).encode())

    def _forked(self) -> None:
        """A copy of this process must not hold the pipe open, and has a guard of its own if it needs one."""
        if self._pipe >= 0:
            os.close(self._pipe)
        if self._process is not None:
            self._process.returncode = 0  # not this process' child, so not its to wait for
        self._reset()


GUARD = Guard()
