"""The shapes of the room's answers: an execution is a run in other words."""

from __future__ import annotations

import uuid
from typing import Any

from aiohttp import web

from taskserver.dagmodel import Run, RunState, RunStats
from taskserver.jsontext import dumps, isotime
from taskserver.web.streaming import NO_STORE

JSON = "application/json"

STATUS = {
    RunState.QUEUED: "running",
    RunState.RUNNING: "running",
    RunState.SUCCESS: "completed",
    RunState.FAILED: "failed",
    RunState.CANCELLED: "cancelled",
    RunState.INTERRUPTED: "interrupted",
}


def json_answer(value: object, status: int = 200) -> web.Response:
    """A value as the room's JSON."""
    return web.Response(body=dumps(value), status=status, headers={**NO_STORE, "Content-Type": JSON})


def execution(run: Run, config_id: uuid.UUID) -> dict[str, Any]:
    """An execution as the answer to its creation tells it.

    It counts as running from its acceptance on, so that is when it started.
    """
    return {
        "id": str(run.id),
        "config_id": str(config_id),
        "status": STATUS[run.state],
        "started_at": isotime(run.queued_at),
        "completed_at": isotime(run.finished_at),
        "tag": run.tag,
    }


def error_info(run: Run) -> dict[str, str] | None:
    """Why an execution ended otherwise than completed."""
    if not run.finished or run.state is RunState.SUCCESS:
        return None
    return {"message": run.error or f"execution {STATUS[run.state]}"}


def statistics(run: Run, stats: RunStats) -> dict[str, Any]:
    """The run's tasks counted by state; the original calls them messages."""
    return {
        "execution_id": str(run.id),
        "total_messages": stats.total,
        "completed_messages": stats.completed,
        "failed_messages": stats.failed,
        "in_progress_messages": stats.in_progress,
        "success_rate": stats.success_rate,
    }
