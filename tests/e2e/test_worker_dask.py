"""``taskserver worker --executor dask://…``: tasks run on a cluster, and its parts die."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.commands import Commands
from tests.e2e.workers import DAGS, call, result, tasks_of, trigger, until_ended, working
from tests.server import Server, until

SOUND, FAULTY = str(DAGS / "sound.py"), str(DAGS / "faulty.py")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """With one worker of four threads."""
    with Cluster(tmp_path) as cluster:
        yield cluster


def test_tasks_run_there_and_print_into_their_own_output(
    server: Server, taskserver: Commands, cluster: Cluster
) -> None:
    with working(taskserver, SOUND, "--executor", cluster.executor):
        answer = call(server, "printing")
        assert (answer["state"], answer["results"]) == ("success", {"awaits": 3}), answer
        tasks = tasks_of(server, answer["id"])
        for index, name in enumerate("abc"):
            lines = tasks["prints", index, 1]["output"]
            assert [line for line in lines if not line.startswith("INFO")] == [
                f"{name} begins", f"{name} complains", f"{name} writes bytes", f"{name} has a thread", f"{name} ends"
            ]  # fmt: skip
            assert f"INFO sound: {name} logs" in lines
        assert call(server, "many", count=40)["results"] == {"total": 1560}
        assert call(server, "retrying")["results"] == {"third_time": 3}
        assert call(server, "commands")["error"] == "task fails has failed: command exited with code 3"
    assert server.key not in cluster.log


def test_a_dask_worker_dies_and_no_task_is_run_twice(
    server: Server, taskserver: Commands, cluster: Cluster, tmp_path: Path
) -> None:
    with working(taskserver, SOUND, "--executor", cluster.executor):
        run = trigger(server, "where", folder=str(tmp_path), seconds=60)
        until(lambda: "slow" in begun(tmp_path), "the slow task")
        cluster.workers[0].kill()
        cluster.add_worker()
        answer = result(server, run, 55)
        tasks = until_ended(server, run)
        assert answer["state"] == "failed", answer
        assert "Dask" in answer["error"]
        assert tasks["slow", -1, 1]["state"] == "failed"
        assert begun(tmp_path) == ["first", "slow"]
        assert call(server, "retrying")["results"] == {"third_time": 3}, "the cluster works on"


def test_the_scheduler_dies_and_comes_back(
    server: Server, taskserver: Commands, cluster: Cluster, tmp_path: Path
) -> None:
    with working(taskserver, SOUND, "--executor", cluster.executor) as worker:
        run = trigger(server, "where", folder=str(tmp_path), seconds=60)
        until(lambda: "slow" in begun(tmp_path), "the slow task")
        cluster.scheduler.kill()
        cluster.scheduler.wait()
        answer = result(server, run, 55)
        assert answer["state"] == "failed", worker.err
        assert "Dask" in answer["error"]
        cluster.workers[0].kill()
        cluster.start_scheduler(cluster.address.rpartition(":")[2])
        cluster.add_worker()
        assert call(server, "retrying", 55)["results"] == {"third_time": 3}, worker.err
    assert begun(tmp_path) == ["first", "slow"]


def test_without_a_scheduler_it_does_not_start(server: Server, taskserver: Commands) -> None:
    done = taskserver("worker", SOUND, "--executor", "dask://127.0.0.1:1")
    assert (done.code, "cannot reach the Dask scheduler at tcp://127.0.0.1:1" in done.err) == (69, True), done.err


def begun(folder: Path) -> list[str]:
    """What has begun so far."""
    file = folder / "begun"
    return file.read_text().split() if file.exists() else []
