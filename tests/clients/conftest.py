"""What the tests with other people's clients share: a server that logs requests, and a producer at work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.conftest import NewServer
from tests.server import Server

LINES = [f"line {number}" for number in range(20)]
PACE = 0.1  # seconds between two lines of a task that a client follows
EARLY = 0.1  # seconds; a wait may end some milliseconds early, and waits add up

Produce = Callable[..., str]


@pytest.fixture
def server(new_server: NewServer) -> Iterator[Server]:
    """A server that logs each request when it has been answered."""
    with new_server("--access-log") as server:
        yield server


@pytest.fixture
def key(server: Server) -> str:
    """The clients' key: it may only read."""
    return server.new_key("reader", "read", owner="admin")


@pytest.fixture
def produce(server: Server) -> Iterator[Produce]:
    """``produce(lines=…, **outcome)`` begins a task in a thread, returns its id, and ends it after its last line."""
    threads: list[threading.Thread] = []
    stop = threading.Event()

    def begin(lines: Sequence[str] = LINES, **outcome: object) -> str:
        task = server.new_task()
        thread = threading.Thread(target=work, args=(task, lines, outcome))
        thread.start()
        threads.append(thread)
        return task

    def work(task: str, lines: Sequence[str], outcome: dict[str, object]) -> None:
        for number, line in enumerate(lines):
            assert server.post(f"/v1/tasks/{task}/output?first={number}", line + "\n").status == 200
            if stop.wait(PACE):  # the test is over
                return
        assert server.post(f"/v1/tasks/{task}/finish", outcome).status == 200

    yield begin
    stop.set()
    for thread in threads:
        thread.join()


def requests_for(server: Server, task: str) -> int:
    """How many requests asked for the task's state and output; the server is stopped, so that its log is complete."""
    assert server.stop() == 0
    return server.log.count(f"/tasks/{task} ") + server.log.count(f"/tasks/{task}?")
