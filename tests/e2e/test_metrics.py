"""`/metrics` of several processes: whichever is asked tells of all, and nothing goes back when one dies."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.raw import Raw
from tests.server import Answer, Server, running, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds the workers through /proc")

PROCESSES = 3
Figures = dict[tuple[str, ...], float]
STREAMS = ("taskserver_waiters", "stream", "tasks")
LINES = ("taskserver_lines_total",)
RESTARTS = ("taskserver_worker_restarts_total",)


def figures(answer: Answer) -> Figures:
    families = text_string_to_metric_families(answer.body.decode())
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def scrapes(server: Server) -> list[Figures]:
    """What each process tells: connections are handed out in turn."""
    return [figures(server.get("/metrics")) for _ in range(PROCESSES)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    yield from running(tmp_path, "--workers", str(PROCESSES))


def append_everywhere(server: Server, task_id: str) -> None:
    """A line through each process."""
    for _ in range(PROCESSES):
        assert server.post(f"/v1/tasks/{task_id}/output", "a line").status == 200


def test_whichever_is_asked_tells_of_all_also_when_one_has_died(server: Server) -> None:
    task_id = server.post("/v1/tasks", {}).json["id"]
    append_everywhere(server, task_id)
    followers = [
        Raw(server).ask("GET", f"/v1/tasks/{task_id}/output?follow=true&format=text") for _ in range(PROCESSES)
    ]
    for follower in followers:
        assert follower.head().status == 200
    for told in scrapes(server):
        assert (told[LINES], told[STREAMS], told[RESTARTS]) == (3, 3, 0)
        assert told["taskserver_commit_operations_count",] >= 4
        assert told["taskserver_live_tasks", "running"] == 1
        assert all(told["process_resident_memory_bytes", str(process)] > 1e7 for process in range(PROCESSES))

    victim = server.workers[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(server.workers) == PROCESSES - 1 and victim not in server.workers, "another worker")
    until(lambda: all(("process_open_fds", str(n)) in scrapes(server)[0] for n in range(PROCESSES)), "its figures")
    append_everywhere(server, task_id)
    for told in scrapes(server):
        assert (told[LINES], told[STREAMS], told[RESTARTS]) == (6, 2, 1)

    assert server.post(f"/v1/tasks/{task_id}/finish").status == 200
    until(lambda: all(told[STREAMS] == 0 for told in scrapes(server)), "the followers' end")
    for follower in followers:
        follower.leave()
    assert scrapes(server)[0]["taskserver_wake_seconds_count",] >= 2
