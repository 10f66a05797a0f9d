"""How tasks, chunks and keys lie in SQLite's tables: columns, keys and codecs."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Sequence
from contextlib import closing
from dataclasses import fields
from typing import Any

import orjson

from taskserver.config import MAX_LINE_NUMBER
from taskserver.dagmodel import Dag, DagTask, Run, RunState
from taskserver.encoding import cut
from taskserver.model import ApiKey, Chunk, Place, Scope, Task, TaskState
from taskserver.stores.chunks import CHUNK_BYTES, PLAIN, pack, split_chunk, unpack

Row = Sequence[Any]

LINE_BITS = 32  # of a chunk's key; the log has the 31 above

# Where a live task's output ends, its newest chunk tells: so an append need not touch the task's row.
_LAST = (
    "CASE WHEN finished_at IS NOT NULL THEN last ELSE coalesce("
    "(SELECT (chunk.key & 4294967295) + chunk.count FROM chunk"
    " WHERE chunk.key >= task.log << 32 AND chunk.key < (task.log + 1) << 32 ORDER BY chunk.key DESC LIMIT 1),"
    " last) END"
)
TASK_COLUMNS = (
    f"log, id, owner, name, state, {_LAST}, code, error, labels, created_at, started_at, finished_at,"
    " lease_us, lease_expires_at, cancel_requested, version, run, task_id, map_index, try_number"
)
RUN_FIELDS = tuple(field.name for field in fields(Run))  # the columns have the fields' names
RUN_COLUMNS = ", ".join(RUN_FIELDS)
DAG_COLUMNS = "dag_id, owner, config_id, display_name, retries, tasks, created_at, updated_at"
KEY_COLUMNS = "id, name, owner, scopes, hash, created_at, expires_at, revoked_at"


def task_from_row(row: Row) -> Task:
    """A task from TASK_COLUMNS and, if it was selected, ``result`` behind them.

    The column ``version`` counts the changes of the row; each line is a change too.
    """
    return Task(
        log=row[0],
        id=row[1],
        owner=row[2],
        name=row[3],
        state=TaskState(row[4]),
        last=row[5],
        code=row[6],
        error=row[7],
        labels=orjson.loads(row[8]),
        created_at=row[9],
        started_at=row[10],
        finished_at=row[11],
        lease_us=row[12],
        lease_expires_at=row[13],
        cancel_requested=bool(row[14]),
        version=row[15] + row[5],
        place=None if row[16] is None else Place(uuid.UUID(row[16]), row[17], row[18], row[19]),
        result=row[20] if len(row) > 20 else None,
    )


def run_from_row(row: Row) -> Run:
    """A run from RUN_COLUMNS."""
    values = dict(zip(RUN_FIELDS, row, strict=True))
    values["id"] = uuid.UUID(values["id"])
    values["state"] = RunState(values["state"])
    values["tasks"] = _load_dag_tasks(values["tasks"])
    values["cancel_requested"] = bool(values["cancel_requested"])
    return Run(**values)


def run_to_row(run: Run) -> Row:
    """The values of RUN_COLUMNS."""
    values = {name: getattr(run, name) for name in RUN_FIELDS}
    values["id"] = str(run.id)
    values["state"] = run.state.value
    values["tasks"] = dump_dag_tasks(run.tasks)
    return tuple(values.values())


def dag_from_row(row: Row) -> Dag:
    """A dag from DAG_COLUMNS."""
    return Dag(row[0], row[1], uuid.UUID(row[2]), row[3], row[4], _load_dag_tasks(row[5]), row[6], row[7])


def dump_dag_tasks(tasks: Sequence[DagTask]) -> str:
    """A dag's tasks as the ``tasks`` columns have them."""
    return orjson.dumps([(task.task_id, task.result, task.mapped) for task in tasks]).decode()


def _load_dag_tasks(text: str) -> tuple[DagTask, ...]:
    return tuple(DagTask(*values) for values in orjson.loads(text))


def key_from_row(row: Row) -> ApiKey:
    """An API key from KEY_COLUMNS."""
    return ApiKey(
        id=row[0],
        name=row[1],
        owner=row[2],
        scopes=frozenset(Scope(scope) for scope in row[3].split()),
        hash=row[4],
        created_at=row[5],
        expires_at=row[6],
        revoked_at=row[7],
    )


def key_to_row(key: ApiKey) -> Row:
    """The values of KEY_COLUMNS."""
    scopes = " ".join(sorted(scope.value for scope in key.scopes))
    return (key.id, key.name, key.owner, scopes, key.hash, key.created_at, key.expires_at, key.revoked_at)


# --- chunks --------------------------------------------------------------------

# The chunk that holds line `first` is the last one that does not begin behind it.
FIND_CHUNKS = (
    "SELECT key, count, codec, payload, side FROM chunk"
    " WHERE key >= coalesce((SELECT max(key) FROM chunk WHERE key BETWEEN ? AND ?), ?) AND key < ?"
    " ORDER BY key"
)


def chunk_key(log: int, first: int) -> int:
    """The key of the chunk of a log that begins with line ``first``."""
    return log << LINE_BITS | first


def find_chunks_arguments(log: int, first: int, end: int) -> Row:
    """The arguments of FIND_CHUNKS for lines ``[first, end)``."""
    start = chunk_key(log, first)
    return (chunk_key(log, 0), start, start, chunk_key(log, end))


def chunk_from_row(row: Row) -> Chunk:
    """A chunk from the columns of FIND_CHUNKS, decompressed; that takes 30 to 100 µs and lets go of the interpreter."""
    key, count, codec, payload, side = row
    return unpack(key & (1 << LINE_BITS) - 1, count, codec, payload, side)


def chunk_to_rows(log: int, chunk: Chunk) -> list[Row]:
    """Rows for an append: one, unless it is much larger than a chunk should be."""
    if len(chunk.payload) < 2 * CHUNK_BYTES:
        return [(chunk_key(log, chunk.first), chunk.count, PLAIN, chunk.payload, chunk.side)]
    return [(chunk_key(log, part.first), part.count, PLAIN, part.payload, part.side) for part in split_chunk(chunk)]


def sealed_row(log: int, chunk: Chunk) -> Row:
    """A chunk's row, bare and compressed."""
    return (chunk_key(log, chunk.first), chunk.count, *pack(chunk))


INSERT_CHUNK = "INSERT INTO chunk (key, count, codec, payload, side) VALUES (?, ?, ?, ?, ?)"


def read_chunks(connection: sqlite3.Connection, log: int, first: int, end: int) -> list[Chunk]:
    """All chunks that hold lines ``[first, end)``, whole: for the few lines of a retry."""
    return [chunk_from_row(row) for row in connection.execute(FIND_CHUNKS, find_chunks_arguments(log, first, end))]


def read_page(
    connection: sqlite3.Connection, log: int, first: int, end: int, max_bytes: int, max_rows: int = MAX_LINE_NUMBER
) -> list[Chunk]:
    """Lines of a log from ``first`` on, at most up to ``end``, until they have ``max_bytes``; see ``Store.read``."""
    chunks: list[Chunk] = []
    if first >= end:
        return chunks
    with closing(connection.execute(FIND_CHUNKS, find_chunks_arguments(log, first, end))) as rows:
        for row in rows:
            chunk = cut(chunk_from_row(row), first, end)
            if not chunk.count:  # it ends where we would begin: there is nothing at `first` yet
                break
            chunks.append(chunk)
            first = chunk.end
            max_bytes -= len(chunk.payload)
            if max_bytes <= 0 or len(chunks) == max_rows:
                break
    return chunks
