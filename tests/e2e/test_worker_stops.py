"""Workers stop, are killed or lose their runs in the middle of tasks: nothing of a run goes on beside its next try."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.commands import Commands
from tests.e2e.workers import DAGS, call, result, tasks_of, trigger, until_ended, working
from tests.server import Server, children, runs, until

STOPPING = str(DAGS / "stopping.py")
LEASE = "6"  # seconds, so that a dead worker is missed soon, and one on a busy machine is not
both = pytest.mark.parametrize("executor", ["threads", "processes"])


def notes(folder: Path) -> list[str]:
    """What tasks have noted, without where they ran."""
    file = folder / "notes"
    return [line.rpartition(" in ")[0] for line in file.read_text().splitlines()] if file.exists() else []


def command_of(folder: Path) -> int:
    """The process of the dag `program`, once it is there."""
    file = folder / "pid"
    until(lambda: file.exists() and file.read_text().endswith("\n"), "the command")
    return int(file.read_text())


def begun(server: Server, run: str) -> bool:
    """Whether the server knows that the run's only task runs."""
    return [task["state"] for task in tasks_of(server, run).values()] == ["running"]


class TestGivingBack:
    @both
    def test_a_run_is_given_back_when_it_has_stopped(
        self, server: Server, taskserver: Commands, tmp_path: Path, executor: str
    ) -> None:
        options = (STOPPING, "--executor", executor, "--concurrency", "1", "--grace", "0.1")
        with working(taskserver, *options) as worker:
            run = trigger(server, "lingering", folder=str(tmp_path), seconds=2)
            until(lambda: notes(tmp_path) == ["begin 1"], "the first try")
            with working(taskserver, *options):
                worker.signal(signal.SIGTERM)
                assert result(server, run)["results"] == {"work": 2}
            assert worker.end().code == 0
        assert notes(tmp_path) == ["begin 1", "end 1", "begin 2", "end 2"]
        assert tasks_of(server, run)["work", -1, 1]["state"] == "interrupted"
        assert "given back" in worker.err

    def test_what_does_not_stop_is_left_to_the_lease(
        self, server: Server, taskserver: Commands, tmp_path: Path
    ) -> None:
        options = (STOPPING, "--concurrency", "1", "--grace", "0.1", "--lease", LEASE)
        with working(taskserver, *options) as worker:
            run = trigger(server, "lingering", folder=str(tmp_path), seconds=60)
            until(lambda: notes(tmp_path) == ["begin 1"], "the first try")
            with working(taskserver, *options):
                worker.signal(signal.SIGTERM)
                assert worker.end().code == 0
                assert result(server, run)["results"] == {"work": 2}
        assert notes(tmp_path) == ["begin 1", "begin 2", "end 2"]
        assert "left to its lease" in worker.err

    def test_on_a_cluster_too(self, server: Server, taskserver: Commands, tmp_path: Path) -> None:
        with Cluster(tmp_path) as cluster:
            options = (STOPPING, "--executor", cluster.executor, "--grace", "0.1", "--lease", "6")
            with working(taskserver, *options) as worker:
                folders = {name: tmp_path / name for name in ("lingering", "fleeting")}
                for folder in folders.values():
                    folder.mkdir()
                runs = [trigger(server, name, folder=str(folder), seconds=2) for name, folder in folders.items()]
                until(lambda: all(notes(folder) == ["begin 1"] for folder in folders.values()), "their first tries")
                with working(taskserver, *options):
                    worker.signal(signal.SIGTERM)
                    assert result(server, runs[0], 55)["results"] == {"work": 2}
                    assert result(server, runs[1])["state"] == "interrupted", "it has no retries: it is not begun again"
        assert notes(folders["lingering"]) == ["begin 1", "end 1", "begin 2", "end 2"]
        assert notes(folders["fleeting"]) == ["begin 1", "end 1"]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
