"""``serve --workers``: several processes answer as one, and any of them may die."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.bars import NDJSON, bar_row, followed, told
from tests.e2e.conftest import Measured
from tests.e2e.raw import Raw
from tests.server import CALL_LIMIT, EVENT_LIMIT, Answer, Server, children, running, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds the workers through /proc")

PROCESSES = 2
REPLACED_GOAL = 2.0  # seconds until another worker answers in the place of one that died
GONE_GOAL = 0.5  # seconds until workers have ended when the first process died
SHARE = 10  # connections
TEXT = {"Content-Type": "text/plain"}

# As `python -m taskserver`, but the workers cannot start.
BROKEN = (
    "from taskserver.serving import supervisor; supervisor._START = 'raise SystemExit(7)'; import taskserver.__main__"
)


class Keeping:
    """A connection that is kept: one process answers all that is asked on it. Two in a row belong to two processes."""

    def __init__(self, server: Server) -> None:
        self._headers = server.headers
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=CALL_LIMIT)
        self._connection.connect()

    def call(self, method: str, path: str, body: object = None, key: str | None = None) -> Answer:
        headers = dict(self._headers) if key is None else {"Authorization": f"Key {key}"}
        data = None
        if isinstance(body, str):
            headers, data = {**headers, **TEXT}, body.encode()
        elif isinstance(body, bytes):
            headers, data = {**headers, **NDJSON}, body
        elif body is not None:
            headers, data = {**headers, "Content-Type": "application/json"}, json.dumps(body).encode()
        self._connection.request(method, path, data, headers)
        response = self._connection.getresponse()
        return Answer(response.status, response.headers, response.read())

    def ok(self, method: str, path: str, body: object = None) -> Any:
        answer = self.call(method, path, body)
        assert answer.status in (200, 201, 204), answer
        return answer.json if answer.body else None

    def close(self) -> None:
        self._connection.close()


Connect = Callable[[], Keeping]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    yield from running(tmp_path, "--max-failed-sign-ins", "0", "--workers", str(PROCESSES))


@pytest.fixture
def connect(server: Server) -> Iterator[Connect]:
    with contextlib.ExitStack() as stack:

        def connecting() -> Keeping:
            return stack.enter_context(contextlib.closing(Keeping(server)))

        yield connecting


def open_files(process: int) -> int:
    return sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())


def shares(server: Server) -> list[int]:
    """How many of as many new connections as make SHARE for each each process gets, the first process first."""
    assert server.process is not None
    processes = [server.process.pid, *server.workers]
    before = [open_files(process) for process in processes]
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(contextlib.closing(Keeping(server))) for _ in range(SHARE * len(processes))]
        for connection in kept * 2:  # at the second answer, who has handed the connection over has let go of it
            connection.ok("GET", "/readyz")
        return [open_files(process) - files for process, files in zip(processes, before, strict=True)]


def test_each_process_gets_its_share_of_the_connections(server: Server) -> None:
    assert shares(server) == [SHARE] * PROCESSES


def test_what_one_process_acknowledged_is_true_in_the_other(connect: Connect) -> None:
    connections = [connect() for _ in range(6)]
    assert connections[0].ok("POST", "/v1/tasks", {"id": "build"})["last"] == 0
    for number in range(300):
        here, there = connections[number % 6], connections[(number + 1) % 6]
        last = here.ok("POST", f"/v1/tasks/build/output?first={number}", f"line {number}\n")["last"]
        task = there.ok("GET", f"/v1/tasks/build?first={last}")  # 400 where that cursor is not known
        assert (task["last"], task["output"]) == (last, [])
    for number in range(30):
        here, there = connections[number % 6], connections[(number + 1) % 6]
        assert here.ok("POST", "/v1/tasks", {"id": "other"})["last"] == 0
        assert there.ok("POST", "/v1/tasks/other/finish", {"code": 3})["code"] == 3
        assert here.ok("GET", "/v1/tasks/other")["finished"] is True
        assert there.call("DELETE", "/v1/tasks/other").status == 204
        assert here.call("GET", "/v1/tasks/other").status == 404


def test_a_wait_in_one_process_is_woken_through_the_other(connect: Connect) -> None:
    here, there = connect(), connect()
    here.ok("POST", "/v1/tasks", {"id": "build"})
    with ThreadPoolExecutor() as pool:
        for number in range(20):
            wait = pool.submit(there.ok, "GET", f"/v1/tasks/build/output?first={number}&wait=55")
            here.ok("POST", "/v1/tasks/build/output", f"line {number}\n")
            assert wait.result(EVENT_LIMIT)["output"] == [f"line {number}"]
        end = pool.submit(there.ok, "GET", "/v1/tasks/build?first=20&wait=20")
        assert here.ok("POST", "/v1/tasks/build/finish", {"code": 0})["finished"] is True
        assert end.result(EVENT_LIMIT)["finished"] is True


def test_a_bar_that_moves_at_one_process_is_seen_through_the_other(server: Server, connect: Connect) -> None:
    here, there = connect(), connect()
    task_id = here.ok("POST", "/v1/tasks", {})["id"]
    with followed(server, task_id) as at_here, followed(server, task_id) as at_there:
        for number in range(10):
            writer = here if number % 2 else there
            assert writer.ok("POST", f"/v1/tasks/{task_id}/output", bar_row(f"{number}%"))["last"] == 0
            assert next(at_here) == next(at_there) == told(f"{number}%")
        here.ok("POST", f"/v1/tasks/{task_id}/output", "a line")
        assert next(at_here)["text"] == next(at_there)["text"] == "a line"


def test_a_producer_at_one_process_is_asked_to_stop_through_the_other(connect: Connect) -> None:
    here, there = connect(), connect()
    here.ok("POST", "/v1/tasks", {"id": "build"})
    assert here.ok("POST", "/v1/tasks/build/output", "a\n")["cancel_requested"] is False
    there.ok("POST", "/v1/tasks/build/cancel")
    assert here.ok("POST", "/v1/tasks/build/output", "b\n")["cancel_requested"] is True
    assert here.ok("POST", "/v1/tasks/build/heartbeat")["cancel_requested"] is True


def test_a_key_that_is_revoked_through_one_process_is_refused_by_both(server: Server, connect: Connect) -> None:
    here, there = connect(), connect()
    here.ok("POST", "/v1/tasks", {"id": "build"})
    for _ in range(20):
        key = here.ok("POST", "/v1/keys", {"name": "ci", "scopes": ["read"], "owner": "admin"})["key"]
        for connection in (here, there):
            assert connection.call("GET", "/v1/tasks/build", key=key).status == 200
        here.ok("DELETE", "/v1/keys/ci")
        for connection in (there, here):
            assert connection.call("GET", "/v1/tasks/build", key=key).status == 401

    key = server.new_key("ci", "read", owner="admin")
    with contextlib.ExitStack() as stack:
        waits = [stack.enter_context(Raw(server)) for _ in range(4)]
        for wait in waits:
            wait.ask("GET", "/v1/tasks/build?wait=20", key=key)
        let_all_read(server)
        here.ok("DELETE", "/v1/keys/ci")
        assert [wait.answer().status for wait in waits] == [401] * 4


def test_a_run_is_claimed_once_and_its_claimants_are_woken_in_both_processes(connect: Connect) -> None:
    here, there = connect(), connect()
    here.ok("PUT", "/v1/dags/etl", {"tasks": [{"task_id": "a"}]})
    claimants = [connect() for _ in range(6)]
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(one.call, "POST", "/v1/runs/claim?wait=20", {"lease": 60}) for one in claimants]
        for connection in (here, there) * 3:
            connection.ok("POST", "/v1/dags/etl/runs", {})
        claims = [claim.result(EVENT_LIMIT) for claim in waiting]
    assert {claim.status for claim in claims} == {200}
    assert len({claim.json["id"] for claim in claims}) == 6


def test_workers_that_are_killed_lose_nothing_and_are_replaced(tmp_path: Path, measured: Measured) -> None:
    with Server(tmp_path, "--workers", "3") as server:
        assert len(server.workers) == 2
        kill_each_worker(server, measured)


def kill_each_worker(server: Server, measured: Measured) -> None:
    for name in ("a", "b", "c", "d"):
        server.new_task(id=name)
    stop = threading.Event()
    with ThreadPoolExecutor() as pool:
        producing = [pool.submit(produce, server, name, stop) for name in ("a", "b", "c", "d")]
        following = [pool.submit(follow, server, name) for name in ("a", "b", "c", "d") for _ in range(2)]
        for worker in server.workers:
            killed = time.monotonic()
            os.kill(worker, signal.SIGKILL)
            until(partial(is_replaced, server, worker), "another one answers")
            measured("a worker that was killed: another one answers", time.monotonic() - killed, REPLACED_GOAL)
        stop.set()
        acknowledged = dict(future.result(CALL_LIMIT) for future in producing)
        followed = [future.result(CALL_LIMIT) for future in following]
    for name, lines in acknowledged.items():
        assert lines
        assert server.get(f"/v1/tasks/{name}").json["output"] == lines
    assert [lines for name, lines in followed] == [acknowledged[name] for name, _ in followed]
    assert server.log.count("was killed by SIGKILL; another one takes its place") == 2
    assert server.stop() == 0


def is_replaced(server: Server, worker: int) -> bool:
    workers = server.workers
    complete = worker not in workers and len(workers) == int(server.arguments[-1]) - 1
    return complete and min(shares(server)) >= SHARE / 2  # others come and go


def produce(server: Server, name: str, stop: threading.Event) -> tuple[str, list[str]]:
    """Append lines until told to stop, repeating what was cut off; all of them were acknowledged."""
    lines: list[str] = []
    while not stop.is_set():
        line, number = f"{name} {len(lines)}", len(lines)
        insist(server, "POST", f"/v1/tasks/{name}/output?first={number}", line + "\n")
        lines.append(line)
    insist(server, "POST", f"/v1/tasks/{name}/finish", {})
    return name, lines


def follow(server: Server, name: str) -> tuple[str, list[str]]:
    """All lines of a task, by long polls."""
    lines: list[str] = []
    while True:
        page = insist(server, "GET", f"/v1/tasks/{name}/output?first={len(lines)}&wait=20")
        lines += page["output"]
        if page["finished"]:
            return name, lines


def insist(server: Server, method: str, path: str, body: object = None) -> Any:
    """The answer to a request that is repeated while it is cut off."""
    deadline = time.monotonic() + CALL_LIMIT
    while True:
        try:
            answer = server.call(method, path, body)
        except (OSError, http.client.HTTPException):
            assert time.monotonic() < deadline
            continue
        assert answer.status == 200, answer
        return answer.json


def let_all_read(server: Server) -> None:
    """Return when each process has read the requests sent so far: connections go to one after the other."""
    for _ in range(PROCESSES):
        assert server.get("/healthz").status == 200


def test_workers_end_with_the_first_process_and_leave_the_port_to_the_next(server: Server, measured: Measured) -> None:
    task = server.new_task()
    server.post(f"/v1/tasks/{task}/output", "kept\n")
    workers = server.workers
    with Raw(server) as wait:
        wait.ask("GET", f"/v1/tasks/{task}?wait=20")
        let_all_read(server)
        killed = time.monotonic()
        server.kill()
        until(lambda: not any(map(exists, workers)), "no worker is left")
        measured("the first process was killed: its workers' end", time.monotonic() - killed, GONE_GOAL)
        assert wait.rest() == b""  # nobody answers what nobody can vouch for any more
    server.start()
    assert server.get(f"/v1/tasks/{task}").json["output"] == ["kept"]


def exists(process: int) -> bool:
    """Whether a process runs (one that only its adopter has not buried yet does not)."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_an_interrupt_of_all_processes_stops_them_in_order(server: Server) -> None:
    task = server.new_task()
    with contextlib.ExitStack() as stack:
        waits = [stack.enter_context(Raw(server)).ask("GET", f"/v1/tasks/{task}?wait=20") for _ in range(4)]
        let_all_read(server)
        assert server.process is not None
        workers = server.workers
        for process in (*workers, server.process.pid):
            os.kill(process, signal.SIGINT)
        assert [wait.answer().status for wait in waits] == [200] * 4
        assert server.process.wait(EVENT_LIMIT) == 0
        assert not any(map(exists, workers))
    assert server.troubles == ""


