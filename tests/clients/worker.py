"""A fake worker: it registers a dag, and works on a run over HTTP, a step at a time."""

from __future__ import annotations

from typing import Any

from tests.server import Server

LEASE = 600  # seconds; longer than a test


class Worker:
    """The claimant of a run of the dag ``etl``."""

    def __init__(self, server: Server) -> None:
        self.server = server
        dag = {
            "tasks": [{"task_id": "extract"}, {"task_id": "load", "mapped": True}, {"task_id": "sum", "result": True}]
        }
        self.config_id = str(self._ask("PUT", "/v1/dags/etl", dag)["config_id"])
        self.run = self.claim = ""
        self.tasks: dict[tuple[str, int, int], str] = {}

    def create_execution(self, **wish: Any) -> str:
        """Queue a run; its id."""
        return str(self._ask("POST", "/api/v1/executions", {"config_id": self.config_id, **wish})["id"])

    def claim_run(self) -> str:
        """Take the run that is due; its id."""
        run = self._ask("POST", "/v1/runs/claim", {"lease": LEASE})
        self.run, self.claim = run["id"], run["claim"]
        return self.run

    def create(self, task_id: str, map_index: int = -1, try_number: int = 1) -> str:
        """Create a task of the run; its id under /v1/tasks."""
        wish = {"task_id": task_id, "map_index": map_index, "try_number": try_number, "claim": self.claim}
        task = str(self._ask("POST", f"/v1/runs/{self.run}/tasks", wish)["id"])
        self.tasks[task_id, map_index, try_number] = task
        return task

    def append(self, task: str, *lines: str) -> None:
        """Print some lines; the first ones start the task."""
        self._ask("POST", f"/v1/tasks/{task}/output", {"lines": lines})

    def end(self, task: str, code: int = 0, value: Any = None) -> None:
        """End a task with a value."""
        self._ask("POST", f"/v1/tasks/{task}/finish", {"code": code, "result": {"type": "json", "data": value}})

    def finish(self, state: str | None = None) -> None:
        """End the run."""
        self._ask("POST", f"/v1/runs/{self.run}/finish", {"claim": self.claim, "state": state})

    def do(self, task_id: str, map_index: int = -1, try_number: int = 1, code: int = 0, value: Any = None) -> None:
        """A whole task: three events."""
        task = self.create(task_id, map_index, try_number)
        self.append(task, f"{task_id} begins", f"{task_id} ends")
        self.end(task, code, value)

    def do_all(self) -> None:
        """A whole run, from its claim to its end: fifteen events. A task of the mapped ones is tried twice."""
        self.claim_run()
        self.do("extract", value=[1, 2])
        self.do("load", 0, value=1)
        self.do("load", 1, code=1)
        self.do("load", 1, try_number=2, value=2)
        self.do("sum", value=3)
        self.finish()

    def _ask(self, method: str, path: str, body: object) -> Any:
        answer = self.server.call(method, path, body)
        assert answer.status in (200, 201), (method, path, answer)
        return answer.json


NAMES = [
    *("initiated", "processing", "completed"),
    *("initiated", "processing", "completed"),
    *("initiated", "processing", "failed"),
    *("initiated", "processing", "completed"),
    *("initiated", "processing", "completed"),
    "end",
]
"""The names of the events of a whole run."""
IDS = [*map(str, range(1, 16)), "15-end"]
"""Their ids."""
