"""Spool: a file between the pumps, which write records, and the sender, which reads them at its cursor."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from taskserver.config import MIB

READ_BYTES = 1 * MIB
NO_ROOM_RETRY = 1.0  # seconds between two attempts to write to a full disk


@dataclass(frozen=True)
class Batch:
    """Whole records in the order in which they were written; empty if there are none to send."""

    lines: int
    data: bytes


class Spool:
    """Records on their way to the server.

    ``write`` is for threads, everything else for the event loop's. The file
    grows while the sender is behind and is emptied when it has caught up. At
    ``limit`` bytes, or on a full disk, writers wait: the command is held up, as
    by any full pipe, and no line is lost.

    ``notify`` is called (in the writer's thread) after each write, and ``warn``
    with a sentence when a writer has to wait.
    """

    def __init__(
        self, folder: Path | None, limit: int, notify: Callable[[], None], warn: Callable[[str], None]
    ) -> None:
        """Make a file in ``folder`` (None: the system's place), readable by this user only. Raises OSError."""
        self._file, name = tempfile.mkstemp(prefix="taskserver-", suffix=".ndjson", dir=folder)
        self.path = Path(name)
        self._limit = limit
        self._notify = notify
        self._warn = warn
        self._room = threading.Condition()
        self._size = 0
        self._written = 0
        self._cursor = 0
        self._taken = 0
        self._discarding = False
        self._complete = False

    # --- writing -------------------------------------------------------------------

    def write(self, data: bytes, lines: int) -> None:
        """Add records; waits while there is no room."""
        with self._room:
            while not self._discarding and not self._put(data):
                self._room.wait(NO_ROOM_RETRY)
            if self._discarding:
                return
            self._written += lines
        self._notify()

    def lift_limit(self) -> None:
        """Let in what is still to come, without a bound: for when that can only be little."""
        with self._room:
            self._limit = sys.maxsize
            self._room.notify_all()

    def _put(self, data: bytes) -> bool:
        if self._size and self._size + len(data) > self._limit:
            self._warn_once(f"the spool file {self.path} has reached its limit of {self._limit} bytes")
            return False
        try:
            done = 0
            while done < len(data):
                done += os.pwrite(self._file, data[done:], self._size + done)
        except OSError as error:
            self._warn_once(f"cannot write to the spool file {self.path}: {error.strerror}")
            return False
        self._size += len(data)
        return True

    def _warn_once(self, problem: str) -> None:
        self._warn(f"{problem}; the command is held up until the server has taken some lines")
        self._warn = _silently

    # --- reading -------------------------------------------------------------------

    @property
    def unsent_lines(self) -> int:
        """How many lines have been written but not ``taken``."""
        with self._room:
            return self._written - self._taken

    @property
    def unsent_bytes(self) -> int:
        """The same in bytes."""
        with self._room:
            return self._size - self._cursor

    @property
    def complete(self) -> bool:
        """Whether nothing will be written any more (see ``end``)."""
        return self._complete

    def peek(self, max_bytes: int, max_lines: int) -> Batch:
        """The records at the cursor: as many as fit both bounds, but at least one if there is one."""
        data = self._read(max_bytes)
        end = data.rfind(b"\n") + 1
        lines = data.count(b"\n")
        if lines > max_lines:
            rest = data.split(b"\n", max_lines)[-1]
            lines, end = max_lines, len(data) - len(rest)
        return Batch(lines, data[:end])

    def _read(self, max_bytes: int) -> bytes:
        """What stands at the cursor, enough for one whole record."""
        available = self.unsent_bytes
        while True:
            data = os.pread(self._file, min(max_bytes, available), self._cursor)
            if len(data) == available or b"\n" in data:
                return data
            max_bytes *= 2  # a single record is longer than a batch should be

    def take(self, batch: Batch) -> None:
        """Move the cursor behind a batch that the server has acknowledged."""
        with self._room:
            self._cursor += len(batch.data)
            self._taken += batch.lines
            if self._cursor == self._size:
                self._empty()

    def put_back(self, batch: Batch) -> None:
        """Add records that had been taken, in the place of those that are there: none. Raises OSError."""
        with self._room:
            done = 0
            while done < len(batch.data):
                done += os.pwrite(self._file, batch.data[done:], done)
            self._size = len(batch.data)
            self._taken -= batch.lines

    def _empty(self) -> None:
        os.ftruncate(self._file, 0)
        self._size = self._cursor = 0
        self._room.notify_all()

    # --- the end -------------------------------------------------------------------

    def end(self) -> None:
        """Say that nothing will be written any more."""
        self._complete = True
        self._notify()

    def discard(self) -> None:
        """Drop what is there and what is still to come: nobody will take it."""
        with self._room:
            self._discarding = True
            self._taken = self._written
            self._empty()

    def keep(self) -> None:
        """Close the file and leave it with exactly the records that were not taken."""
        with self._room:
            self._discarding = True
            left, moved = self._size - self._cursor, 0
            while moved < left:
                data = os.pread(self._file, min(READ_BYTES, left - moved), self._cursor + moved)
                moved += os.pwrite(self._file, data, moved)
            os.ftruncate(self._file, left)
            os.close(self._file)

    def remove(self) -> None:
        """Close and remove the file."""
        with self._room:
            self._discarding = True
            os.close(self._file)
        self.path.unlink(missing_ok=True)


def _silently(problem: str) -> None:
    """In the place of ``warn`` once it was told."""