def test_a_worker_that_is_asked_to_end_answers_its_waits_first(server: Server) -> None:
    task = server.new_task()
    with contextlib.ExitStack() as stack:
        waits = [stack.enter_context(Raw(server)).ask("GET", f"/v1/tasks/{task}?wait=20") for _ in range(PROCESSES)]
        let_all_read(server)
        (worker,) = server.workers
        os.kill(worker, signal.SIGTERM)
        until(partial(is_replaced, server, worker), "another one answers")
        assert server.stop() == 0
        assert [wait.answer().status for wait in waits] == [200] * PROCESSES


def test_workers_that_cannot_start_end_the_server(tmp_path: Path) -> None:
    server = Server(tmp_path, "--workers", "2")
    server.command = (sys.executable, "-c", BROKEN, "serve")
    refusal = server.start_refused()
    assert refusal.status == 3
    assert "taskserver: the workers cannot start: worker " in refusal.message
    assert "ended with status 7" in refusal.message
    assert children(os.getpid()) == []


def test_a_second_server_is_refused(server: Server) -> None:
    for arguments in ((), ("--workers", "2")):
        second = Server(server.folder, *arguments)
        assert "another taskserver is serving it" in second.start_refused().message
    other = server.folder / "other"
    other.mkdir()
    second = Server(other, "--workers", "2")
    second.port = server.port
    assert f"cannot listen on 127.0.0.1 port {server.port}" in second.start_refused().message


def test_a_host_with_several_addresses(tmp_path: Path) -> None:
    server = Server(tmp_path, "--workers", "2", "--host", "localhost")
    with server:
        assert server.get("/readyz").status == 200
        assert server.stop() == 0
