"""``taskserver copy``: an installation moves to PostgreSQL and back, and its clients notice nothing but a pause."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.e2e.commands import Commands, on_a_terminal, signed_in
from tests.postgres import PostgresServer
from tests.server import Server

TASKS, LINES = 10, 5000


@pytest.fixture
def database(postgres: PostgresServer, tmp_path: Path) -> str:
    """An empty PostgreSQL database."""
    return asyncio.run(postgres.database(tmp_path))


def elsewhere(folder: Path, database: str, origin: Server) -> Server:
    """A server on another database; its operator has taken the key along."""
    folder.mkdir()
    server = Server(folder)
    server.database = database
    shutil.copy(origin.key_file, server.key_file)
    return server


def as_they_are(server: Server) -> list[object]:
    tasks = server.get("/v1/tasks?limit=100").json["tasks"]
    return [server.get(f"/v1/tasks/{task['id']}").json for task in tasks]


def test_there_and_back_with_equal_checksums(
    server: Server, taskserver: Commands, database: str, tmp_path: Path
) -> None:
    for number in range(TASKS):
        task = server.new_task(id=f"task-{number}", labels={"number": f"{number}"})
        for first in range(0, LINES, 500):
            lines = "".join(f"{task} says line {first + offset}\n" for offset in range(500))
            server.post(f"/v1/tasks/{task}/output?first={first}", lines)
        if number % 2:
            server.post(f"/v1/tasks/{task}/finish", {"code": number, "result": {"type": "n", "data": number}})
    reader = server.new_key("ann", "read")
    token = server.post("/auth/token", {"username": "admin", "password": server.key}).json["access_token"]
    before = as_they_are(server)
    busy = taskserver("copy", server.database, database)
    assert (busy.code, busy.out, busy.err.count("\n")) == (3, b"", 1)
    assert "another taskserver is serving it" in busy.err
    server.stop()

    there = taskserver("copy", server.database, database)
    assert there.code == 0, there.err
    assert f"taskserver: copied 2 keys, 1 secret, {TASKS} tasks, {TASKS * LINES:,} lines (" in there.err
    with elsewhere(tmp_path / "postgres", database, server) as other:
        assert as_they_are(other) == before
        assert other.get("/v1/tasks", key=reader).status == 200
        assert signed_in(other, token)
        busy = taskserver("copy", database, f"sqlite:///{tmp_path}/busy.db")
        assert (busy.code, busy.out) == (3, b"")
        assert "taskservers are connected to it" in busy.err
        again = taskserver("copy", server.database, database)
        assert again.code == 3
        assert other.stop() == 0
    again = taskserver("copy", server.database, database)
    assert (again.code, again.out) == (65, b"")
    assert "is not empty" in again.err

    back = f"sqlite:///{tmp_path}/back.db"
    returned = taskserver("copy", database, back)
    assert returned.code == 0, returned.err
    assert returned.out == there.out
    # A producer goes on where it was.
    with elsewhere(tmp_path / "sqlite", back, server) as other:
        path = f"/v1/tasks/task-0/output?first={LINES}"
        assert other.post(path, "more").json["last"] == LINES + 1
    differ = taskserver("copy", "--verify-only", server.database, back)
    assert (differ.code, differ.out) == (65, b"")
    assert "differ in" in differ.err
    equal = taskserver("copy", "--verify-only", server.database, f"sqlite:///{tmp_path}/again.db")
    assert (equal.code, equal.out) == (3, b"")  # there is none
    taskserver("copy", server.database, f"sqlite:///{tmp_path}/again.db")
    equal = taskserver("copy", "--verify-only", server.database, f"sqlite:///{tmp_path}/again.db")
    assert equal.code == 0
    assert equal.out.startswith(b"sha256 ")


def test_a_terminal_shows_how_far_it_is(server: Server, taskserver: Commands, tmp_path: Path) -> None:
    task = server.new_task()
    server.post(f"/v1/tasks/{task}/output", "a line\n" * 20_000)
    server.stop()
    shown = on_a_terminal(taskserver, "copy", server.database, f"sqlite:///{tmp_path}/b.db")
    for word in ("copying", "comparing", "20,000 of 20,000 lines", "100%"):
        assert word in shown
    shown = on_a_terminal(taskserver, "backup", f"{tmp_path}/c.db", "--database", f"sqlite:///{tmp_path}/b.db")
    assert "copying" in shown
