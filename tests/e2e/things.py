"""What generated requests can be about: things that exist, some that have ended and some to change."""

from __future__ import annotations

import itertools
from typing import Any

import requests

from tests.server import Server

LIMIT = 20.0  # seconds for any answer
WORK = "work"  # the task of each run
ENDED, WORKED, CHANGED = "ended", "worked", "changed"  # dags: to look at, for runs to work on, to replace and trigger
SHARED = 4  # so many changes meet the same thing: the later ones find what the first have made of it


class Things:
    """Things on a server, made by asking it. ``secrets`` are values that bodies must hold to be taken."""

    def __init__(self, server: Server) -> None:
        self.url = server.url
        self.session = requests.Session()
        self.headers = {"Authorization": f"Bearer {server.key}"}  # as all rooms take it
        self.secrets = {"username": "admin", "password": server.key}
        self._numbers = itertools.count()
        self._changes = 0
        self._fresh: dict[str, str] = {}
        for dag in (ENDED, WORKED, CHANGED):
            shown = self._ask("PUT", f"/v1/dags/{dag}", {"tasks": [{"task_id": WORK, "result": True}]})
            self.secrets["config_id"] = shown["config_id"]
        self._ended = self._new_run(ENDED)
        last_lines = {"output": ["one", "two"], "result": {"type": "json", "data": {"n": 1}}}
        self._ask("POST", f"/v1/tasks/{self._ended['task']}/finish", last_lines)
        self._ask("POST", f"/v1/runs/{self._ended['run']}/finish", {"claim": self.secrets["claim"]})

    def close(self) -> None:
        """Close the connections."""
        self.session.close()

    def named(self, method: str, path: str) -> dict[str, str]:
        """Path parameters that name what exists: for reads and waits what has ended, so that they end too."""
        if path.startswith("/v1/keys/"):
            return {"id": self._ask("POST", "/v1/keys", {"name": f"key{next(self._numbers)}"})["id"]}
        reads = method == "GET" or path.endswith("/wait")
        thing = self._ended if reads else self._to_change(method)
        return {
            "id": thing["task" if path.startswith(("/v1/tasks/", "/v1/experimental/")) else "run"],
            "dag_id": ENDED if reads else CHANGED,
            "dag_run_id": thing["name"],
            "task_id": WORK,
            "try_number": "1",
            "file": "app.js" if path.startswith("/dashboard/") else "docs.js",
        }

    def _to_change(self, method: str) -> dict[str, str]:
        if method == "DELETE":
            thing = self._new_run(WORKED)
            self._ask("POST", f"/v1/tasks/{thing['task']}/finish", {})
            return thing
        if self._changes % SHARED == 0:
            self._fresh = self._new_run(WORKED)
        self._changes += 1
        return self._fresh

    def _new_run(self, dag: str) -> dict[str, str]:
        """A claimed run with a running task; its claim is the secret of that name from now on."""
        self.secrets["claim"] = claim = f"the claimant's word {next(self._numbers)}"
        self._ask("POST", f"/v1/dags/{dag}/runs", {})
        run = self._ask("POST", "/v1/runs/claim", {"dags": [dag], "claim": claim})
        task = self._ask("POST", f"/v1/runs/{run['id']}/tasks", {"task_id": WORK, "claim": claim})
        self._ask("POST", f"/v1/tasks/{task['id']}/heartbeat", None)
        return {"run": run["id"], "name": run["run_id"], "task": task["id"]}

    def _ask(self, method: str, path: str, body: Any) -> Any:
        answer = self.session.request(method, self.url + path, json=body, headers=self.headers, timeout=LIMIT)
        assert answer.ok, answer.text
        return answer.json()
