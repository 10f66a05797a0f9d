"""LiveTasks: head and newest lines of the tasks that change now, bounded, so that a poll at the tail reads no database.

Entries come from committed changes only, never from a read: a read may be
overtaken by a commit, and what it saw would then stay here for ever.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from taskserver.config import Memory
from taskserver.encoding import cut
from taskserver.model import Chunk, Task
from taskserver.store import Change

ENTRY_COST = 1024  # of a task's head; keeps a million empty tasks from being kept as well
CHUNK_COST = 150  # of the objects around a chunk's bytes


class Live:
    """One task's head, and its newest lines from ``first`` on."""

    __slots__ = ("chunks", "first", "size", "task")

    def __init__(self, task: Task, first: int) -> None:
        self.task = task
        self.first = first
        self.chunks: deque[Chunk] = deque()
        self.size = ENTRY_COST

    def lines(self, first: int, end: int) -> list[Chunk] | None:
        """The chunks that hold ``[first, end)``, cut to it; None if not all of it is here."""
        if first < self.first:
            return None
        found = []
        for chunk in reversed(self.chunks):
            if chunk.end <= first:
                break
            if chunk.first < end:
                found.append(cut(chunk, first, end))
        found.reverse()
        return found

    def add(self, chunk: Chunk, max_bytes: int) -> None:
        """Add the newest chunk and drop the oldest ones beyond the bound."""
        self.chunks.append(chunk)
        self.size += len(chunk.payload) + CHUNK_COST
        while self.size - ENTRY_COST > max_bytes and self.chunks:
            dropped = self.chunks.popleft()
            self.size -= len(dropped.payload) + CHUNK_COST
            self.first = dropped.end


class LiveTasks:
    """The entries, least recently changed first, within ``memory``'s bounds."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._entries: OrderedDict[str, Live] = OrderedDict()
        self._size = 0

    def get(self, task_id: str) -> Live | None:
        """The entry of a task, if it has one. Its head is what was committed last."""
        return self._entries.get(task_id)

    def apply(self, change: Change) -> None:
        """Take over one committed change."""
        task, chunk = change.task, change.chunk
        live = self._entries.pop(task.id, None)
        if live is not None:
            self._size -= live.size
        if change.deleted:
            return
        if live is None:
            live = Live(task, task.last if chunk is None else chunk.first)
        live.task = task
        if chunk is not None:
            live.add(chunk, self._memory.task_bytes)
        self._entries[task.id] = live
        self._size += live.size
        while self._size > self._memory.total_bytes:
            _, dropped = self._entries.popitem(last=False)
            self._size -= dropped.size
