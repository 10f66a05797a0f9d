"""``taskserver worker``: callers trigger dags, tasks run, what they print is followed and what they return is told."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.bars import followed, told
from tests.e2e.commands import Commands
from tests.e2e.workers import DAGS, call, result, tasks_of, trigger, until_ended, working
from tests.server import Server, running, until

SOUND = str(DAGS / "sound.py")
both = pytest.mark.parametrize("executor", ["threads", "processes"])


def test_the_readmes_dag_is_called_like_a_function(server: Server, taskserver: Commands) -> None:
    with working(taskserver, str(DAGS.parents[1] / "docs" / "my_dag.py")) as worker:
        answer = call(server, "my_dag")
        assert (answer["state"], answer["results"]) == ("success", {"compute": 84})
        worker.signal(signal.SIGTERM)
        assert worker.end().code == 0
    assert [(task["task_id"], task["result"]) for task in server.get("/v1/dags/my_dag").json["tasks"]] == [
        ("fetch_data", False),
        ("compute", True),
    ]


@both
def test_what_is_printed_stands_in_its_own_task(server: Server, taskserver: Commands, executor: str) -> None:
    with working(taskserver, SOUND, "--executor", executor, "--concurrency", "2"):
        answer = call(server, "printing")
    assert (answer["state"], answer["results"]) == ("success", {"awaits": 3}), answer
    tasks = tasks_of(server, answer["id"])
    for index, name in enumerate("abc"):
        assert tasks["prints", index, 1]["output"] == [
            f"{name} begins",
            f"{name} complains",
            f"INFO sound: {name} logs",
            f"{name} writes bytes",
            f"{name} has a thread",
            f"{name} ends",
        ]
    assert tasks["awaits", -1, 1]["output"] == ["awaiting"]
    assert tasks["awaits", -1, 1]["state"] == "success"


def test_in_a_process_what_its_children_print_counts_too(server: Server, taskserver: Commands) -> None:
    with working(taskserver, SOUND, "--executor", "processes", "--concurrency", "1"):
        answer = call(server, "children")
    assert answer["results"] == {"starts": 0}
    assert tasks_of(server, answer["id"])["starts", -1, 1]["output"] == ["a child prints"]


@both
def test_commands(server: Server, taskserver: Commands, executor: str) -> None:
    with working(taskserver, SOUND, "--executor", executor, "--concurrency", "2"):
        answer = call(server, "commands", word="3")
        tasks = until_ended(server, answer["id"])
    assert answer["state"] == "failed"
    assert answer["error"] == "task fails has failed: command exited with code 3"
    assert (tasks["fails", -1, 1]["code"], tasks["fails", -1, 1]["output"]) == (3, ["bad"])
    shell = tasks["shell", -1, 1]
    assert sorted(shell["output"]) == ["3", "one", "two"]
    assert shell["result"] == {"type": "json", "data": "3"}


@both
def test_a_task_is_retried(server: Server, taskserver: Commands, executor: str) -> None:
    with working(taskserver, SOUND, "--executor", executor, "--concurrency", "1"):
        answer = call(server, "retrying")
    assert answer["results"] == {"third_time": 3}
    tasks = tasks_of(server, answer["id"])
    assert [tasks["third_time", -1, number]["state"] for number in (1, 2, 3)] == ["failed", "failed", "success"]
    first = tasks["third_time", -1, 1]
    assert first["error"] == "ValueError: not yet"
    assert first["output"][0] == "try 1"
    assert first["output"][1] == "Traceback (most recent call last):"
    assert "sound.py" in first["output"][2], "the traceback begins in the task's own code"
    assert first["output"][-1] == "ValueError: not yet"


def test_output_is_live(server: Server, taskserver: Commands, tmp_path: Path) -> None:
    with working(taskserver, SOUND):
        run = trigger(server, "where", folder=str(tmp_path), seconds=60)
        until(
            lambda: any(task["output"] == ["slow begins"] for task in tasks_of(server, run).values()), "the first line"
        )
        assert result(server, run, 0)["state"] == "running"
        (tmp_path / "go").touch()
        assert result(server, run)["results"] == {"slow": 2}


@both
def test_a_tasks_progress_bar_moves(server: Server, taskserver: Commands, tmp_path: Path, executor: str) -> None:
    with working(taskserver, SOUND, "--executor", executor):
        run = trigger(server, "bar", folder=str(tmp_path))
        (task,) = until(lambda: list(tasks_of(server, run).values()), "the task")
        with followed(server, task["id"]) as rows:
            assert next(rows) == told("\x1b[32m 50%\x1b[0m")
            (tmp_path / "go").touch()
            assert next(row["text"] for row in rows if "text" in row) == "\r\x1b[32m 50%\x1b[0m\r\x1b[32m100%\x1b[0m"
        assert result(server, run)["state"] == "success"


def test_what_is_missing_from_conf_fails_the_run(server: Server, taskserver: Commands) -> None:
    with working(taskserver, SOUND):
        answer = call(server, "where")
    assert (answer["state"], answer["error"]) == (
        "failed",
        "conf lacks folder: the dag's function has no default for it",
    )


def test_a_mapped_task_of_many_items_is_shared_by_workers(server: Server, taskserver: Commands) -> None:
    with working(taskserver, SOUND) as one, working(taskserver, SOUND) as other:
        answers = [call(server, "many", count=50) for _ in range(6)]
        assert [answer["results"] for answer in answers] == [{"total": 2450}] * 6
        until(lambda: (one.err + other.err).count(": success") == 6, "the workers' word of it")


def states(server: Server, run: str) -> dict[str, str]:
    """The states of a run's tasks by their names."""
    return {task_id: task["state"] for (task_id, _, _), task in tasks_of(server, run).items()}


