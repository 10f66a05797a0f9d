"""``taskserver prune`` and ``serve --keep-finished``, as an operator uses them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from taskserver.errors import StoreOpenError
from taskserver.stores import open_store
from tests.e2e.commands import Commands
from tests.postgres import PostgresServer
from tests.server import Server, until

LINES = 60_000


def finished(server: Server, name: str, lines: int = 1) -> str:
    task = server.new_task(id=name)
    server.post(f"/v1/tasks/{task}/output", "a line of output\n" * lines)
    server.post(f"/v1/tasks/{task}/finish")
    return task


def rows(server: Server, table: str) -> int:
    with closing(sqlite3.connect(server.folder / "tasks.db")) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


@pytest.fixture
def operator(server: Server, tmp_path: Path) -> Commands:
    """An operator on the server's machine, who has neither a URL nor a key set."""
    commands = Commands(server, tmp_path)
    for name in ("TASKSERVER_URL", "TASKSERVER_KEY"):
        del commands.environment[name]
    return commands


def test_without_a_server_the_file_is_pruned(operator: Commands) -> None:
    server = operator.server
    finished(server, "old", LINES)
    server.new_task(id="live")
    server.stop()
    cron = ("prune", "--older-than", "0s", "--database", server.database)
    would = operator(*cron, "--dry-run")
    assert (would.code, would.lines, would.err) == (0, ["would remove 1 task and 0 runs"], "")
    assert rows(server, "task") == 2
    done = operator(*cron)
    assert (done.code, done.lines, done.err) == (0, ["removed 1 task and 0 runs"], "")
    assert (rows(server, "task"), rows(server, "chunk"), rows(server, "discarded")) == (1, 0, 0)
    assert operator(*cron).lines == ["removed 0 tasks and 0 runs"]
    server.start()
    assert [task["id"] for task in server.get("/v1/tasks").json["tasks"]] == ["live"]


def test_a_running_server_is_asked(operator: Commands) -> None:
    server = operator.server
    for number in range(600):
        finished(server, f"old-{number}")
    cron = ("prune", "--older-than", "0s", "--database", server.database)
    # It does not know where the server listens: nobody is at the default's place, or somebody whose key is another.
    lost = operator(*cron, TASKSERVER_KEY="x" * 40, TASKSERVER_PRUNE_DRY_RUN="1")
    assert lost.code in (69, 77)
    assert lost.err.startswith(f"taskserver: a server has {server.database} open; asking the one at http://127.0.0.1:8")
    would = operator(*cron, "--dry-run", "--url", server.url)
    assert (would.code, would.lines, would.err) == (0, ["would remove 600 tasks and 0 runs"], "")
    done = operator(*cron, TASKSERVER_URL=server.url)
    assert (done.code, done.lines) == (0, ["removed 600 tasks and 0 runs"])
    assert done.err == f"taskserver: a server has {server.database} open; asking the one at {server.url}\n"
    assert server.get("/v1/tasks").json["tasks"] == []
    reader = server.new_key("ann", "read", "write")
    refused = operator(*cron, "--url", server.url, "--key", reader)
    assert (refused.code, refused.out) == (77, b"")


def test_a_database_that_is_not_there_is_not_made(operator: Commands, tmp_path: Path) -> None:
    done = operator("prune", "--older-than", "30d", "--database", f"sqlite:///{tmp_path}/other.db")
    assert (done.code, done.out) == (3, b"")
    assert done.err == f"taskserver: cannot open database {tmp_path}/other.db: there is no such database\n"
    assert list(tmp_path.glob("other*")) == []


@pytest.mark.parametrize("time", ["1 day", "-1d", "3y", "0", "0d"])
def test_a_time_that_is_none_is_told(operator: Commands, time: str) -> None:
    done = operator.inside("serve", "--keep-finished", time)
    assert (done.code, done.err.count("\n")) == (2, 1)


def test_a_server_that_keeps_for_a_time_removes_what_is_older(server: Server) -> None:
    task = finished(server, "old", LINES)
    server.new_task(id="live")
    server.stop()
    server.arguments = ("--keep-finished", "1s")
    server.start()
    until(lambda: server.get(f"/v1/tasks/{task}/output?limit=1").status == 404, "the old task's end")
    until(lambda: rows(server, "chunk") == rows(server, "discarded") == 0, "its space")
    assert server.get("/v1/tasks/live").status == 200
    until(lambda: "removed 1 tasks" in server.log, "a word in the log")


def test_a_server_that_is_killed_while_it_removes_goes_on(server: Server) -> None:
    for number in range(20):
        finished(server, f"large-{number}", LINES)
    server.stop()
    server.arguments = ("--keep-finished", "1s")
    before = rows(server, "chunk")
    server.start()
    until(lambda: rows(server, "chunk") < before, "the first chunks' end")
    server.kill()
    server.start()
    until(lambda: rows(server, "chunk") == rows(server, "discarded") == 0, "the others' end")
    assert server.get("/v1/tasks").json["tasks"] == []


@pytest.fixture
def node(postgres: PostgresServer, tmp_path: Path) -> Iterator[Server]:
    """A server on PostgreSQL."""
    server = Server(tmp_path)
    server.database = asyncio.run(postgres.database(tmp_path))
    server.arguments = ("--bootstrap-key-file", str(server.key_file))
    with server:
        yield server


def test_postgresql_is_pruned_beside_its_servers(node: Server) -> None:
    operator = Commands(node, node.folder)
    task = finished(node, "old", LINES)
    node.new_task(id="live")
    cron = ("prune", "--older-than", "0s", "--database", node.database)
    assert operator(*cron, "--dry-run").lines == ["would remove 1 task and 0 runs"]
    done = operator(*cron)
    assert (done.code, done.lines, done.err) == (0, ["removed 1 task and 0 runs"], "")
    assert node.get(f"/v1/tasks/{task}").status == 404
    assert node.get(f"/v1/tasks/{task}/output?format=text").status == 404
    assert [task["id"] for task in node.get("/v1/tasks").json["tasks"]] == ["live"]


def test_several_nodes_that_keep_for_a_time_share_the_work(node: Server) -> None:
    tasks = [finished(node, f"old-{number}", 20) for number in range(60)]
    node.new_task(id="live")
    node.stop()
    node.arguments += ("--keep-finished", "1s")
    node.start()
    second = Server(node.folder, *node.arguments)
    second.database = node.database
    with second:
        for task in tasks:
            until(lambda: second.get(f"/v1/tasks/{task}").status == 404, "its end")  # noqa: B023
        assert second.get("/v1/tasks/live").status == 200
    assert "Traceback" not in node.log


async def test_a_schema_that_is_not_there_is_not_made(postgres: PostgresServer, tmp_path: Path) -> None:
    url = await postgres.database(tmp_path)
    with pytest.raises(StoreOpenError, match="there are no tables of taskserver's in it"):
        await open_store(url, create=False)
    with pytest.raises(StoreOpenError, match="there are no tables of taskserver's in it"):
        await open_store(url, create=False)
    await (await open_store(url)).close()
