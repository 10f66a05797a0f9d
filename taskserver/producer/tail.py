"""The end of an output that is longer than its task may keep: a mark that tells of the rest, and the newest lines."""

from __future__ import annotations

from collections import deque

import orjson

from taskserver.config import MIB
from taskserver.producer.spool import Batch

TAIL_BYTES = 1 * MIB  # of records kept in memory; a single one may be larger


class Tail:
    """Takes records, keeps the newest ones and counts the others. ``room``: lines that the task still takes, in all."""

    def __init__(self, room: int) -> None:
        self._room = max(0, room)
        self._records: deque[bytes] = deque()
        self._size = 0
        self._omitted = 0

    def add(self, batch: Batch) -> None:
        """Take some more."""
        for record in batch.data.splitlines(keepends=True):
            self._records.append(record)
            self._size += len(record)
            while len(self._records) > self._room or (self._size > TAIL_BYTES and len(self._records) > 1):
                self._omit()

    def end(self) -> Batch:
        """What is to be sent: all records if there is room for them, else the mark and those that fit behind it."""
        if not self._omitted:
            return Batch(len(self._records), b"".join(self._records))
        if not self._room:
            return Batch(0, b"")
        if len(self._records) == self._room:
            self._omit()
        mark = orjson.dumps({"text": mark_text(self._omitted)}) + b"\n"
        return Batch(1 + len(self._records), mark + b"".join(self._records))

    def _omit(self) -> None:
        self._size -= len(self._records.popleft())
        self._omitted += 1


def mark_text(omitted: int) -> str:
    """The line that stands where lines are missing."""
    return f"[taskserver: {omitted} line{'' if omitted == 1 else 's'} omitted]"
