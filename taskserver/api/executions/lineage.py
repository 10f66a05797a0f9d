"""What an execution consisted of (PROTOCOLS.md, C5)."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from taskserver.api.executions.answers import json_answer
from taskserver.api.executions.executions import find_execution
from taskserver.api.executions.schemas import LineageQuery
from taskserver.model import Task
from taskserver.summaries import event_fields
from taskserver.web.context import caller, services
from taskserver.web.validation import load_query

LINEAGE_QUERY = LineageQuery()


async def get_lineage(request: web.Request) -> web.StreamResponse:
    """An execution's tasks in the order in which they started; those that have not started come last."""
    limit = load_query(request, LINEAGE_QUERY)["limit"]
    run = await find_execution(request)
    tasks = await services(request).runs.tasks(caller(request), run)
    shown = sorted(tasks, key=_by_start)[:limit]
    return json_answer({"execution_id": str(run.id), "entries": [_entry(task) for task in shown], "total": len(tasks)})


def _by_start(task: Task) -> tuple[bool, int, int]:
    return (task.started_at is None, task.started_at or 0, task.log)


def _entry(task: Task) -> dict[str, Any]:
    """A task as its events tell it, with the id under which its output can be read (A1)."""
    assert task.place is not None
    return {"id": task.id, "try_number": task.place.try_number, **event_fields(task)}
