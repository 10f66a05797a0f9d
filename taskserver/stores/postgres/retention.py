"""Retention: removes what ended long ago, and what deleted tasks and runs left.

It goes past the group committer, whose groups must not wait for it, as another
node would: row locks and deletion in one transaction. One node at a time does it.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from taskserver.errors import RunNotFound
from taskserver.store import AnyChange, Ended
from taskserver.stores.chunks import SWEEP_BYTES, SWEEP_LOGS, SWEEP_ROWS, SWEEP_TASKS
from taskserver.stores.postgres.connect import Connection, Pool, transaction
from taskserver.stores.postgres.failures import as_answer
from taskserver.stores.postgres.transaction import PostgresTransaction

ANY_ENDED = (
    "SELECT 1 WHERE EXISTS (SELECT 1 FROM task WHERE finished_at < $1 AND run IS NULL)"
    " OR EXISTS (SELECT 1 FROM run WHERE finished_at < $1)"
)
ANY_DISCARDED = "SELECT 1 FROM discarded LIMIT 1"
COUNT_ENDED = (
    "SELECT (SELECT count(*) FROM task WHERE finished_at < $1 AND run IS NULL),"
    " (SELECT count(*) FROM run WHERE finished_at < $1)"
)
_RUNS = "SELECT id FROM run WHERE finished_at < $1 ORDER BY finished_at LIMIT $2"
_TURN = "hashtextextended('taskserver retention', 'discarded'::regclass::oid::bigint)"
_MY_TURN = f"SELECT pg_try_advisory_xact_lock({_TURN})"
_WAIT_FOR_MY_TURN = f"SELECT pg_advisory_xact_lock({_TURN})"
_DISCARDED = "SELECT log, run FROM discarded ORDER BY log LIMIT $1"
# The last ones first, so that what is left of a log has no gaps. `octet_length` does not read what it measures.
_CHUNKS = (
    "SELECT log, first, octet_length(payload) FROM chunk WHERE log = ANY($1) ORDER BY log DESC, first DESC LIMIT $2"
)
_REMOVE = "DELETE FROM chunk WHERE log = ANY($1) AND (log, first) >= ($2, $3)"
_DONE = "DELETE FROM discarded WHERE log = ANY($1)"


async def prune(pool: Pool, before: int, limit: int) -> tuple[Ended, Sequence[AnyChange]]:
    """See ``Store.prune``; and the changes to report."""
    try:
        async with transaction(pool) as connection:
            await connection.execute(_WAIT_FOR_MY_TURN)  # to say that there is nothing, one must have looked
            tx = PostgresTransaction(connection, alone=True)
            ended = await _prune(tx, before, limit)
            await tx.flush()
    except Exception as error:
        raise as_answer(error) from error
    return ended, tx.changes


async def _prune(tx: PostgresTransaction, before: int, limit: int) -> Ended:
    tasks = await tx.tasks.remove_ended(before, limit)
    left, runs = limit - tasks, 0
    for (run,) in await tx.db.fetch(_RUNS, before, left):
        if left <= 0:
            break
        try:
            left -= 1 + await tx.runs.delete(uuid.UUID(int=run.int), left)
        except RunNotFound:  # somebody has deleted it meanwhile
            continue
        runs += 1
    return Ended(tasks, runs)


async def sweep(pool: Pool) -> tuple[bool, Sequence[AnyChange]]:
    """See ``Store.sweep``; and the changes to report."""
    try:
        async with transaction(pool) as connection:
            if not await connection.fetchval(_MY_TURN):
                return False, ()
            tx = PostgresTransaction(connection, alone=True)
            more = await _sweep(tx)
            await tx.flush()
    except Exception as error:
        raise as_answer(error) from error
    return more, tx.changes


async def _sweep(tx: PostgresTransaction) -> bool:
    logs = []
    for log, run in await tx.db.fetch(_DISCARDED, SWEEP_LOGS):
        if run is not None:
            if await tx.tasks.remove_of_run(uuid.UUID(int=run.int), SWEEP_TASKS) == SWEEP_TASKS:
                return True
            await tx.db.execute("UPDATE discarded SET run = NULL WHERE log = $1", log)
        logs.append(log)
    await _remove_chunks(tx.db, logs)
    return await tx.db.fetchval(ANY_DISCARDED) is not None


async def _remove_chunks(connection: Connection, logs: Sequence[int]) -> None:
    """Remove the last chunks of some logs, and the logs that have none left."""
    rows = await connection.fetch(_CHUNKS, logs, SWEEP_ROWS)
    removed = freed = 0
    while removed < len(rows) and freed < SWEEP_BYTES:
        freed += rows[removed][2]
        removed += 1
    if removed:
        log, first, _ = rows[removed - 1]
        await connection.execute(_REMOVE, logs, log, first)
    if removed == SWEEP_ROWS or freed >= SWEEP_BYTES:  # of this log there may be more
        logs = [other for other in logs if other > log]
    await connection.execute(_DONE, logs)
