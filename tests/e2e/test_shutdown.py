"""How waits end in a real process: by a shutdown, a client that leaves, a key that is revoked (PROTOCOLS.md, A3)."""

from __future__ import annotations

import contextlib
import http.client
import resource
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.conftest import Measured
from tests.e2e.raw import Raw
from tests.server import Answer, Server, running, until

WAITS = 1000
EXIT_GOAL = 2.0  # seconds from SIGTERM to the end of the process, with 1,000 waits open
END_GOAL = 1.0  # seconds until a wait has ended whose client has left or whose key is revoked
LOADED = 5  # so many times slower may a machine be that has other things to do

A1 = "/v1/tasks/{}?wait=20"
A5_JSON = "/v1/tasks/{}/output?first=1&wait=55"
A5_FOLLOW = "/v1/tasks/{}/output?format=text&follow=true"


@pytest.fixture(params=[1, 2], ids=["alone", "workers"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """One process, or several that answer as one."""
    yield from running(tmp_path, "--workers", str(request.param))


@pytest.fixture
def many_files() -> Iterator[None]:
    """Leave to open more files than the usual 1,024; the server inherits it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WAITS + 500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} open files, the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def wait_on(server: Server, stack: contextlib.ExitStack, path: str, key: str | None = None) -> Raw:
    """Send a request that will not be answered for long."""
    return stack.enter_context(Raw(server)).ask("GET", path, key=key)


def let_it_read(server: Server) -> None:
    """Return when the server has read the requests sent so far: it has answered one that came after them.

    Where there are several processes, each of them has: connections go to one after the other.
    """
    for _ in range(1 + len(server.workers)):
        assert server.get("/healthz").status == 200


def test_shutdown_answers_every_wait_with_the_current_state(
    many_files: None, server: Server, measured: Measured
) -> None:
    tasks = [server.new_task() for _ in range(10)]
    for task in tasks:
        assert server.post(f"/v1/tasks/{task}/output", "the first line\n").status == 200
    paths = [form.format(task) for task in tasks for form in (A1, A1, A1, A5_JSON, A5_FOLLOW)]
    with contextlib.ExitStack() as stack:
        waiting = [(path, wait_on(server, stack, path)) for path in paths * (WAITS // len(paths))]
        let_it_read(server)
        assert server.process is not None
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        answers = [(path, wait.answer()) for path, wait in waiting]
        assert server.process.wait(EXIT_GOAL * LOADED) == 0
        measured(f"{WAITS} open waits: exit", time.monotonic() - began, EXIT_GOAL)

    assert len(answers) == WAITS
    for path, answer in answers:
        assert answer.status == 200
        if "follow" in path:
            assert answer.body == b"the first line\n"
        else:
            assert answer.json["finished"] is False
            assert answer.json["last"] == 1
            assert answer.headers["Connection"] == "close"


def test_shutdown_without_waits_is_quick_and_leaves_nothing_to_repair(server: Server) -> None:
    task = server.new_task()
    server.post(f"/v1/tasks/{task}/output", "kept\n")
    assert server.stop() == 0
    server.start()
    assert server.get(f"/v1/tasks/{task}").json["output"] == ["kept"]
    assert "Traceback" not in server.log


def test_a_reader_that_has_stopped_does_not_hold_up_the_shutdown(server: Server, measured: Measured) -> None:
    task = server.new_task()
    for _ in range(2):
        server.post(f"/v1/tasks/{task}/output", ("x" * 99 + "\n") * 50_000)
    with Raw(server, receive_buffer=4096) as reader:
        reader.ask("GET", A5_FOLLOW.format(task)).head()
        began = time.monotonic()
        assert server.stop(EXIT_GOAL * LOADED) == 0
        measured("a reader that has stopped: exit", time.monotonic() - began, EXIT_GOAL)


def test_a_second_signal_changes_nothing(server: Server) -> None:
    task = server.new_task()
    with Raw(server) as wait:
        wait.ask("GET", A1.format(task))
        let_it_read(server)
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGINT)
        assert wait.answer().status == 200
        assert server.process.wait(EXIT_GOAL * LOADED) == 0


def test_health(server: Server) -> None:
    for path in ("/healthz", "/readyz"):
        with Raw(server) as nobody:
            answer = nobody.send(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()).answer()
        assert (answer.status, answer.json) == (200, {"status": "ok"}), path


def test_a_client_that_leaves_ends_its_wait(tmp_path: Path, measured: Measured) -> None:
    with Server(tmp_path, "--max-waiters", "1") as server:
        task = server.new_task()
        with Raw(server) as stays:
            stays.ask("GET", A1.format(task))
            # Whoever comes while the only place is taken is sent away at once.
            refused = until(lambda: refusal(server, task), "the only place is taken")
            assert refused.json["code"] == 1020
            assert refused.headers["Retry-After"]
            left = time.monotonic()
        admitted = until(lambda: admission(server, task), "the wait of the client that left has ended")
        measured("a client that has left: end of its wait", admitted - left, END_GOAL)
        assert admitted - left < END_GOAL * LOADED


def refusal(server: Server, task: str) -> Answer | None:
    answer = server.get(f"/v1/tasks/{task}?wait=1")
    return answer if answer.status == 429 else None


def admission(server: Server, task: str) -> float | None:
    """When a wait was admitted, or None if it was refused."""
    asked = time.monotonic()
    return asked if server.get(f"/v1/tasks/{task}?wait=1").status == 200 else None


def test_revoking_a_key_ends_its_waits(server: Server, measured: Measured) -> None:
    key, other = server.new_key("reader", "read", "write"), server.new_key("bystander", "admin")
    task = server.post("/v1/tasks", {}, key=key).json["id"]
    server.post(f"/v1/tasks/{task}/output", "the first line\n", key=key)
    with contextlib.ExitStack() as stack:
        stream = wait_on(server, stack, A5_FOLLOW.format(task), key).head()
        assert stream.readline() == b"the first line\n"
        waits = [wait_on(server, stack, form.format(task), key) for form in (A1, A5_JSON)]
        untouched = wait_on(server, stack, f"/v1/tasks/{task}/output?first=1&wait=55", other)
        let_it_read(server)

        revoked = time.monotonic()
        assert server.call("DELETE", "/v1/keys/reader").status == 200
        for wait in waits:
            answer = wait.answer()
            assert (answer.status, answer.json["code"]) == (401, 30)
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            stream.read()  # cut: the reader must not take it for the output's end
        took = time.monotonic() - revoked
        measured("a revoked key: end of its waits", took, END_GOAL)
        assert took < END_GOAL * LOADED

        assert server.get(f"/v1/tasks/{task}", key=key).json["code"] == 30
        server.post(f"/v1/tasks/{task}/output", "the second line\n")
        assert untouched.answer().json["output"] == ["the second line"]
    assert server.troubles == ""  # nothing of this is the server's fault


def test_revoking_a_key_ends_its_live_appends(server: Server, measured: Measured) -> None:
    key = server.new_key("producer", "write")
    task = server.post("/v1/tasks", {}, key=key).json["id"]
    with Raw(server) as busy, Raw(server) as quiet:
        for number, producer in enumerate((busy, quiet), start=1):
            producer.ask("POST", f"/v1/tasks/{task}/output", "Transfer-Encoding: chunked", key=key)
            producer.send_chunk(b"before\n")
            until(partial(has_lines, server, task, number), "its line can be read")
        revoked = time.monotonic()
        assert server.call("DELETE", "/v1/keys/producer").status == 200
        busy.send_chunk(b"after\n")
        for producer in (busy, quiet):
            answer = producer.answer()
            assert (answer.status, answer.json["code"]) == (401, 30)
        measured("a revoked key: end of its live appends", time.monotonic() - revoked, END_GOAL)
        assert time.monotonic() - revoked < END_GOAL * LOADED
    assert server.get(f"/v1/tasks/{task}").json["output"] == ["before", "before"]


def has_lines(server: Server, task: str, count: int) -> bool:
    return bool(server.get(f"/v1/tasks/{task}").json["last"] == count)
