"""LiveLogs: heads and newest lines in memory, bounded, so that a poll at the tail reads no database.

A log's *head* is its task or run as it was committed last. Each commit is
applied here before this process acknowledges it; where other processes commit
too, ``Store.behind`` tells that one of theirs is still on its way. Where those
are not reported (``Store.tells_all``) heads are read, and only lines, which
never change, come from memory.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Sequence
from typing import Generic, Protocol, TypeVar

from taskserver.config import Memory
from taskserver.encoding import cut
from taskserver.model import Chunk
from taskserver.store import Store

ENTRY_COST = 1024  # of a head; keeps a million logs without lines from being kept as well
CHUNK_COST = 150  # of the objects around a chunk's bytes


class Head(Protocol):
    """What heads have in common: the log's number, how many lines it has, and what the head costs in memory."""

    @property
    def log(self) -> int: ...

    @property
    def last(self) -> int: ...

    @property
    def version(self) -> int: ...

    @property
    def size(self) -> int: ...


K = TypeVar("K", bound=Hashable)
H = TypeVar("H", bound=Head)


class Live(Generic[H]):
    """One log's head, and its newest lines from ``first`` on."""

    __slots__ = ("_chunks_size", "chunks", "end", "first", "head")

    def __init__(self, head: H, first: int) -> None:
        self.head = head
        self.first = self.end = first
        self.chunks: deque[Chunk] = deque()
        self._chunks_size = 0

    @property
    def size(self) -> int:
        """What the entry costs in memory, in bytes."""
        return ENTRY_COST + self.head.size + self._chunks_size

    def lines(self, first: int, end: int) -> list[Chunk] | None:
        """The chunks that hold ``[first, end)``, cut to it; None if not all of it is here."""
        if first < self.first or end > self.end:
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
        """Add the newest chunk and drop the oldest ones beyond the bound, or all if lines between are missing."""
        if chunk.first > self.end:
            self.chunks.clear()
            self._chunks_size = 0
            self.first = chunk.first
        self.chunks.append(chunk)
        self.end = max(self.end, chunk.end)
        self._chunks_size += _cost(chunk)
        while self._chunks_size > max_bytes:
            dropped = self.chunks.popleft()
            self._chunks_size -= _cost(dropped)
            self.first = max(self.first, dropped.end)  # a read that overtook the report knows later lines only


def _is_newer(head: Head, other: Head) -> bool:
    # A task that was deleted and created anew has a later log.
    return (head.log, head.version) > (other.log, other.version)


def _drop(reading: asyncio.Future[Sequence[Chunk]]) -> None:
    """Forget a reading that nobody waits for any more, whatever comes of it."""
    reading.cancel()
    reading.add_done_callback(lambda done: done.cancelled() or done.exception())


def _cost(chunk: Chunk) -> int:
    return len(chunk.payload) + len(chunk.side) + CHUNK_COST


class LiveLogs(Generic[K, H]):
    """The entries by key, least recently changed first, within ``memory``'s bounds."""

    def __init__(self, store: Store, memory: Memory) -> None:
        self._store = store
        self._memory = memory
        self._entries: OrderedDict[K, Live[H]] = OrderedDict()
        self._size = 0
        self._evictions = 0
        self._ahead = 0

    def get(self, key: K) -> Live[H] | None:
        """The entry of a log, if it has one, unless it may be behind what a client knows."""
        return self._entries.get(key) if self._store.tells_all and not self._store.behind else None

    async def head(self, key: K, read: Callable[[K], Awaitable[H]]) -> H:
        """The head as committed last; ``read`` asks the store if it is not here.

        What was read is kept, unless a commit was reported meanwhile whose head is
        newer. (If entries were dropped meanwhile, that commit's may be among
        them, so nothing is kept.)
        """
        if self._store.behind:  # a client may know more than this process
            await self._store.catch_up()
        live = self._entries.get(key)
        if live is not None and self._store.tells_all:
            return live.head
        evictions = self._evictions
        head = await read(key)
        live = self._entries.get(key)
        if live is not None:
            if head.log > live.head.log:  # the one that is known has been deleted, and with it its lines
                self._take(key)
                self._put(key, Live(head, head.last))
                return head
            if _is_newer(head, live.head):
                live.head = head
            return live.head
        if evictions == self._evictions:
            self._put(key, Live(head, head.last))
        return head

    def apply(self, key: K, head: H, chunk: Chunk | None) -> None:
        """Take over one committed change."""
        live = self._take(key)
        if live is not None and live.head.log > head.log:  # a read has seen what came in its place
            self._put(key, live)
            return
        if live is None or live.head.log < head.log:
            live = Live(head, head.last if chunk is None else chunk.first)
        if not _is_newer(live.head, head):  # a read may have overtaken this report, and readers have seen it
            live.head = head
        if chunk is not None:
            live.add(chunk, self._memory.task_bytes)
        self._put(key, live)

    def forget(self, key: K) -> None:
        """Take over a committed deletion."""
        self._take(key)
        self._evictions += 1  # a read that is under way must not bring it back

    async def page(self, key: K, log: int, first: int, end: int, max_bytes: int | None = None) -> Sequence[Chunk]:
        """Lines from ``first`` on, at most up to ``end`` and ``max_bytes`` (by default those of a page).

        Empty if the log is deleted or ends there.
        """
        live = self._entries.get(key)
        # Another log under the same key: the one that is read was deleted, and its id was used again.
        if live is not None and live.head.log == log and first < end:
            recent = live.lines(first, end)
            if recent is not None:
                return recent
        return await self._store.read(log, first, end, max_bytes or self._memory.page_bytes) if first < end else ()

    async def read(self, key: K, log: int, first: int, end: int) -> AsyncGenerator[Sequence[Chunk], None]:
        """Lines ``[first, end)`` of a log in bounded pages without gaps; none if there are no lines.

        Ends early if the log is deleted meanwhile. While a page is being taken,
        the next one is read, larger, if there are not too many who read ahead.
        """
        chunks, ahead = await self.page(key, log, first, end), False
        try:
            while chunks:
                first, following = chunks[-1].end, None
                if first < end and (ahead := ahead or self._may_read_ahead()):
                    following = asyncio.ensure_future(self.page(key, log, first, end, self._memory.large_page_bytes))
                try:
                    yield chunks
                    del chunks  # a page is large
                    chunks = await (following or self.page(key, log, first, end))
                finally:
                    if following is not None:
                        _drop(following)
        finally:
            self._ahead -= ahead

    def _may_read_ahead(self) -> bool:
        """Take one of the places of those who read ahead, if one is free."""
        free = self._ahead < self._memory.ahead_readers
        self._ahead += free
        return free

    def _take(self, key: K) -> Live[H] | None:
        live = self._entries.pop(key, None)
        if live is not None:
            self._size -= live.size
        return live

    def _put(self, key: K, live: Live[H]) -> None:
        self._entries[key] = live
        self._size += live.size
        while self._size > self._memory.total_bytes:
            _, dropped = self._entries.popitem(last=False)
            self._size -= dropped.size
            self._evictions += 1
