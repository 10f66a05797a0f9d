"""How tasks, chunks, runs and keys lie in PostgreSQL's tables."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from taskserver.dagmodel import Dag, Run, RunState
from taskserver.jsontext import dumps
from taskserver.model import Chunk, Place, Task, TaskState
from taskserver.stores.chunks import PLAIN, pack, split_chunk, unpack
from taskserver.stores.rows import RUN_FIELDS, Row, dump_dag_tasks, load_dag_tasks

# The names of a task's columns, in the order of `task_to_row`.
TASK_FIELDS = (
    "log", "id", "owner", "name", "state", "last", "code", "error", "labels", "created_at", "started_at",
    "finished_at", "lease_us", "lease_expires_at", "cancel_requested", "version", "run", "task_id", "map_index",
    "try_number",
)  # fmt: skip
TASK_COLUMNS = ", ".join(TASK_FIELDS)
CHUNK_COLUMNS = "log, first, count, codec, payload, side"

LEASED = "finished_at IS NULL AND lease_us IS NOT NULL"  # of tasks and runs; what the partial indexes hold
OVERDUE = f"{LEASED} AND lease_expires_at <= $1 AND lease_us <= $2"  # at $1, if everybody could be heard for $2 µs


def marks(count: int) -> str:
    """``$1, $2, …``, one for each of ``count`` arguments."""
    return ", ".join(f"${number}" for number in range(1, count + 1))


def task_from_row(row: Row) -> Task:
    """A task from TASK_COLUMNS and, if it was selected, ``result`` behind them."""
    return Task(
        log=row[0],
        id=row[1],
        owner=row[2],
        name=row[3],
        state=TaskState(row[4]),
        last=row[5],
        code=row[6],
        error=row[7],
        labels=dict(orjson.loads(label) for label in row[8]),
        created_at=row[9],
        started_at=row[10],
        finished_at=row[11],
        lease_us=row[12],
        lease_expires_at=row[13],
        cancel_requested=row[14],
        version=row[15],
        place=None if row[16] is None else Place(_uuid(row[16]), row[17], row[18], row[19]),
        result=row[20] if len(row) > 20 else None,
    )


def task_to_row(task: Task) -> Row:
    """The values of TASK_COLUMNS and ``result``."""
    return (
        task.log,
        task.id,
        task.owner,
        task.name,
        task.state.value,
        task.last,
        task.code,
        task.error,
        label_texts(task.labels),
        task.created_at,
        task.started_at,
        task.finished_at,
        task.lease_us,
        task.lease_expires_at,
        task.cancel_requested,
        task.version,
        *place_to_row(task.place),
        task.result,
    )


def place_to_row(place: Place | None) -> Row:
    """The values of ``run, task_id, map_index, try_number``."""
    return (None,) * 4 if place is None else (place.run, place.task_id, place.map_index, place.try_number)


def label_texts(labels: Mapping[str, str]) -> list[str]:
    """Labels as their column has them."""
    return [dumps(label).decode() for label in labels.items()]


def run_from_row(row: Row) -> Run:
    """A run from RUN_COLUMNS."""
    values = dict(zip(RUN_FIELDS, row, strict=True))
    values["id"] = _uuid(values["id"])
    values["state"] = RunState(values["state"])
    values["tasks"] = load_dag_tasks(values["tasks"])
    return Run(**values)


def run_to_row(run: Run) -> Row:
    """The values of RUN_COLUMNS."""
    values = {name: getattr(run, name) for name in RUN_FIELDS}
    values["state"] = run.state.value
    values["tasks"] = dump_dag_tasks(run.tasks)
    return tuple(values.values())


def dag_from_row(row: Row) -> Dag:
    """A dag from DAG_COLUMNS."""
    return Dag(row[0], row[1], _uuid(row[2]), row[3], row[4], load_dag_tasks(row[5]), row[6], row[7])


def dag_to_row(dag: Dag) -> Row:
    """The values of DAG_COLUMNS."""
    tasks = dump_dag_tasks(dag.tasks)
    times = (dag.created_at, dag.updated_at)
    return (dag.dag_id, dag.owner, dag.config_id, dag.display_name, dag.retries, tasks, *times)


def _uuid(value: uuid.UUID) -> uuid.UUID:
    """The driver has a UUID class of its own, which not everybody takes for one."""
    return uuid.UUID(int=value.int)


# --- chunks --------------------------------------------------------------------

# The chunk that holds line `first` ($2) is the last one that does not begin behind it.
FIND_CHUNKS = (
    "SELECT first, count, codec, payload, side FROM chunk WHERE log = $1"
    " AND NOT EXISTS (SELECT 1 FROM discarded WHERE log = $1) AND first >="
    " coalesce((SELECT max(first) FROM chunk WHERE log = $1 AND first <= $2), $2) AND first < $3"
    " ORDER BY first LIMIT $4"
)
# One argument for each column of many rows: one statement however many there are.
_CHUNK_TYPES = ("bigint", "bigint", "integer", "smallint", "bytea", "bytea")


def add_chunks(first_argument: int) -> str:
    """The statement that adds chunks, with its arguments from ``$first_argument`` on."""
    columns = ", ".join(f"${number}::{name}[]" for number, name in enumerate(_CHUNK_TYPES, first_argument))
    return f"INSERT INTO chunk ({CHUNK_COLUMNS}) SELECT new.* FROM unnest({columns}) AS new ({CHUNK_COLUMNS})"


ADD_CHUNKS = add_chunks(1)


def chunk_from_row(row: Row) -> Chunk:
    """A chunk from the columns of FIND_CHUNKS, decompressed."""
    first, count, codec, payload, side = row
    return unpack(first, count, codec, payload, side)


def is_packed(row: Row) -> bool:
    """Whether the chunk of a row of FIND_CHUNKS must be decompressed."""
    return bool(row[2] != PLAIN)


def chunk_to_rows(log: int, chunk: Chunk) -> Iterator[Row]:
    """Rows for an append: one, unless it is much larger than a chunk should be."""
    for part in split_chunk(chunk):
        yield (log, part.first, part.count, PLAIN, part.payload, part.side)


def sealed_row(log: int, chunk: Chunk) -> Row:
    """A chunk's row, bare and compressed."""
    return (log, chunk.first, chunk.count, *pack(chunk))


def columns_of(rows: Sequence[Row]) -> list[list[Any]]:
    """Rows as the arguments of a statement with ``unnest``. There must be one at least."""
    return [list(column) for column in zip(*rows, strict=True)]
