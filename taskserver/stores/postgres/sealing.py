"""Sealing: rewrites a finished task's chunks into few, compressed ones, a megabyte per commit.

Each node may seal whatever has ended. An advisory lock on the log keeps two of
them from compressing the same chunks: the one that waited takes the next ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from taskserver.model import Chunk
from taskserver.stores.chunks import PLAIN, join_chunks, split_chunk
from taskserver.stores.postgres.connect import Connection, Pool, transaction
from taskserver.stores.postgres.failures import as_answer
from taskserver.stores.postgres.rows import ADD_CHUNKS, Row, chunk_from_row, columns_of, sealed_row

SEAL_BYTES = 1024 * 1024  # of output per commit
SEAL_ROWS = 4096

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('taskserver seal', $1))"
# The next chunks that are not sealed yet, up to SEAL_BYTES: what is sealed lies in front of them, since sealing
# goes from line 0 on. `octet_length` does not read what it measures.
_NEXT = (
    "SELECT first, count, codec, payload, side FROM ("
    " SELECT *, sum(octet_length(payload)) OVER (ORDER BY first) - octet_length(payload) AS before FROM"
    f" (SELECT * FROM chunk WHERE log = $1 AND codec = {PLAIN} ORDER BY first LIMIT {SEAL_ROWS}) AS few"
    f") AS measured WHERE before < {SEAL_BYTES} ORDER BY first"
)
_STILL_THERE = "SELECT 1 FROM task WHERE log = $1 AND finished_at IS NOT NULL FOR UPDATE"
_DELETE = "DELETE FROM chunk WHERE log = $1 AND first >= $2 AND first < $3"


async def seal(pool: Pool, log: int) -> None:
    """See ``Store.seal``."""
    more = True
    while more:
        try:
            async with transaction(pool) as connection:
                more = await _seal_portion(connection, log)
        except Exception as error:
            raise as_answer(error) from error


async def _seal_portion(connection: Connection, log: int) -> bool:
    """Seal the next chunks; False if there are no more."""
    await connection.execute(_LOCK, log)
    chunks = [chunk_from_row(row) for row in await connection.fetch(_NEXT, log)]
    # Compression runs in a thread: it takes milliseconds and lets go of the interpreter.
    rows = await asyncio.to_thread(_sealed_rows, log, chunks) if chunks else []
    # Only now, because who deletes or repeats itself must not wait for the compression.
    if await connection.fetchval(_STILL_THERE, log) is None:
        return False
    if not rows:
        await connection.execute("UPDATE task SET sealed = true WHERE log = $1", log)
        return False
    await connection.execute(_DELETE, log, chunks[0].first, chunks[-1].end)
    await connection.execute(ADD_CHUNKS, *columns_of(rows))
    return True


def _sealed_rows(log: int, chunks: Sequence[Chunk]) -> list[Row]:
    return [sealed_row(log, part) for part in split_chunk(join_chunks(chunks))]
