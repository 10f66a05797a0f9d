"""``taskserver worker`` as a user starts it, and callers of its dags."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.e2e import cluster
from tests.e2e.commands import Commands, Running
from tests.server import EVENT_LIMIT, Server, until

DAGS = Path(__file__).parents[1] / "dags"


@contextlib.contextmanager
def working(taskserver: Commands, *arguments: str) -> Iterator[Running]:
    """A worker that has begun to claim runs; it is killed at the end."""
    with taskserver.start("worker", *arguments) as worker:
        limit = cluster.START_LIMIT if any("dask://" in argument for argument in arguments) else EVENT_LIMIT
        until(lambda: "working on" in worker.err or worker.process.poll() is not None, "the worker's start", limit)
        assert worker.process.poll() is None, worker.err
        yield worker


def call(server: Server, dag_id: str, wait: int = 20, **conf: Any) -> dict[str, Any]:
    """Trigger a run and wait for what comes out."""
    answer = server.post(f"/v1/dags/{dag_id}/run?wait={wait}", {"conf": conf})
    assert answer.status in (200, 202), answer
    return dict(answer.json)


def trigger(server: Server, dag_id: str, **conf: Any) -> str:
    """Trigger a run; its id."""
    return str(call(server, dag_id, 0, **conf)["id"])


def result(server: Server, run: str, wait: int = 20) -> dict[str, Any]:
    """What came out of a run."""
    return dict(server.get(f"/v1/runs/{run}/result?wait={wait}").json)


def tasks_of(server: Server, run: str) -> dict[tuple[str, int, int], dict[str, Any]]:
    """A run's tasks with their output, by task id, map index and try."""
    found = {}
    for task in server.get(f"/v1/runs/{run}").json["tasks"]:
        place = task["run"]
        shown = server.get(f"/v1/tasks/{task['id']}").json
        found[place["task_id"], place["map_index"], place["try_number"]] = shown
    return found


def until_ended(server: Server, run: str) -> dict[tuple[str, int, int], dict[str, Any]]:
    """A run's tasks when all of them have ended."""
    until(lambda: all(task["finished"] for task in server.get(f"/v1/runs/{run}").json["tasks"]), "the end of all tasks")
    return tasks_of(server, run)
