"""What processes that share a store say to each other: frames, each a length and a pickle.

The other processes send *calls*, ``[(number, operation), …]``, or
``(None, partial)`` for what is only to be told. The one that commits sends
``(count, changes)`` after each commit, and again with the same count for what
is told (``changes`` is empty in the first frame, which says where things
stand), and *answers*,
``(None, [(number, error or None, result), …])``.

A pickle can run code. These come from our own processes only: the sockets are
pairs, made by one process and inherited by the other, and have no name under
which anybody else could find them.
"""

from __future__ import annotations

import copyreg
import io
import mmap
import operator
import os
import pickle
import struct
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from taskserver.dagmodel import NewRun, Run
from taskserver.model import Chunk, Lines, NewTask, Outcome, Place, Task
from taskserver.partial import Partial
from taskserver.sharedmemory import shared_memory
from taskserver.store import AnyChange, Appended, Change, RunChange
from taskserver.stores.sqlite.transaction import Operation

Call = tuple[int, Operation[Any]] | tuple[None, Partial]
Answer = tuple[int, BaseException | None, Any]

_LENGTH = struct.Struct("=Q")
_OFTEN = (Task, NewTask, Place, Run, NewRun, Lines, Chunk, Outcome, Appended, Change, RunChange, Operation, Partial)


def _reducer(kind: type[Any]) -> Callable[[Any], tuple[Any, ...]]:
    values = operator.attrgetter(*(field.name for field in fields(kind)))
    return lambda value: (kind, values(value))


# Dataclasses with slots are pickled by Python code that looks each field up; this is four times as fast.
_REDUCERS: dict[type[Any], Callable[[Any], Any]] = {
    **copyreg.dispatch_table,
    **{kind: _reducer(kind) for kind in _OFTEN},
}


def _frame(value: object) -> bytes:
    buffer = io.BytesIO()
    buffer.write(bytes(_LENGTH.size))
    pickler = pickle.Pickler(buffer, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = _REDUCERS
    pickler.dump(value)
    size = buffer.tell() - _LENGTH.size
    buffer.seek(0)
    buffer.write(_LENGTH.pack(size))
    return buffer.getvalue()


def calls_frame(calls: Sequence[Call]) -> bytes:
    """Operations to commit, and what is to be told."""
    return _frame(calls)


def changes_frame(count: int, changes: Sequence[AnyChange]) -> bytes:
    """What commit number ``count`` changed."""
    return _frame((count, changes))


def answers_frame(answers: Sequence[Answer]) -> bytes:
    """What became of calls."""
    return _frame((None, answers))


class FrameReader:
    """Puts frames together."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """Take what arrived; the frames that are complete with it."""
        self._buffer += data
        frames, start, length = [], 0, _LENGTH.size
        while len(self._buffer) >= start + length:
            end = start + length + _LENGTH.unpack_from(self._buffer, start)[0]
            if len(self._buffer) < end:
                break
            frames.append(pickle.loads(self._buffer[start + length : end]))  # noqa: S301 - our own, see above
            start = end
        del self._buffer[:start]
        return frames


class CommitCount:
    """How many commits have changed something: a number in memory that all processes of a server see.

    It is raised before anybody is answered, so that a process which is asked
    about something acknowledged elsewhere knows that it has news to wait for.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._mine = descriptor is None
        self.descriptor = shared_memory("taskserver-commits", _LENGTH.size) if descriptor is None else descriptor
        self._memory = mmap.mmap(self.descriptor, _LENGTH.size)
        self._cell = memoryview(self._memory).cast("Q")

    # An aligned word is written and read in one piece by every processor that runs Python.

    @property
    def value(self) -> int:
        """The number of the last commit."""
        return self._cell[0]

    @value.setter
    def value(self, count: int) -> None:
        self._cell[0] = count

    def close(self) -> None:
        """Let go of the memory. A repeat does nothing."""
        if not self._memory.closed:
            self._cell.release()
            self._memory.close()
            if self._mine:
                os.close(self.descriptor)
