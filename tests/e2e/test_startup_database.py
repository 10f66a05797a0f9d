"""Databases that a server cannot use: a clear message, exit status 3, and not a byte of the file changed."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.server import Refusal, Server

CANNOT_START = 3
# Takes from root what lets it write to files that are read-only; everybody else lacks it anyway.
OBEY_PERMISSIONS = ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override")


@pytest.fixture
def stopped(tmp_path: Path) -> Server:
    """A server that has run and left a database with one task."""
    with Server(tmp_path) as server:
        task = server.new_task(id="kept")
        server.post(f"/v1/tasks/{task}/output", "a line\n" * 1000)
        assert server.stop() == 0
    with sqlite3.connect(tmp_path / "tasks.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return server


@pytest.fixture
def obedient(stopped: Server) -> Iterator[Server]:
    """The same, and the next process obeys file permissions even if the tests run as root."""
    if os.geteuid() == 0:
        if shutil.which(OBEY_PERMISSIONS[0]) is None:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("setpriv (util-linux) is not installed")
        stopped.wrapper = OBEY_PERMISSIONS
    yield stopped
    stopped.folder.chmod(0o700)


def refused(server: Server, *words: str) -> Refusal:
    """The server does not start, says why in one line, and has not touched the file."""
    file = server.folder / "tasks.db"
    before, changed = file.read_bytes(), file.stat().st_mtime_ns
    refusal = server.start_refused()
    assert refusal.status == CANNOT_START, refusal.message
    assert refusal.message.startswith(f"taskserver: cannot open database {file}: "), refusal.message
    assert refusal.message.count("\n") == 1, refusal.message
    for word in words:
        assert word in refusal.message
    assert file.read_bytes() == before
    assert file.stat().st_mtime_ns == changed
    return refusal


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda data: b"garbage!" * 2 + data[16:], id="another-header"),
        pytest.param(lambda data: b"This is not a database.\n" * 400, id="text"),
        pytest.param(lambda data: data[: len(data) // 2], id="half"),
        pytest.param(lambda data: data[:-4096], id="a-page-short"),
        pytest.param(lambda data: data[:50], id="half-a-header"),
        pytest.param(lambda data: data[:4096] + b"x" * 4096 + data[8192:], id="a-page-of-garbage"),
    ],
)
def test_a_corrupt_database(stopped: Server, spoil: Callable[[bytes], bytes]) -> None:
    file = stopped.folder / "tasks.db"
    whole = file.read_bytes()
    file.write_bytes(spoil(whole))
    refused(stopped)

    file.write_bytes(whole)  # a backup put in its place works
    with stopped:
        assert stopped.get("/v1/tasks/kept").json["last"] == 1000


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_a_database_of_another_program(tmp_path: Path, journal: str) -> None:
    connection = sqlite3.connect(tmp_path / "tasks.db")
    connection.execute(f"PRAGMA journal_mode = {journal}")
    connection.execute("CREATE TABLE task (id)")
    connection.commit()
    connection.close()
    refused(Server(tmp_path), "not made by taskserver")


def test_a_database_of_a_newer_version(stopped: Server) -> None:
    with sqlite3.connect(stopped.folder / "tasks.db") as connection:
        connection.execute("UPDATE schema_version SET version = 99")
    connection.close()
    refused(stopped, "version 99", "use a newer taskserver")


def test_a_read_only_database(obedient: Server) -> None:
    (obedient.folder / "tasks.db").chmod(0o444)
    refused(obedient, "read-only")


def test_a_read_only_folder(obedient: Server) -> None:
    for leftover in ("tasks.db.lock", "tasks.db-wal", "tasks.db-shm"):
        (obedient.folder / leftover).unlink(missing_ok=True)
    obedient.folder.chmod(0o555)
    refused(obedient, "Permission denied")


def test_a_read_only_database_that_was_not_closed(obedient: Server) -> None:
    obedient.wrapper, wrapper = (), obedient.wrapper
    with obedient:
        obedient.post("/v1/tasks/kept/output", "another line\n")
    (obedient.folder / "tasks.db").chmod(0o444)
    obedient.wrapper = wrapper
    refused(obedient, "read-only")

    (obedient.folder / "tasks.db").chmod(0o600)
    with obedient:
        assert obedient.get("/v1/tasks/kept").json["last"] == 1001


def test_a_database_that_is_being_served(server: Server) -> None:
    second = Server(server.folder)
    refused(second, "another taskserver is serving it")
    assert server.get("/readyz").status == 200
    server.kill()
    with second:  # the lock dies with its holder, however that ended
        assert second.get("/readyz").status == 200


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.database = f"sqlite:///{tmp_path}/no/such/tasks.db"
    refusal = server.start_refused()
    assert refusal.status == CANNOT_START
    assert "No such file or directory" in refusal.message
    assert not (tmp_path / "no").exists()


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "tasks.db").mkdir()
    refusal = Server(tmp_path).start_refused()
    assert refusal.status == CANNOT_START
    assert refusal.message.startswith(f"taskserver: cannot open database {tmp_path}/tasks.db: ")


@pytest.mark.parametrize(
    "url", ["mysql://localhost/tasks", "tasks.db", "sqlite://", "sqlite:///", "sqlite:///:memory:"]
)
def test_a_url_that_names_no_database(tmp_path: Path, url: str) -> None:
    server = Server(tmp_path)
    server.database = url
    refusal = server.start_refused()
    assert refusal.status == CANNOT_START
    assert repr(url) in refusal.message
    assert "sqlite:///tasks.db" in refusal.message  # what it should look like


def test_a_port_that_is_taken(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    second = Server(folder)
    second.port = server.port
    refusal = second.start_refused()
    assert refusal.status == CANNOT_START
    assert f"cannot listen on 127.0.0.1 port {server.port}" in refusal.message


def test_what_an_orderly_stop_leaves_is_one_whole_file(stopped: Server, tmp_path: Path) -> None:
    with stopped:
        stopped.post("/v1/tasks/kept/output", "the last line\n")
        assert stopped.stop() == 0
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(tmp_path / "tasks.db", copy / "tasks.db")
    shutil.copy(tmp_path / "tasks.db.key", copy / "tasks.db.key")
    with Server(copy) as server:
        assert server.get("/v1/tasks/kept?first=1000").json["output"] == ["the last line"]
