"""What is the same in the rows of all SQL stores: names of columns, dags' tasks, keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import orjson

from taskserver.dagmodel import DagTask, Run
from taskserver.model import ApiKey, Scope

Row = Sequence[Any]

RUN_FIELDS = tuple(field.name for field in fields(Run))  # the columns have the fields' names
RUN_COLUMNS = ", ".join(RUN_FIELDS)
RUN_CHANGES = (
    "state", "started_at", "finished_at", "error", "last", "attempt", "claim", "lease_us", "lease_expires_at",
    "cancel_requested", "retries", "version",
)  # fmt: skip
"""The columns of a run that change after its creation."""
DAG_COLUMNS = "dag_id, owner, config_id, display_name, retries, tasks, created_at, updated_at"
KEY_COLUMNS = "id, name, owner, scopes, hash, created_at, expires_at, revoked_at"


def dump_dag_tasks(tasks: Sequence[DagTask]) -> str:
    """A dag's tasks as the ``tasks`` columns have them."""
    return orjson.dumps([(task.task_id, task.result, task.mapped) for task in tasks]).decode()


def load_dag_tasks(text: str) -> tuple[DagTask, ...]:
    """A dag's tasks from such a column."""
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
