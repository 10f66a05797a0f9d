"""The released ``apache-airflow-client`` and Airflow's documented script, and a worker of ours that runs the dag."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow_client.client import ApiClient, Configuration
from airflow_client.client.api.dag_run_api import DagRunApi
from airflow_client.client.api.experimental_api import ExperimentalApi
from airflow_client.client.api.task_instance_api import TaskInstanceApi
from airflow_client.client.models.trigger_dag_run_post_body import TriggerDAGRunPostBody

from tests.conftest import every_way_to_serve
from tests.e2e.cluster import Cluster
from tests.e2e.commands import Commands
from tests.e2e.workers import DAGS, working
from tests.server import Server

EXAMPLE = str(DAGS.parents[1] / "docs" / "my_dag.py")


@pytest.fixture
def client(server: Server) -> Iterator[ApiClient]:
    """With a token, as it is meant."""
    token = server.post("/auth/token", {"username": "admin", "password": server.key}).json["access_token"]
    with ApiClient(Configuration(host=server.url, access_token=token)) as client:
        yield client


@contextlib.contextmanager
def executor(kind: str, folder: Path) -> Iterator[str]:
    """What ``--executor`` gets; with a cluster, if it is to be one."""
    if kind == "dask":
        with Cluster(folder) as cluster:
            yield cluster.executor
    else:
        yield kind


def wait(client: ApiClient, dag_id: str, run_id: str, **wish: Any) -> list[Any]:
    """The lines of a wait: the client gives one as an object, and several as their text."""
    answer: Any = ExperimentalApi(client).wait_dag_run_until_finished(dag_id, run_id, 1.0, **wish)
    return [json.loads(line) for line in answer.splitlines()] if isinstance(answer, str) else [answer]


@every_way_to_serve
@pytest.mark.parametrize("kind", ["threads", "dask"])
def test_it_triggers_a_dag_and_gets_its_result(server: Server, client: ApiClient, tmp_path: Path, kind: str) -> None:
    taskserver = Commands(server, tmp_path)
    with executor(kind, tmp_path) as where, working(taskserver, EXAMPLE, "--executor", where):
        run = DagRunApi(client).trigger_dag_run("my_dag", TriggerDAGRunPostBody(logical_date=None))
        lines = wait(client, "my_dag", run.dag_run_id)
        assert lines[-1] == {"state": "success", "results": {"compute": 84}}
        assert wait(client, "my_dag", run.dag_run_id, result=["fetch_data"]) == [
            {"state": "success", "results": {"fetch_data": {"answer": 42}}}
        ]
        assert DagRunApi(client).get_dag_run("my_dag", run.dag_run_id).state.value == "success"


def test_it_reads_what_a_mapped_task_has_printed(server: Server, client: ApiClient, tmp_path: Path) -> None:
    with working(Commands(server, tmp_path), str(DAGS / "sound.py")):
        run = DagRunApi(client).trigger_dag_run("printing", TriggerDAGRunPostBody(logical_date=None))
        assert wait(client, "printing", run.dag_run_id)[-1]["state"] == "success"
        page: Any = TaskInstanceApi(client).get_log("printing", run.dag_run_id, "prints", 1, map_index=1)
    assert next(event.event for event in page.content.actual_instance) == "b begins"
