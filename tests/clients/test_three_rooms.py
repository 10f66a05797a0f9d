"""One run walked through all three protocols: Connect's, Airflow's and executions show the same things."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.clients.worker import NAMES, Worker
from tests.conftest import every_way_to_serve
from tests.server import Server

LIMIT = 60.0  # seconds
RUNS = "/api/v2/dags/etl/dagRuns"


@pytest.fixture
def worker(server: Server) -> Worker:
    return Worker(server)


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """A user, who may read and write, with the one header that all three rooms take."""
    user = server.new_key("ann", "read", "write", owner="admin")
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {user}"}, timeout=LIMIT) as found:
        yield found


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as found:
        yield found


def get(client: httpx.Client, path: str, **query: Any) -> Any:
    return client.get(path, params=query).raise_for_status().json()


def lines(client: httpx.Client, path: str, **query: Any) -> list[str]:
    """All lines of an answer that is streamed, when it has ended."""
    return client.get(path, params=query).raise_for_status().text.splitlines()


@every_way_to_serve
def test_a_run_of_airflows_is_shown_the_same_in_all_rooms(
    client: httpx.Client, worker: Worker, pool: ThreadPoolExecutor
) -> None:
    # Triggered, and waited for, as Airflow's callers do.
    triggered = client.post(RUNS, json={"logical_date": None, "conf": {"day": 7}}).raise_for_status().json()
    path = f"{RUNS}/{triggered['dag_run_id']}"
    airflow: Future[list[str]] = pool.submit(lines, client, f"{path}/wait", interval=0.2)

    # A worker takes it up.
    worker.claim_run()
    extract = worker.create("extract")
    worker.append(extract, "extract begins")

    # The task is seen, tailed and known to belong to the run, which is an execution.
    (task,) = get(client, "/v1/tasks", name="extract")["tasks"]
    assert task["id"] == extract
    tail = pool.submit(lines, client, f"/v1/tasks/{extract}/output", format="text", follow="true")
    execution = f"/api/v1/executions/{task['run']['id']}"
    wait = pool.submit(client.post, f"{execution}/wait", json={"timeout": LIMIT})
    events = pool.submit(lines, client, f"{execution}/events")
    assert get(client, execution)["status"] == "running"
    assert get(client, path)["state"] == "running"

    # It works on; Airflow's caller has seen it run before it ends.
    worker.append(extract, "extract ends")
    worker.end(extract, value=[1, 2])
    worker.do("load", 0, value=1)
    worker.do("load", 1, code=1)
    worker.do("load", 1, try_number=2, value=2)
    worker.do("sum", value=3)
    assert not airflow.done()
    assert not wait.done()
    worker.finish()

    # All are told the end, and the same.
    states = [json.loads(line) for line in airflow.result(LIMIT)]
    assert states[-1] == {"state": "success", "results": {"sum": 3}}
    assert {state["state"] for state in states[:-1]} <= {"queued", "running"}
    waited = wait.result(LIMIT).raise_for_status().json()
    assert (waited["completed"], waited["status"]) == (True, "completed")
    assert (waited["stats"]["total_messages"], waited["stats"]["success_rate"]) == (4, 1.0)
    assert [line.removeprefix("event: ") for line in events.result(LIMIT) if line.startswith("event: ")] == NAMES
    assert tail.result(LIMIT) == ["extract begins", "extract ends"]

    # What can be looked at afterwards is the same too.
    run = get(client, f"/v1/runs/{task['run']['id']}")
    as_airflow, as_execution = get(client, path), get(client, execution)
    assert (run["state"], as_airflow["state"], as_execution["status"]) == ("success", "success", "completed")
    assert run["run_id"] == as_airflow["dag_run_id"] == triggered["dag_run_id"]
    assert run["conf"] == as_airflow["conf"] == {"day": 7}
    assert run["queued_at"] == as_airflow["queued_at"] == as_execution["started_at"]
    assert run["started_at"] == as_airflow["start_date"]
    assert run["finished_at"] == as_airflow["end_date"] == as_execution["completed_at"]
    assert as_execution["config_id"] == worker.config_id
    lineage = get(client, f"{execution}/lineage")["entries"]
    assert [entry["id"] for entry in lineage] == [shown["id"] for shown in run["tasks"]]
    assert [entry["id"] for entry in lineage] == list(worker.tasks.values())


def test_output_and_results_are_the_same_in_all_rooms(client: httpx.Client, worker: Worker) -> None:
    triggered = client.post(RUNS, json={"logical_date": None}).raise_for_status().json()
    worker.do_all()
    path = f"{RUNS}/{triggered['dag_run_id']}"
    wait = lines(client, f"{path}/wait", interval=1, result=["extract", "load", "sum"])
    results = json.loads(wait[-1])["results"]
    assert results == {"extract": [1, 2], "load": [1, 2], "sum": 3}
    lineage = get(client, f"/api/v1/executions/{worker.run}/lineage")["entries"]
    for entry in lineage:
        task = get(client, f"/v1/tasks/{entry['id']}")
        assert (task["state"], task["finished_at"]) == (entry["status"], entry["completed_at"])
        logs = f"{path}/taskInstances/{entry['task_id']}/logs/{entry['try_number']}"
        content = get(client, logs, map_index=entry["map_index"])["content"]
        assert (
            [event["event"] for event in content]
            == task["output"]
            == [f"{entry['task_id']} begins", f"{entry['task_id']} ends"]
        )
        if entry["status"] == "success":
            value = results[entry["task_id"]]
            assert task["result"]["data"] == (value if entry["map_index"] < 0 else value[entry["map_index"]])


@every_way_to_serve
def test_an_execution_is_a_dag_run_under_its_own_id(
    client: httpx.Client, worker: Worker, pool: ThreadPoolExecutor
) -> None:
    wish = {"config_id": worker.config_id, "tag": "nightly", "metadata": {"day": 7}}
    created = client.post("/api/v1/executions", json=wish).raise_for_status().json()
    path = f"{RUNS}/{created['id']}"
    airflow = pool.submit(lines, client, f"{path}/wait", interval=0.2)
    assert get(client, path)["state"] == "queued"
    assert worker.claim_run() == created["id"]
    task = worker.create("sum")
    worker.append(task, "no")
    worker.end(task, code=1)
    worker.finish()
    assert json.loads(airflow.result(LIMIT)[-1]) == {"state": "failed"}
    assert get(client, "/api/v1/executions/nightly")["status"] == "failed"
    assert get(client, path)["state"] == "failed"
    assert get(client, f"/v1/runs/{created['id']}")["state"] == "failed"
