"""Several servers on one PostgreSQL: any of them serves any request, and any of them may die."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.postgres import PostgresServer
from tests.server import Server, until

SECONDS = 1.0  # within which a key that was revoked through one node is refused by the others (and some for the test)


@dataclass
class Nodes:
    """Two servers, which share a database and their first key."""

    a: Server
    b: Server


@pytest.fixture
def nodes(postgres: PostgresServer, tmp_path: Path) -> Iterator[Nodes]:
    url = asyncio.run(postgres.database(tmp_path))
    key_file = tmp_path / "admin.key"
    servers = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        server = Server(folder, "--bootstrap-key-file", str(key_file))
        server.database, server.key_file = url, key_file
        servers.append(server)
    with servers[0] as a, servers[1] as b:
        yield Nodes(a, b)


def test_any_node_serves_any_request(nodes: Nodes) -> None:
    task = nodes.a.new_task()
    for number in range(20):
        writer, reader = (nodes.a, nodes.b) if number % 2 else (nodes.b, nodes.a)
        answer = writer.post(f"/v1/tasks/{task}/output?first={number}", {"lines": [f"line {number}"]})
        assert answer.json == {"first": number, "last": number + 1, "cancel_requested": False}
        # Who was told of the line by one node may ask the other what comes behind it.
        assert reader.get(f"/v1/tasks/{task}?first={number + 1}").json["output"] == []
        assert reader.get(f"/v1/tasks/{task}?first={number}").json["output"] == [f"line {number}"]
    assert nodes.b.post(f"/v1/tasks/{task}/cancel").status == 200
    assert nodes.a.post(f"/v1/tasks/{task}/heartbeat").json["cancel_requested"]
    assert nodes.b.post(f"/v1/tasks/{task}/finish", {"code": 143, "error": "stopped"}).status == 200
    shown = nodes.a.get(f"/v1/tasks/{task}").json
    assert (shown["finished"], shown["state"], shown["last"]) == (True, "cancelled", 20)


def test_a_wait_on_one_node_ends_with_what_comes_through_the_other(nodes: Nodes) -> None:
    task = nodes.a.new_task()
    with ThreadPoolExecutor(2) as pool:
        for number in range(5):
            waiting = pool.submit(nodes.b.get, f"/v1/tasks/{task}/output?first={number}&wait=20")
            began = time.monotonic()
            nodes.a.post(f"/v1/tasks/{task}/output?first={number}", {"lines": [f"line {number}"]})
            assert waiting.result().json["output"] == [f"line {number}"]
            assert time.monotonic() - began < 8  # a wait that is not woken looks again after ten seconds
        waiting = pool.submit(nodes.b.get, f"/v1/tasks/{task}?first=5&wait=20")
        nodes.a.post(f"/v1/tasks/{task}/finish", {})
        assert waiting.result().json["finished"]


def test_a_key_that_is_revoked_on_one_node_is_refused_by_the_other(nodes: Nodes) -> None:
    key = nodes.a.new_key("ci", "read", "write")
    (found,) = [entry for entry in nodes.b.get("/v1/keys").json["keys"] if entry["name"] == "ci"]
    for node in (nodes.a, nodes.b):
        assert node.get("/v1/tasks", key=key).status == 200
    assert nodes.a.call("DELETE", f"/v1/keys/{found['id']}").status in (200, 204)
    began = time.monotonic()
    assert nodes.a.get("/v1/tasks", key=key).status == 401
    until(lambda: nodes.b.get("/v1/tasks", key=key).status == 401, "the refusal")
    assert time.monotonic() - began < SECONDS + 4  # this machine may be busy


def test_what_a_node_acknowledged_before_it_was_killed_stands(nodes: Nodes) -> None:
    task = nodes.a.new_task()
    for number in range(30):
        nodes.a.post(f"/v1/tasks/{task}/output?first={number}", {"lines": [f"line {number}"]})
    nodes.a.kill()
    assert nodes.b.get(f"/v1/tasks/{task}").json["output"] == [f"line {number}" for number in range(30)]
    assert nodes.b.post(f"/v1/tasks/{task}/output?first=29", {"lines": ["line 29"]}).json["last"] == 30
    assert nodes.b.post(f"/v1/tasks/{task}/finish", {}).json["finished"]
    nodes.a.start()
    assert nodes.a.get(f"/v1/tasks/{task}").json["finished"]
