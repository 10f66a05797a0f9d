"""PROTOCOLS.md, B3, with a server as it runs in production: another event loop, and signals."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from urllib.parse import quote

import pytest

from tests.server import EVENT_LIMIT, Server

DAG = "my_dag"
FIRST_LINE = b'{"state":"running"}\n'


@dataclass(frozen=True)
class Run:
    """A claimed run of a server."""

    server: Server
    id: str
    claim: str
    path: str

    def finish(self) -> None:
        answer = self.server.post(f"/v1/runs/{self.id}/finish", {"claim": self.claim, "state": "success"})
        assert answer.status == 200, answer

    def wait(self, stack: ExitStack, rest: str = "/wait?interval=60") -> socket.socket:
        """A connection that waits; its first line has been read."""
        connection = stack.enter_context(closing(socket.create_connection(("127.0.0.1", self.server.port))))
        connection.settimeout(EVENT_LIMIT)
        self.ask(connection, rest)
        seen = b""
        while FIRST_LINE not in seen:
            seen += receive(connection)
        assert seen.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"content-type" not in seen.lower()
        return connection

    def ask(self, connection: socket.socket, rest: str) -> None:
        lines = [f"GET {self.path}{rest} HTTP/1.1", "Host: x", f"Authorization: Bearer {self.server.key}", "", ""]
        connection.sendall("\r\n".join(lines).encode())


def receive(connection: socket.socket) -> bytes:
    """What has come, at least a byte."""
    data = connection.recv(65536)
    assert data, "the server has closed the connection"
    return data


def rest_of(connection: socket.socket) -> bytes:
    """All that comes until the connection ends or breaks."""
    seen = b""
    try:
        while data := connection.recv(65536):
            seen += data
    except ConnectionResetError:
        pass
    return seen


@pytest.fixture
def run(server: Server) -> Run:
    assert server.call("PUT", f"/v1/dags/{DAG}", {}).status == 200
    assert server.post(f"/api/v2/dags/{DAG}/dagRuns", {"logical_date": None}).status == 200
    claimed = server.post("/v1/runs/claim", {}).json
    path = f"/api/v2/dags/{DAG}/dagRuns/{quote(claimed['run_id'], safe='')}"
    return Run(server, claimed["id"], claimed["claim"], path)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_all_are_told_and_their_connections_live_on(run: Run, stack: ExitStack) -> None:
    waiting = [run.wait(stack) for _ in range(200)]
    run.finish()
    for connection in waiting:
        seen = b""
        while not seen.endswith(b"\r\n0\r\n\r\n"):
            seen += receive(connection)
        assert seen == b'14\r\n{"state":"success"}\n\r\n0\r\n\r\n'
    run.ask(waiting[0], "")
    assert receive(waiting[0]).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_stop_is_quick_and_no_end(run: Run, stack: ExitStack) -> None:
    waiting = [run.wait(stack) for _ in range(50)]
    began = time.monotonic()
    assert run.server.stop() == 0
    assert time.monotonic() - began < EVENT_LIMIT
    for connection in waiting:
        assert rest_of(connection) == b"14\r\n" + FIRST_LINE + b"\r\n", "the state, and no end of the body"
    run.server.start()
    run.finish()
    assert run.server.get(f"{run.path}/wait?interval=1").json == {"state": "success"}


def test_a_kill_is_no_end(run: Run, stack: ExitStack) -> None:
    connection = run.wait(stack)
    assert run.server.kill() == -signal.SIGKILL
    assert rest_of(connection) == b""


def test_a_deletion_is_no_end(run: Run, stack: ExitStack) -> None:
    waiting = [run.wait(stack) for _ in range(50)]
    assert run.server.call("DELETE", f"/v1/runs/{run.id}").status == 204
    for connection in waiting:
        assert rest_of(connection) == b""


def test_who_leaves_gives_his_place_back(run: Run) -> None:
    for _ in range(3):
        with ExitStack() as leaving:
            for _ in range(50):
                run.wait(leaving)
    with ExitStack() as stack:
        last = run.wait(stack)
        run.finish()
        assert b'{"state":"success"}' in receive(last)
    assert "ERROR" not in run.server.log
