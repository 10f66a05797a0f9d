"""Sealing: rewrites a finished task's chunks into few, compressed ones, a small portion per commit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from taskserver.config import MAX_LINE_NUMBER
from taskserver.model import Chunk
from taskserver.stores.chunks import join_chunks, split_chunk
from taskserver.stores.rows import Row
from taskserver.stores.sqlite.readers import Readers
from taskserver.stores.sqlite.rows import read_page, sealed_row
from taskserver.stores.sqlite.tasks import TaskWrites

# What the sealer rewrites in one commit: what waits behind it waits a millisecond or two.
SEAL_BYTES = 256 * 1024
SEAL_ROWS = 1000  # that many appends of one line make one chunk


async def seal(log: int, readers: Readers, commit: Callable[..., Awaitable[Any]]) -> None:
    """See ``Store.seal``. ``commit`` has a method of ``TaskWrites`` done."""
    first, loop = 0, asyncio.get_running_loop()
    began = loop.time()
    while chunks := await readers.run(read_page, log, first, MAX_LINE_NUMBER, SEAL_BYTES, SEAL_ROWS):
        # Compression runs in a thread: it takes milliseconds and lets go of the interpreter.
        rows = await asyncio.to_thread(_seal_rows, log, chunks)
        if not await commit(TaskWrites.replace_chunks, log, chunks, rows):
            return  # it was deleted, or somebody else is sealing it
        first = chunks[-1].end
        # Half of the time belongs to those who wait for an answer; nobody waits for this.
        await asyncio.sleep(loop.time() - began)
        began = loop.time()
    await commit(TaskWrites.mark_sealed, log)


def _seal_rows(log: int, chunks: Sequence[Chunk]) -> list[Row]:
    return [sealed_row(log, part) for part in split_chunk(join_chunks(chunks))]
