"""A worker for the tests with Airflow's clients: it claims runs and works on them over our own API."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.server import Server

PACE = 0.1  # seconds between two lines of a task
CLAIM_WAIT = 1  # seconds; then it looks whether it is to stop

DAG, TASK = "my_dag", "my_task"


class Worker(threading.Thread):
    """Claims one run after the other and gives ``work`` each of them; a run is a success if ``work`` returns."""

    def __init__(self, server: Server, work: Callable[[Worker, Mapping[str, Any]], None]) -> None:
        super().__init__()
        self._server = server
        self._work = work
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.is_set():
            claimed = self._server.post(f"/v1/runs/claim?wait={CLAIM_WAIT}", {"dags": [DAG]})
            if claimed.status == 200:
                self._work(self, claimed.json)
                self._ask(f"/v1/runs/{claimed.json['id']}/finish", {"claim": claimed.json["claim"]})

    def stop(self) -> None:
        """End it, behind what it is working on."""
        self._stopping.set()
        self.join()

    def do(self, run: Mapping[str, Any], task_id: str, lines: Sequence[str], value: object, code: int = 0) -> None:
        """A task of the run that prints lines, one by one, and ends."""
        task = self._ask(f"/v1/runs/{run['id']}/tasks", {"task_id": task_id, "claim": run["claim"]}, 201)["id"]
        for number, line in enumerate(lines):
            self._ask(f"/v1/tasks/{task}/output?first={number}", {"lines": [line]})
            time.sleep(PACE)  # a task that takes its time, so that there is something to wait for
        self._ask(f"/v1/tasks/{task}/finish", {"code": code, "result": {"type": "json", "data": value}})

    def _ask(self, path: str, body: object, status: int = 200) -> Any:
        answer = self._server.post(path, body)
        assert answer.status == status, answer
        return answer.json


def register(server: Server, *results: str) -> None:
    """Register the dag; these are its results."""
    tasks = [{"task_id": task_id, "result": True} for task_id in results]
    assert server.call("PUT", f"/v1/dags/{DAG}", {"tasks": tasks, "display_name": "My dag"}).status == 200
