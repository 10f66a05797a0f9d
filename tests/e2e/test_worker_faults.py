"""Workers and servers die in the middle of runs, and tasks do what they should not: each end is true and told."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.e2e.commands import Commands
from tests.e2e.workers import DAGS, call, result, tasks_of, trigger, until_ended, working
from tests.server import Server, until

SOUND, FAULTY = str(DAGS / "sound.py"), str(DAGS / "faulty.py")
LEASE = "6"  # seconds, so that a dead worker is missed soon, and one on a busy machine is not
both = pytest.mark.parametrize("executor", ["threads", "processes"])


def begun(folder: Path) -> list[str]:
    file = folder / "begun"
    return file.read_text().split() if file.exists() else []


def printed(server: Server, run: str) -> list[str]:
    """What all tasks of a run have printed."""
    return [line for task in tasks_of(server, run).values() for line in task["output"]]


class TestDeaths:
    @both
    def test_a_dead_workers_run_goes_on_where_it_was_if_its_dag_says_so(
        self, server: Server, taskserver: Commands, tmp_path: Path, executor: str
    ) -> None:
        options = (SOUND, "--lease", LEASE, "--executor", executor, "--concurrency", "2")
        with working(taskserver, *options) as worker:
            runs = {dag_id: trigger(server, dag_id, folder=str(tmp_path), seconds=60) for dag_id in ("where", "again")}
            until(lambda: all(printed(server, run) == ["slow begins"] for run in runs.values()), "their first lines")
            worker.process.kill()
            worker.process.wait()
        with working(taskserver, *options):
            assert result(server, runs["where"])["state"] == "interrupted"
            until(lambda: begun(tmp_path).count("slow") >= 3, "the second try")
            (tmp_path / "go").touch()
            answer = result(server, runs["again"])
        assert (answer["state"], answer["results"]) == ("success", {"slow": 2})
        tasks = tasks_of(server, runs["again"])
        assert tasks["slow", -1, 1]["state"] == "interrupted"
        assert tasks["slow", -1, 1]["output"] == ["slow begins"], "what was acknowledged is kept"
        assert tasks["slow", -1, 2]["state"] == "success"
        assert begun(tmp_path).count("first") == 2, "what had succeeded is not done again"

    def test_the_server_dies_and_comes_back(self, server: Server, taskserver: Commands, tmp_path: Path) -> None:
        with working(taskserver, SOUND) as worker:
            run = trigger(server, "where", folder=str(tmp_path), seconds=60)
            until(lambda: "slow" in begun(tmp_path), "the slow task")
            server.kill()
            worker.until_err("trying again")
            (tmp_path / "go").touch()
            server.start()
            assert result(server, run)["results"] == {"slow": 2}
            assert call(server, "retrying")["results"] == {"third_time": 3}
        assert begun(tmp_path) == ["first", "slow"]
        assert [task["output"] for task in tasks_of(server, run).values()] == [[], ["slow begins"]]

    def test_a_worker_that_cannot_reach_its_server_stops_what_it_does(
        self, server: Server, taskserver: Commands, tmp_path: Path
    ) -> None:
        with working(taskserver, SOUND, "--lease", LEASE) as worker:
            trigger(server, "again", folder=str(tmp_path), seconds=60)
            until(lambda: "slow" in begun(tmp_path), "the slow task")
            assert server.process is not None
            server.process.send_signal(signal.SIGSTOP)
            try:
                worker.until_err(": lost after")
            finally:
                server.process.send_signal(signal.SIGCONT)


class TestFaultyTasks:
    @both
    @pytest.mark.parametrize(
        ("dag_id", "error"),
        [
            ("raises", "ValueError: what was given is no good"),
            ("exits", "the task called sys.exit(3)"),
            ("generates", "return list(...) of it"),
            ("returns_object", "returned a object that cannot be JSON"),
            ("returns_much", "bytes of JSON"),
            ("hangs", "timed out after 1 s"),
        ],
    )
    def test_each_fails_with_a_reason(
        self, server: Server, taskserver: Commands, executor: str, dag_id: str, error: str
    ) -> None:
        with working(taskserver, FAULTY, "--executor", executor, "--concurrency", "1"):
            answer = call(server, dag_id)
        assert (answer["state"], error in answer["error"]) == ("failed", True), answer
        task = tasks_of(server, answer["id"])["work", -1, 1]
        assert (task["state"], error in task["error"]) == ("failed", True), task
        if dag_id == "raises":
            assert task["output"][0] == "about to fail"
            assert task["output"][-1] == error

    @both
    def test_what_does_no_harm(self, server: Server, taskserver: Commands, executor: str) -> None:
        with working(taskserver, FAULTY, "--executor", executor, "--concurrency", "1"):
            assert call(server, "forks")["results"] == {"work": 2}
            closed = call(server, "closes")
            assert closed["results"] == {"work": "closed"}
            assert tasks_of(server, closed["id"])["work", -1, 1]["output"] == ["still here"]
            flood = call(server, "floods", 55)
            assert flood["results"] == {"work": 200_000}
            lines = tasks_of(server, flood["id"])["work", -1, 1]["output"]
            assert lines == [f"line {number}" for number in range(200_000)]

    def test_a_task_that_ends_its_process_ends_no_other(self, server: Server, taskserver: Commands) -> None:
        with working(taskserver, FAULTY, "--executor", "processes", "--concurrency", "1"):
            answer = call(server, "dies")
            assert (answer["state"], "process has died" in answer["error"]) == ("failed", True), answer
            assert call(server, "forks")["results"] == {"work": 2}


class TestFailingEarly:
    def test_waiters_are_told_before_what_runs_is_stopped_and_cleaned_up(
        self, server: Server, taskserver: Commands, tmp_path: Path
    ) -> None:
        with working(taskserver, FAULTY):
            answer = call(server, "cleaning", folder=str(tmp_path))
            assert (answer["state"], answer["error"]) == ("failed", "task breaks has failed: RuntimeError: broken")
            tasks = until_ended(server, answer["id"])
        assert tasks["long", -1, 1]["state"] == "cancelled"
        assert tasks["clean", -1, 1]["state"] == "success"
        assert (tmp_path / "cleaned").exists()
        assert ("never", -1, 1) not in tasks

    def test_a_dag_may_let_them_run_on(self, server: Server, taskserver: Commands, tmp_path: Path) -> None:
        with working(taskserver, FAULTY):
            answer = call(server, "patient", folder=str(tmp_path))
            assert answer["state"] == "failed"
            assert not (tmp_path / "cleaned").exists()
            (tmp_path / "go").touch()
            tasks = until_ended(server, answer["id"])
        assert tasks["long", -1, 1]["state"] == "success"
        assert tasks["clean", -1, 1]["state"] == "success"


BROKEN = {
    "syntax": ("def broken(:\n", "dags.py:1: "),
    "raises": ("1 / 0\n", "cannot be loaded: ZeroDivisionError: division by zero"),
    "exits": ("raise SystemExit(1)\n", "cannot be loaded: SystemExit"),
    "empty": ("print('imported')\n", "declares no dag"),
    "cycle": (
        "from taskserver.worker import dag, task\n@dag\ndef d():\n    a = task(lambda: 1, task_id='a')()\n"
        "    b = task(lambda: 1, task_id='b')()\n    a >> b >> a\n",
        "dag d: tasks wait for each other: a -> b -> a",
    ),
    "twice": (
        "from taskserver.worker import dag, task\ndef make():\n    @dag(dag_id='same')\n    def d():\n"
        "        task(lambda: 1, task_id='a')()\nmake(); make()\n",
        "two dags are called 'same'",
    ),
}


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=list(BROKEN))
def test_a_file_that_cannot_be_used_is_refused_with_a_reason(
    server: Server, taskserver: Commands, tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "dags.py"
    file.write_text(text)
    done = taskserver("worker", str(file))
    assert (done.code, message in done.err, done.err.count("\n")) == (3, True, 1), done.err


def test_a_wrong_executor_is_a_wrong_command_line(server: Server, taskserver: Commands) -> None:
    done = taskserver("worker", SOUND, "--executor", "dask:8786")
    assert (done.code, "dask://HOST:PORT" in done.err) == (2, True)
