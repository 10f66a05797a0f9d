"""The retention part of a transaction: removes what ended long ago, and what deleted tasks and runs left."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from taskserver.store import Ended
from taskserver.stores.chunks import SWEEP_BYTES, SWEEP_LOGS, SWEEP_ROWS, SWEEP_TASKS
from taskserver.stores.sqlite.rows import TASK_COLUMNS, chunk_key, task_from_row

if TYPE_CHECKING:
    from taskserver.stores.sqlite.transaction import SqliteTransaction

COUNT_TASKS = "SELECT count(*) FROM task WHERE finished_at < ? AND run IS NULL"
COUNT_RUNS = "SELECT count(*) FROM run WHERE finished_at < ?"
ANY_ENDED = (
    "SELECT 1 WHERE EXISTS (SELECT 1 FROM task WHERE finished_at < ? AND run IS NULL)"
    " OR EXISTS (SELECT 1 FROM run WHERE finished_at < ?)"
)
ANY_DISCARDED = "SELECT 1 FROM discarded LIMIT 1"
_TASKS = f"SELECT {TASK_COLUMNS} FROM task WHERE finished_at < ? AND run IS NULL ORDER BY finished_at LIMIT ?"
_RUNS = "SELECT id FROM run WHERE finished_at < ? ORDER BY finished_at LIMIT ?"
# The last ones first, so that what is left of a log has no gaps.
_CHUNKS = "SELECT key, length(payload) FROM chunk WHERE key >= ? AND key < ? ORDER BY key DESC LIMIT ?"


class RetentionWrites:
    """Removals within one transaction."""

    def __init__(self, tx: SqliteTransaction) -> None:
        self._tx = tx
        self._db = tx.db

    def prune(self, before: int, limit: int) -> Ended:
        self._tx.flush()
        tasks = [task_from_row(row) for row in self._db.execute(_TASKS, (before, limit))]
        for task in tasks:
            self._tx.tasks.remove(task)
        left, runs = limit - len(tasks), 0
        for (run,) in self._db.execute(_RUNS, (before, left)).fetchall():
            if left <= 0:
                break
            left -= 1 + self._tx.runs.delete(uuid.UUID(run), left)
            runs += 1
        return Ended(len(tasks), runs)

    def sweep(self) -> bool:
        self._tx.flush()  # what was written behind the removal would stay for ever: nothing would tell of it any more
        rows, size = SWEEP_ROWS, SWEEP_BYTES
        discarded = self._db.execute("SELECT log, run FROM discarded ORDER BY log LIMIT ?", (SWEEP_LOGS,))
        for log, run in discarded.fetchall():
            if run is not None:
                if self._tx.tasks.remove_of_run(uuid.UUID(run), SWEEP_TASKS) == SWEEP_TASKS:
                    return True
                self._db.execute("UPDATE discarded SET run = NULL WHERE log = ?", (log,))
            removed, freed = self._remove_chunks(log, rows, size)
            rows, size = rows - removed, size - freed
            if rows <= 0 or size <= 0:
                return True
            self._db.execute("DELETE FROM discarded WHERE log = ?", (log,))
        return self._db.execute(ANY_DISCARDED).fetchone() is not None

    def _remove_chunks(self, log: int, rows: int, size: int) -> tuple[int, int]:
        """Remove a log's last chunks: so many rows, or what has so many bytes. How many of both."""
        start, end = chunk_key(log, 0), chunk_key(log + 1, 0)
        removed = freed = 0
        for key, length in self._db.execute(_CHUNKS, (start, end, rows)).fetchall():
            start = key
            removed += 1
            freed += length
            if freed >= size:
                break
        if removed:
            self._db.execute("DELETE FROM chunk WHERE key >= ? AND key < ?", (start, end))
        return removed, freed
