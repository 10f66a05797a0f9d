"""Echo: where a command's output would have gone without us, and how our notices get lines of their own there."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Iterator

STDOUT, STDERR = 1, 2


class Echo:
    """One descriptor that several threads write to.

    Those that lead to the same file, pipe or terminal share a ``line``: that of
    whoever wrote last is the one that stands there.
    """

    def __init__(self, fd: int, line: Line | None = None) -> None:
        self._fd = fd
        self.line = line or Line()

    def write(self, data: bytes) -> None:
        """Write all of it, also to what somebody else has made non-blocking. Raises OSError."""
        with self.line.lock:
            self.line.unfinished = not data.endswith(b"\n")
            write_all(self._fd, data)

    @contextlib.contextmanager
    def own_line(self, newline: bytes) -> Iterator[None]:
        """For what is written to the descriptor within the context: a new line, and nobody else meanwhile."""
        with self.line.lock:
            if self.line.unfinished:
                self.line.unfinished = False
                with contextlib.suppress(OSError):
                    os.write(self._fd, newline)
            yield


class Line:
    """The last line of what is written to; ``unfinished``: it has no newline as yet. Look at it under the lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.unfinished = False


def standard_echoes() -> dict[int, Echo]:
    """Our standard output and standard error."""
    out, err = Echo(STDOUT), Echo(STDERR)
    if os.path.sameopenfile(STDOUT, STDERR):
        err.line = out.line
    return {STDOUT: out, STDERR: err}


def write_all(fd: int, data: bytes) -> None:
    """Write everything, also to what somebody else has made non-blocking. Raises OSError."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])
