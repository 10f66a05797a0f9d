"""Board: the meters of all processes of a server.

With ``serve --workers`` it is a block of shared memory that the first process
makes and the others inherit. Each process writes a slot of its own; whichever
is asked for the figures adds the slots up. A process that takes a dead one's
place goes on in its slot, so that no counter ever goes back.
"""

from __future__ import annotations

import mmap
import os
from array import array

from taskserver.meters import SLOT_WORDS, WORD, Meters
from taskserver.sharedmemory import shared_memory


class Board:
    """Slots for ``slots`` processes, of which this one has number ``own``.

    One that has no slots for others needs no shared memory. ``descriptor`` is
    the memory that another process has made, to be used up here; with None it is
    made, and ``close`` is its maker's to call.
    """

    def __init__(self, slots: int = 1, own: int = 0, descriptor: int | None = None) -> None:
        size = WORD * slots * (1 + SLOT_WORDS)
        self.descriptor = descriptor
        memory: bytearray | mmap.mmap = bytearray(size)
        if slots > 1:
            self.descriptor = shared_memory("taskserver-meters", size) if descriptor is None else descriptor
            memory = mmap.mmap(self.descriptor, size)  # for as long as this object lives
        if descriptor is not None:
            self.close()
        words = memoryview(memory).cast("q")
        self._pids = words[:slots]  # 0: nobody has the slot
        self._slots = [words[slots + slot * SLOT_WORDS :][:SLOT_WORDS] for slot in range(slots)]
        self._pids[own] = os.getpid()
        self.meters = Meters(self._slots[own])

    def vacate(self, slot: int) -> None:
        """The process of a slot has ended: nobody waits there any more."""
        self._pids[slot] = 0
        Meters(self._slots[slot]).clear_gauges()

    def total(self) -> Meters:
        """The figures of all processes, as they are now; may be called in any thread."""
        used = self.meters.size
        return Meters(memoryview(array("q", map(sum, zip(*(slot[:used] for slot in self._slots), strict=True)))))

    def processes(self) -> list[tuple[int, int]]:
        """The slots that are taken, and the ids of the processes that have them."""
        return [(slot, pid) for slot, pid in enumerate(self._pids) if pid]

    def close(self) -> None:
        """Invite no more processes. A repeat does nothing."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
