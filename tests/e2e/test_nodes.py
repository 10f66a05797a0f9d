"""Several servers on one PostgreSQL: any of them serves any request, and any of them may die."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.e2e.bars import followed, told
from tests.e2e.commands import Commands
from tests.e2e.nodes import Nodes
from tests.server import until

# Draws a bar, a step for each word.
BAR = r"""
import sys
print("begins", flush=True)
for text in ("\r0%", "\r50%", "\r100%\n"):
    sys.stderr.write(text)
    sys.stderr.flush()
    if "\n" not in text:
        sys.stdin.readline()
"""
SECONDS = 1.0  # within which a key that was revoked through one node is refused by the others (and some for the test)


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


def test_an_id_that_was_given_to_another_owner_elsewhere_is_not_the_first_ones_any_more(nodes: Nodes) -> None:
    ann, bob = nodes.a.new_key("ann", "read", "write"), nodes.a.new_key("bob", "read", "write")
    assert nodes.a.post("/v1/tasks", {"id": "build"}, key=ann).status == 201
    for _ in range(2):
        assert nodes.a.post("/v1/tasks/build/output", "a", key=ann).status == 200
    assert nodes.b.post("/v1/tasks/build/finish", {"code": 0}, key=ann).status == 200
    assert nodes.b.call("DELETE", "/v1/tasks/build", key=ann).status == 204
    assert nodes.b.post("/v1/tasks", {"id": "build"}, key=bob).status == 201
    assert nodes.a.post("/v1/tasks/build/output", "b", key=ann).status == 404
    for _ in range(2):
        assert nodes.a.post("/v1/tasks/build/output", "c", key=bob).status == 200
    assert nodes.b.get("/v1/tasks/build", key=bob).json["output"] == ["c", "c"]


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


def test_a_bar_that_moves_on_one_node_is_seen_on_the_other(nodes: Nodes, tmp_path: Path) -> None:
    taskserver = Commands(nodes.a, tmp_path)
    with taskserver.start("run", "--lease", "6", "--", sys.executable, "-c", BAR) as running:
        with followed(nodes.b, running.task_id) as rows:
            assert next(rows)["text"] == "begins"
            for text in ("0%", "50%"):
                assert next(row for row in rows if row == told(text))
                running.say("go on\n")
            assert next(row["text"] for row in rows if "text" in row) == "\r0%\r50%\r100%"
            assert next(rows)["finished"] is True
        assert running.end().code == 0


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
