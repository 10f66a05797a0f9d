"""Workers stop, are killed or lose their runs in the middle of tasks: nothing of a run goes on beside its next try."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.commands import Commands
from tests.e2e.workers import DAGS, result, tasks_of, trigger, working
from tests.server import Server, until

STOPPING = str(DAGS / "stopping.py")
LEASE = "2"  # seconds, so that a dead worker is missed soon
both = pytest.mark.parametrize("executor", ["threads", "processes"])


def notes(folder: Path) -> list[str]:
    """What tasks have noted, without where they ran."""
    file = folder / "notes"
    return [line.rpartition(" in ")[0] for line in file.read_text().splitlines()] if file.exists() else []


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
