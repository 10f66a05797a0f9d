"""``taskserver backup``: made under the load of producers, restored elsewhere, and nothing acknowledged is missing."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.e2e.commands import Commands, signed_in
from tests.e2e.ledger import Record, compare
from tests.server import Server, until

PRODUCERS = 4
BATCH = 50


class Producer(threading.Thread):
    """Appends to a task until it is told to stop, and remembers what was acknowledged."""

    def __init__(self, server: Server, name: str) -> None:
        super().__init__()
        self.record = Record(name)
        self.stopped = threading.Event()
        self._server = server

    def run(self) -> None:
        for number in itertools.count():
            lines = [f"{self.record.id} line {number * BATCH + offset}" for offset in range(BATCH)]
            self.record.sent += lines
            path = f"/v1/tasks/{self.record.id}/output?first={number * BATCH}"
            assert self._server.post(path, "\n".join(lines)).status == 200
            self.record.acknowledged += BATCH
            if self.stopped.is_set():
                return


@contextmanager
def producing(server: Server) -> Iterator[list[Producer]]:
    producers = [Producer(server, server.new_task(id=f"producer-{number}")) for number in range(PRODUCERS)]
    for producer in producers:
        producer.start()
    try:
        yield producers
    finally:
        for producer in producers:
            producer.stopped.set()
        for producer in producers:
            producer.join()


def restored(backup: Path, folder: Path) -> Server:
    """A server in a new folder, on a backup. The operator has kept the key."""
    folder.mkdir()
    shutil.copy(backup, folder / "tasks.db")
    return Server(folder)


def test_under_load_and_restored_elsewhere(server: Server, taskserver: Commands, tmp_path: Path) -> None:
    done = server.new_task(id="done", labels={"branch": "main"})
    server.post(f"/v1/tasks/{done}/output", "before\n" * 1000)
    result = {"type": "text", "data": [1]}
    server.post(f"/v1/tasks/{done}/finish", {"code": 3, "error": "bad luck", "result": result})
    reader = server.new_key("ann", "read")
    token = server.post("/auth/token", {"username": "admin", "password": server.key}).json["access_token"]
    backup = tmp_path / "backup.db"
    with producing(server) as producers:
        until(lambda: all(producer.record.acknowledged > 3 * BATCH for producer in producers), "some lines")
        acknowledged = [producer.record.acknowledged for producer in producers]
        made = taskserver("backup", str(backup), "--database", server.database)
        later = [producer.record.acknowledged for producer in producers]
        until(lambda: all(p.record.acknowledged > last for p, last in zip(producers, later, strict=True)), "more lines")
    assert (made.code, made.out) == (0, b""), made
    assert made.err.startswith(f"taskserver: backed up {server.database} to {backup} (")
    assert [path.name for path in tmp_path.glob("backup*")] == ["backup.db"]
    assert backup.stat().st_mode & 0o777 == (tmp_path / "tasks.db").stat().st_mode & 0o777

    with restored(backup, tmp_path / "elsewhere") as other:
        shutil.copy(server.key_file, other.key_file)
        for producer, least in zip(producers, acknowledged, strict=True):
            output = other.get(f"/v1/tasks/{producer.record.id}").json["output"]
            assert not (faults := compare(producer.record, output, least)), faults
        assert other.get(f"/v1/tasks/{done}").json == server.get(f"/v1/tasks/{done}").json
        assert other.get("/v1/tasks", key=reader).status == 200
        assert signed_in(other, token)
        # It goes on where the backup ends.
        first = other.get("/v1/tasks/producer-0").json["last"]
        assert other.post(f"/v1/tasks/producer-0/output?first={first}", "more").json["last"] == first + 1


def test_without_a_server_too_and_over_an_older_one(server: Server, taskserver: Commands, tmp_path: Path) -> None:
    server.new_task(id="one")
    server.kill()
    backup = tmp_path / "backup.db"
    command = ("backup", str(backup), "--database", server.database)
    assert taskserver(*command).code == 0
    before = backup.read_bytes()
    refused = taskserver(*command)
    assert (refused.code, refused.err) == (65, f"taskserver: {backup} exists already; --force replaces it\n")
    assert backup.read_bytes() == before
    server.start()
    server.new_task(id="two")
    assert taskserver(*command, "--force").code == 0
    with closing(sqlite3.connect(backup)) as connection:
        assert {row[0] for row in connection.execute("SELECT id FROM task")} == {"one", "two"}


def test_what_cannot_be_backed_up(taskserver: Commands, tmp_path: Path) -> None:
    def refused(code: int, message: str, *arguments: str) -> None:
        done = taskserver.inside("backup", *arguments)
        assert (done.code, done.out) == (code, b"")
        assert message in done.err
        assert done.err.count("\n") == 1

    url = f"sqlite:///{tmp_path}"
    (tmp_path / "other.db").write_text("no database at all, but long enough for a header" * 99)
    with closing(sqlite3.connect(tmp_path / "foreign.db")) as connection:
        connection.execute("CREATE TABLE t (x)")
    refused(3, "there is no such database", str(tmp_path / "b"), "--database", f"{url}/nosuch.db")
    refused(3, "file is not a database", str(tmp_path / "b"), "--database", f"{url}/other.db")
    refused(3, "was not made by taskserver", str(tmp_path / "b"), "--database", f"{url}/foreign.db")
    refused(3, "sqlite:///", str(tmp_path / "b"), "--database", "mysql://x")
    refused(65, "is the database itself", str(tmp_path / "tasks.db"), "--force", "--database", f"{url}/tasks.db")
    refused(74, "No such file or directory", str(tmp_path / "nosuch" / "b"), "--database", f"{url}/tasks.db")
    assert list(tmp_path.glob("b*")) == []


@pytest.mark.parametrize(
    ("url", "command"),
    [
        ("postgresql://tasks@db/tasks", "pg_dump -Fc -d postgresql://tasks@db/tasks -f b.dump"),
        (
            "postgresql://tasks:sesame@db:5433/tasks?search_path=work,public&sslmode=require&statement_cache_size=0",
            "pg_dump -Fc -d 'postgresql://tasks@db:5433/tasks?sslmode=require' -n work -f b.dump",
        ),
        (
            "postgres://:sesame@/tasks?host=/run/pg&password=sesame",
            "pg_dump -Fc -d 'postgres:///tasks?host=%2Frun%2Fpg' -f b.dump",
        ),
    ],
)
def test_of_postgresql_it_tells_what_to_use(taskserver: Commands, url: str, command: str) -> None:
    done = taskserver.inside("backup", "b.dump", "--database", url)
    assert (done.code, done.out) == (2, b"")
    assert f" {command}," in done.err
    assert "pg_basebackup" in done.err
    assert "sesame" not in done.err
