"""Context: what a task may know of the run that it is part of."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from taskserver.dagmodel import NOT_MAPPED


@dataclass(frozen=True)
class Context:
    """The run and the task that this code is part of.

    Attributes:
        dag_id: the dag.
        run: the run's id, a UUID; empty in ``Dag.test``.
        run_id: the name by which Airflow's callers know it.
        conf: what the caller sent along.
        task_id: the task.
        map_index: which of a mapped task's instances this is; -1 if it is not mapped.
        try_number: 1 for the first try.
    """

    dag_id: str
    task_id: str
    run: str = ""
    run_id: str = ""
    conf: Mapping[str, Any] = field(default_factory=dict)
    map_index: int = NOT_MAPPED
    try_number: int = 1


CURRENT: ContextVar[Context | None] = ContextVar("taskserver_context", default=None)


def context() -> Context:
    """The context of the task that is running. Raises RuntimeError outside of one."""
    current = CURRENT.get()
    if current is None:
        raise RuntimeError("context() is for code that runs as a task")
    return current
