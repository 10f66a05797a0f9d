"""``taskserver worker --executor dask://…``: tasks run on a cluster, and its parts die."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import START_LIMIT, Cluster
from tests.e2e.commands import Commands
from tests.e2e.workers import DAGS, call, result, tasks_of, trigger, until_ended, working
from tests.ports import held_port
from tests.server import Server, until

SOUND, FAULTY = str(DAGS / "sound.py"), str(DAGS / "faulty.py")
WAIT = 55  # seconds for an answer: a Dask worker that has just started imports much


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """With one worker of four threads."""
    with Cluster(tmp_path) as cluster:
        yield cluster


def test_tasks_run_there_and_print_into_their_own_output(
    server: Server, taskserver: Commands, cluster: Cluster
) -> None:
    with working(taskserver, SOUND, "--executor", cluster.executor):
        answer = call(server, "printing", WAIT)
        assert (answer["state"], answer["results"]) == ("success", {"awaits": 3}), answer
        tasks = tasks_of(server, answer["id"])
        for index, name in enumerate("abc"):
            lines = tasks["prints", index, 1]["output"]
            assert [line for line in lines if not line.startswith("INFO")] == [
                f"{name} begins", f"{name} complains", f"{name} writes bytes", f"{name} has a thread", f"{name} ends"
            ]  # fmt: skip
            assert f"INFO sound: {name} logs" in lines
        assert call(server, "many", WAIT, count=40)["results"] == {"total": 1560}
        assert call(server, "retrying", WAIT)["results"] == {"third_time": 3}
        assert call(server, "commands", WAIT)["error"] == "task fails has failed: command exited with code 3"
    assert server.key not in cluster.log


def test_tasks_that_do_what_they_should_not_fail_with_a_reason(
    server: Server, taskserver: Commands, cluster: Cluster
) -> None:
    faults = {
        "raises": "ValueError: what was given is no good",
        "exits": "the task called sys.exit(3)",
        "generates": "return list(...) of it",
        "returns_object": "returned a object that cannot be JSON",
        "hangs": "timed out after 1 s",
    }
    with working(taskserver, FAULTY, "--executor", cluster.executor):
        for dag_id, error in faults.items():
            answer = call(server, dag_id, WAIT)
            assert (answer["state"], error in answer["error"]) == ("failed", True), answer
            task = tasks_of(server, answer["id"])["work", -1, 1]
            assert (task["state"], error in task["error"]) == ("failed", True), task
        assert call(server, "forks", WAIT)["results"] == {"work": 2}, "the Dask worker has survived all of them"


def test_a_dask_worker_dies_and_no_task_is_run_twice(
    server: Server, taskserver: Commands, cluster: Cluster, tmp_path: Path
) -> None:
    with working(taskserver, SOUND, "--executor", cluster.executor):
        run = trigger(server, "where", folder=str(tmp_path), seconds=60)
        until(lambda: "slow" in begun(tmp_path), "the slow task")
        cluster.workers[0].kill()
        cluster.add_worker()
        answer = result(server, run, WAIT)
        tasks = until_ended(server, run)
        assert answer["state"] == "failed", answer
        assert "Dask" in answer["error"]
        assert tasks["slow", -1, 1]["state"] == "failed"
        assert begun(tmp_path) == ["first", "slow"]
        assert call(server, "retrying", WAIT)["results"] == {"third_time": 3}, "the cluster works on"


def test_the_scheduler_dies_and_comes_back(
    server: Server, taskserver: Commands, cluster: Cluster, tmp_path: Path
) -> None:
    with working(taskserver, SOUND, "--executor", cluster.executor) as worker:
        run = trigger(server, "where", folder=str(tmp_path), seconds=60)
        until(lambda: "slow" in begun(tmp_path), "the slow task")
        port = int(cluster.address.rpartition(":")[2])
        cluster.scheduler.kill()
        cluster.scheduler.wait()
        with held_port(port):
            answer = result(server, run, WAIT)
            assert answer["state"] == "failed", worker.err
            assert "Dask" in answer["error"]
            cluster.workers[0].kill()
            cluster.start_scheduler(str(port))
        cluster.add_worker()
        assert call(server, "retrying", WAIT)["results"] == {"third_time": 3}, worker.err
    assert begun(tmp_path) == ["first", "slow"]


def test_without_a_scheduler_it_does_not_start(server: Server, taskserver: Commands) -> None:
    done = taskserver("worker", SOUND, "--executor", "dask://127.0.0.1:1")
    assert (done.code, "cannot reach the Dask scheduler at tcp://127.0.0.1:1" in done.err) == (69, True), done.err


def test_a_scheduler_that_is_late_is_waited_for(server: Server, taskserver: Commands, cluster: Cluster) -> None:
    cluster.scheduler.send_signal(signal.SIGSTOP)  # it is there, and says nothing
    with taskserver.start("worker", SOUND, "--executor", cluster.executor) as worker:
        until(lambda: "trying again" in worker.err, "the first attempt", START_LIMIT)
        cluster.scheduler.send_signal(signal.SIGCONT)
        until(lambda: "working on" in worker.err, "the worker's start", START_LIMIT)
        assert call(server, "retrying", WAIT)["results"] == {"third_time": 3}, worker.err


def test_one_that_says_nothing_is_not_waited_for_for_ever(
    server: Server, taskserver: Commands, cluster: Cluster
) -> None:
    cluster.scheduler.send_signal(signal.SIGSTOP)
    done = taskserver("worker", SOUND, "--executor", cluster.executor)
    assert (done.code, "it says nothing" in done.err) == (69, True), done.err


def test_who_waits_for_a_scheduler_can_be_stopped(server: Server, taskserver: Commands) -> None:
    with taskserver.start("worker", SOUND, "--executor", "dask://127.0.0.1:1") as worker:
        until(lambda: "trying again" in worker.err, "the first attempt", START_LIMIT)
        worker.signal(signal.SIGTERM)
        assert worker.end().code == 0
        assert "working on" not in worker.err


def begun(folder: Path) -> list[str]:
    """What has begun so far."""
    file = folder / "begun"
    return file.read_text().split() if file.exists() else []