def test_a_task_that_says_nothing_is_running_all_the_same(server: Server, taskserver: Commands, tmp_path: Path) -> None:
    with working(taskserver, SOUND):
        run = trigger(server, "silent", folder=str(tmp_path))
        until(lambda: states(server, run).get("waits") == "running", "its state")
        (tmp_path / "go").touch()
        assert result(server, run)["results"] == {"waits": 1}


def test_a_cancelled_run_ends_soon(server: Server, taskserver: Commands, tmp_path: Path) -> None:
    with working(taskserver, SOUND):
        run = trigger(server, "where", folder=str(tmp_path), seconds=60)
        until(lambda: states(server, run).get("slow") == "running", "the slow task")
        server.post(f"/v1/runs/{run}/cancel")
        assert result(server, run)["state"] == "cancelled"
        tasks = until_ended(server, run)
    assert (tasks["slow", -1, 1]["state"], tasks["slow", -1, 1]["error"]) == ("cancelled", "cancelled")


class TestWaiting:
    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[Server]:
        yield from running(tmp_path, "--access-log")

    def test_a_run_that_comes_after_a_long_wait_is_worked_on(self, server: Server, taskserver: Commands) -> None:
        with working(taskserver, SOUND, "--lease", "6") as worker:
            until(lambda: "/v1/runs/claim" in server.log, "a claim that has waited in vain")
            assert call(server, "retrying")["results"] == {"third_time": 3}, worker.err


class TestStopping:
    def test_what_runs_is_finished(self, server: Server, taskserver: Commands, tmp_path: Path) -> None:
        with working(taskserver, SOUND) as worker:
            run = trigger(server, "where", folder=str(tmp_path), seconds=60)
            until(lambda: (tmp_path / "begun").exists() and "slow" in (tmp_path / "begun").read_text(), "the slow task")
            worker.signal(signal.SIGTERM)
            worker.until_err("stopping: 1 run")
            (tmp_path / "go").touch()
            assert worker.end().code == 0
        assert result(server, run, 0)["results"] == {"slow": 2}

    @both
    def test_what_does_not_end_in_time_is_given_back(
        self, server: Server, taskserver: Commands, tmp_path: Path, executor: str
    ) -> None:
        with working(taskserver, SOUND, "--grace", "0.1", "--executor", executor, "--concurrency", "1") as worker:
            runs = [trigger(server, dag_id, folder=str(tmp_path), seconds=60) for dag_id in ("where", "again")]
            until(lambda: states(server, runs[0]).get("slow") == "running", "the slow task")
            worker.signal(signal.SIGTERM)
            assert worker.end().code == 0
        assert result(server, runs[0])["state"] == "interrupted"
        assert result(server, runs[1], 0)["state"] == "queued"
        (tmp_path / "go").touch()
        with working(taskserver, SOUND):
            assert result(server, runs[1])["results"] == {"slow": 2}

    def test_a_worker_that_waits_for_work_ends_at_once(self, server: Server, taskserver: Commands) -> None:
        with working(taskserver, SOUND) as worker:
            worker.signal(signal.SIGINT)
            assert worker.end().code == 0
