"""Watching what changes (PROTOCOLS.md, A7) and sessions (A3), through servers of several processes and nodes."""

from __future__ import annotations

import contextlib
import http.client
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.nodes import Nodes
from tests.server import CALL_LIMIT, Server, running

OWN_PAGE = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/json"}


@pytest.fixture
def two_processes(tmp_path: Path) -> Iterator[Server]:
    """A server of which two processes answer, in turn for each connection."""
    yield from running(tmp_path, "--workers", "2")


class Watching:
    """The stream of changes on a connection of its own."""

    def __init__(self, connection: http.client.HTTPConnection, headers: dict[str, str]) -> None:
        connection.request("GET", "/v1/changes", headers=headers)
        self._response = connection.getresponse()
        assert self._response.status == 200

    def next(self) -> tuple[str, Any] | None:
        """The next event's name and data; None if the stream has ended or was cut."""
        name = ""
        with contextlib.suppress(http.client.IncompleteRead, ConnectionError):
            while line := self._response.readline():
                field, _, value = line.decode().rstrip("\n").partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    return name, json.loads(value)
        return None

    def until_state(self, task_id: str, state: str) -> None:
        """Read until a task is told to be in a state."""
        while (event := self.next()) is not None:
            name, data = event
            if name == "changes" and any((task["id"], task["state"]) == (task_id, state) for task in data["tasks"]):
                return
        raise AssertionError(f"the stream ended before {task_id} was {state}")


@contextlib.contextmanager
def watching(server: Server, headers: dict[str, str] | None = None) -> Iterator[Watching]:
    """Watch as an admin, or with other headers."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=CALL_LIMIT)
    with contextlib.closing(connection):
        stream = Watching(connection, headers or server.headers)
        assert stream.next() == ("reset", {})
        yield stream


@pytest.mark.skipif(sys.platform != "linux", reason="several processes")
def test_each_process_tells_of_what_the_others_did(two_processes: Server) -> None:
    with watching(two_processes) as one, watching(two_processes) as other:
        task_id = two_processes.new_task()  # through one of them, and what follows through the next
        two_processes.post(f"/v1/tasks/{task_id}/output", "a")
        two_processes.post(f"/v1/tasks/{task_id}/finish", {})
        for stream in (one, other):
            stream.until_state(task_id, "success")


def sign_in(server: Server, key: str) -> dict[str, str]:
    """The headers of a browser that is signed in."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=CALL_LIMIT)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/session", json.dumps({"key": key}), OWN_PAGE)
        response = connection.getresponse()
        assert response.status == 200, response.read()
        return {"Cookie": response.headers["Set-Cookie"].partition(";")[0]}


@pytest.mark.skipif(sys.platform != "linux", reason="several processes")
def test_a_session_holds_in_each_process_until_its_key_is_revoked_through_any(two_processes: Server) -> None:
    browser = sign_in(two_processes, two_processes.new_key("ann", "read"))
    with watching(two_processes, browser) as one, watching(two_processes, browser) as other:
        assert two_processes.call("DELETE", "/v1/keys/ann").status == 200
        for stream in (one, other):
            assert stream.next() is None
    for _ in range(2):
        connection = http.client.HTTPConnection("127.0.0.1", two_processes.port, timeout=CALL_LIMIT)
        with contextlib.closing(connection):
            connection.request("GET", "/v1/session", headers=browser)
            assert connection.getresponse().status == 401


def test_a_session_survives_a_restart(server: Server) -> None:
    browser = sign_in(server, server.key)
    server.kill()
    server.start()
    with watching(server, browser) as stream:
        task_id = server.new_task()
        stream.until_state(task_id, "queued")


def test_a_node_tells_that_another_one_changed_something(nodes: Nodes) -> None:
    browser = sign_in(nodes.a, nodes.a.key)
    here = {"Cookie": browser["Cookie"].replace(str(nodes.a.port), str(nodes.b.port))}
    with watching(nodes.b, here) as stream:
        nodes.a.new_task()
        assert stream.next() == ("reset", {}), "to be read again"
        task_id = nodes.b.new_task()
        stream.until_state(task_id, "queued")