class TestCommands:
    @both
    def test_they_do_not_outlive_a_killed_worker(
        self, server: Server, taskserver: Commands, tmp_path: Path, executor: str
    ) -> None:
        options = (STOPPING, "--lease", LEASE, "--executor", executor, "--concurrency", "1")
        with working(taskserver, *options) as worker:
            run = trigger(server, "program", folder=str(tmp_path), stubborn=True)
            command = command_of(tmp_path)
            until(lambda: begun(server, run), "its record: a try that nobody has heard of would be made once more")
            worker.process.kill()
            worker.process.wait()
            until(lambda: not runs(command), "the command's end")
        with working(taskserver, *options):
            assert result(server, run)["results"] == {"runs": "again"}

    @both
    def test_they_have_ended_before_their_run_is_given_back(
        self, server: Server, taskserver: Commands, tmp_path: Path, executor: str
    ) -> None:
        options = (STOPPING, "--grace", "0.1", "--executor", executor, "--concurrency", "1")
        with working(taskserver, *options) as worker:
            run = trigger(server, "program", folder=str(tmp_path), stubborn=True)
            command = command_of(tmp_path)
            with working(taskserver, *options):
                worker.signal(signal.SIGTERM)
                assert result(server, run)["results"] == {"runs": "again"}
                assert not runs(command)
            assert "given back" in worker.err

    @both
    def test_a_cancelled_one_that_ignores_it_is_killed(
        self, server: Server, taskserver: Commands, tmp_path: Path, executor: str
    ) -> None:
        with working(taskserver, STOPPING, "--executor", executor, "--concurrency", "1"):
            run = trigger(server, "program", folder=str(tmp_path), stubborn=True)
            command = command_of(tmp_path)
            until(lambda: begun(server, run), "its state")
            server.post(f"/v1/runs/{run}/cancel")
            assert result(server, run)["state"] == "cancelled"
            task = until_ended(server, run)["runs", -1, 1]
            assert (task["state"], task["error"]) == ("cancelled", "cancelled")
            until(lambda: not runs(command), "the command's end")


@both
def test_what_cleans_up_behind_a_runs_end_may_have_to_wait_for_long(
    server: Server, taskserver: Commands, tmp_path: Path, executor: str
) -> None:
    with working(taskserver, STOPPING, "--lease", LEASE, "--executor", executor, "--concurrency", "2"):
        run = trigger(server, "tidy", folder=str(tmp_path))
        assert result(server, run)["state"] == "failed"
        began = time.monotonic()
        until(lambda: time.monotonic() > began + float(LEASE) + 1.5, "the end of a lease, and some more")
        (tmp_path / "go").touch()
        task = until_ended(server, run)["clean", -1, 1]
    assert (task["state"], task["result"]["data"]) == ("success", "cleaned"), task


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes through /proc")
class TestChildProcesses:
    def test_a_signal_to_the_whole_group_lets_tasks_end(
        self, server: Server, taskserver: Commands, tmp_path: Path
    ) -> None:
        with working(taskserver, STOPPING, "--executor", "processes", "--concurrency", "2") as worker:
            run = trigger(server, "patience", folder=str(tmp_path))
            until(lambda: len(notes(tmp_path)) == 2, "its tasks")
            for process in (*children(worker.process.pid), worker.process.pid):
                os.kill(process, signal.SIGTERM)
            worker.until_err("stopping: 1 run")
            (tmp_path / "go").touch()
            assert result(server, run)["results"] == {"waits": 1, "runs": "2"}
            assert worker.end().code == 0

    def test_the_death_of_one_that_has_nothing_to_do_fails_no_task(
        self, server: Server, taskserver: Commands, tmp_path: Path
    ) -> None:
        (tmp_path / "go").touch()
        with working(taskserver, STOPPING, "--executor", "processes", "--concurrency", "1") as worker:
            for _ in range(2):
                for process in spawned(worker.process.pid):
                    os.kill(process, signal.SIGKILL)
                    until(lambda process=process: not runs(process), "its death")  # type: ignore[misc]
                assert call(server, "patience", folder=str(tmp_path))["results"] == {"waits": 1, "runs": "2"}


def spawned(worker: int) -> list[int]:
    """The processes of a worker that run tasks."""
    return [pid for pid in children(worker) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
