"""The released ``apache-airflow-client`` triggers a run of ours and waits for it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

import pytest
from airflow_client.client import ApiClient, Configuration
from airflow_client.client.api.dag_api import DAGApi
from airflow_client.client.api.dag_run_api import DagRunApi
from airflow_client.client.api.experimental_api import ExperimentalApi
from airflow_client.client.api.task_instance_api import TaskInstanceApi
from airflow_client.client.exceptions import (
    ApiException,
    ConflictException,
    ForbiddenException,
    NotFoundException,
    UnauthorizedException,
)
from airflow_client.client.models.trigger_dag_run_post_body import TriggerDAGRunPostBody

from tests.clients.airflow import DAG, TASK, Worker, register
from tests.conftest import every_way_to_serve
from tests.server import Server, until

LINES = [f"line {number}" for number in range(5)]


def client_of(server: Server, token: str) -> ApiClient:
    return ApiClient(Configuration(host=server.url, access_token=token))


@pytest.fixture
def client(server: Server) -> Iterator[ApiClient]:
    """The client with a token, as it is meant."""
    login = server.post("/auth/token", {"username": "admin", "password": server.key})
    assert login.status == 201
    register(server, TASK)
    with client_of(server, login.json["access_token"]) as client:
        yield client


@pytest.fixture
def worker(server: Server) -> Iterator[Worker]:
    """Somebody who works on the runs."""
    worker = Worker(server, work)
    worker.start()
    yield worker
    worker.stop()


def work(worker: Worker, run: Mapping[str, Any]) -> None:
    worker.do(run, TASK, LINES, {"seen": run["conf"]}, run["conf"].get("code", 0))
    worker.do(run, "other", [], "Hello World!")


def trigger(client: ApiClient, **wish: Any) -> Any:
    return DagRunApi(client).trigger_dag_run(DAG, TriggerDAGRunPostBody(logical_date=None, **wish))


def wait(client: ApiClient, run_id: str, interval: float = 60, **wish: Any) -> list[Any]:
    """The lines of a wait: the client gives one as an object, and several as their text."""
    answer: Any = ExperimentalApi(client).wait_dag_run_until_finished(DAG, run_id, interval, **wish)
    return [json.loads(line) for line in answer.splitlines()] if isinstance(answer, str) else [answer]


def detail(error: ApiException) -> Any:
    assert error.body is not None
    return json.loads(error.body)["detail"]


@every_way_to_serve
def test_it_triggers_a_run_and_waits_for_its_result(client: ApiClient, worker: Worker) -> None:
    run = trigger(client, conf={"n": 5}, note="from the client")
    assert (run.state.value, run.run_type.value, run.triggered_by.value) == ("queued", "manual", "rest_api")
    assert (run.conf, run.note, run.triggering_user_name) == ({"n": 5}, "from the client", "admin")
    lines = wait(client, run.dag_run_id)
    assert {line["state"] for line in lines[:-1]} <= {"queued", "running"}
    assert lines[-1] == {"state": "success", "results": {TASK: {"seen": {"n": 5}}}}
    assert wait(client, run.dag_run_id, result=["other"]) == [
        {"state": "success", "results": {"other": "Hello World!"}}
    ]


def test_it_sees_a_failed_run_as_failed(client: ApiClient, worker: Worker) -> None:
    run = trigger(client, conf={"code": 3})
    assert wait(client, run.dag_run_id, interval=0.05)[-1]["state"] == "failed"
    ended = DagRunApi(client).get_dag_run(DAG, run.dag_run_id)
    assert ended.state.value == "failed"
    assert ended.duration is not None
    assert ended.start_date is not None
    assert ended.end_date is not None
    assert ended.end_date > ended.start_date > datetime(2026, 1, 1, tzinfo=timezone.utc)


@every_way_to_serve
def test_it_follows_a_log_from_token_to_token(client: ApiClient, worker: Worker) -> None:
    run = trigger(client)
    api, seen, token = TaskInstanceApi(client), [], None

    def first_page() -> Any:
        try:
            return api.get_log(DAG, run.dag_run_id, TASK, 1, accept="application/json")
        except NotFoundException:  # nobody has begun yet
            return None

    page = until(first_page, "the task's first line")
    while True:
        seen += [event.event for event in page.content.actual_instance]
        assert all(event.timestamp.tzinfo is not None for event in page.content.actual_instance)
        token = page.continuation_token
        if token is None:
            break
        page = api.get_log(DAG, run.dag_run_id, TASK, 1, token=token, accept="application/json")
    assert seen == LINES
    whole: Any = api.get_log(DAG, run.dag_run_id, TASK, 1, full_content=True, map_index=-1)
    assert [event.event for event in whole.content.actual_instance] == LINES


def test_it_lists_dags_and_runs(client: ApiClient) -> None:
    runs = [trigger(client, dag_run_id=f"run {number}".replace(" ", ":")) for number in range(3)]
    api = DagRunApi(client)
    assert api.get_dag_run(DAG, "run:1") == runs[1]
    listed = api.get_dag_runs(DAG, limit=2, offset=1)
    assert (listed.dag_runs, listed.total_entries) == (runs[1:], 3)
    dags = DAGApi(client).get_dags()
    assert dags.total_entries == 1
    (dag,) = dags.dags
    assert (dag.dag_id, dag.dag_display_name, dag.owners, dag.is_paused) == (DAG, "My dag", ["admin"], False)
    assert DAGApi(client).get_dag(DAG) == dag


def test_it_understands_what_is_refused(server: Server, client: ApiClient) -> None:
    run = trigger(client)
    with pytest.raises(NotFoundException) as missing:
        wait(client, "none")
    assert detail(missing.value).startswith("The DagRun with dag_id")
    with pytest.raises(NotFoundException):
        DagRunApi(client).trigger_dag_run("none", TriggerDAGRunPostBody(logical_date=None))
    with pytest.raises(ConflictException) as conflict:
        trigger(client, dag_run_id=run.dag_run_id)
    assert detail(conflict.value)["reason"] == "Unique constraint violation"
    with pytest.raises(ApiException) as invalid:
        trigger(client, dag_run_id="a/b")
    assert invalid.value.status == 400
    with pytest.raises(ApiException) as invalid:
        DagRunApi(client).get_dag_runs(DAG, order_by=["-run_after"])
    assert invalid.value.status == 422
    assert invalid.value.data is not None, "the client has understood the list"
    assert invalid.value.data.detail[0].loc[1].actual_instance == "order_by"
    with client_of(server, "") as nobody, pytest.raises(UnauthorizedException):
        trigger(nobody)
    with client_of(server, "wrong") as stranger, pytest.raises(ForbiddenException):
        trigger(stranger)


def test_a_key_works_in_the_place_of_a_token_and_a_token_over_a_restart(server: Server, client: ApiClient) -> None:
    with client_of(server, server.key) as by_key:
        run = trigger(by_key)
    assert server.stop() == 0
    server.start()
    assert DagRunApi(client).get_dag_run(DAG, run.dag_run_id) == run
