"""The first admin key: made at a first start, or brought in a file (`--bootstrap-key-file`)."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.server import Server

CANNOT_START = 3


@pytest.fixture
def bootstrapped(tmp_path: Path) -> Server:
    """A server that has not been started yet, with a bootstrap key file that does not exist yet."""
    server = Server(tmp_path, "--bootstrap-key-file", str(tmp_path / "bootstrap.key"))
    server.key_file = tmp_path / "bootstrap.key"
    return server


def may_administrate(server: Server, key: str) -> bool:
    status = server.get("/v1/keys", key=key).status
    assert status in (200, 401)
    return status == 200


def is_private(file: Path) -> bool:
    return stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_first_start_makes_an_admin_key(server: Server) -> None:
    assert is_private(server.key_file)
    assert may_administrate(server, server.key)
    assert server.key not in server.log
    first = server.key
    server.stop()
    server.start()
    assert server.key == first
    assert may_administrate(server, first)


def test_a_first_start_that_could_not_leave_the_key_is_repeated(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.key_file.mkdir()
    refusal = server.start_refused()
    assert refusal.status == CANNOT_START
    assert f"cannot write the key file {server.key_file}" in refusal.message
    server.key_file.rmdir()
    with server:  # nobody has seen the key of the failed start: there must be another one
        assert may_administrate(server, server.key)


def test_a_missing_bootstrap_file_is_made(bootstrapped: Server, tmp_path: Path) -> None:
    with bootstrapped as server:
        assert is_private(server.key_file)
        assert may_administrate(server, server.key)
        assert not (tmp_path / "tasks.db.key").exists()  # one admin key is enough


@pytest.mark.parametrize("content", ["", "\n"])
def test_an_empty_bootstrap_file_is_filled(bootstrapped: Server, content: str) -> None:
    bootstrapped.key_file.write_text(content)
    with bootstrapped as server:
        assert is_private(server.key_file)
        assert may_administrate(server, server.key)


def test_a_bootstrap_key_is_used_again(bootstrapped: Server) -> None:
    bootstrapped.key_file.write_text("an-operator-may-bring-a-key-of-their-own\n")
    with bootstrapped as server:
        key = server.key
        assert may_administrate(server, key)
        server.kill()
        server.start()
        assert server.key == key
        assert may_administrate(server, key)
        keys = server.get("/v1/keys").json["keys"]
        assert [entry["name"] for entry in keys] == ["bootstrap"]


def test_a_bootstrap_key_is_replaced(bootstrapped: Server) -> None:
    with bootstrapped as server:
        old, new = server.key, "another-key-of-at-least-32-characters"
        server.stop()
        server.key_file.write_text(new)
        server.start()
        assert may_administrate(server, new)
        assert not may_administrate(server, old)


def test_a_bootstrap_file_that_was_removed_is_made_anew(bootstrapped: Server) -> None:
    with bootstrapped as server:
        old = server.key
        server.stop()
        server.key_file.unlink()
        server.start()
        assert may_administrate(server, server.key)
        assert not may_administrate(server, old)


def test_a_revoked_bootstrap_key_does_not_come_back(bootstrapped: Server) -> None:
    with bootstrapped as server:
        assert server.call("DELETE", "/v1/keys/bootstrap").status == 200
        server.stop()
        refusal = server.start_refused()
    assert refusal.status == CANNOT_START
    assert f"the key in {server.key_file} has been revoked" in refusal.message


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("too-short", id="short"),
        pytest.param("long enough, but it has spaces in it, which a header cannot", id="spaces"),
        pytest.param("é" * 40, id="not-ascii"),
        pytest.param("x" * 513, id="long"),
    ],
)
def test_a_bootstrap_key_that_is_none(bootstrapped: Server, content: str) -> None:
    bootstrapped.key_file.write_text(content)
    refusal = bootstrapped.start_refused()
    assert refusal.status == CANNOT_START
    assert str(bootstrapped.key_file) in refusal.message
    assert "32 to 512 visible ASCII characters" in refusal.message
    assert bootstrapped.key_file.read_text() == content
    assert content not in refusal.message  # it may be a secret all the same


def test_a_bootstrap_file_that_cannot_be_read_or_made(bootstrapped: Server) -> None:
    bootstrapped.key_file.mkdir()
    refusal = bootstrapped.start_refused()
    assert refusal.status == CANNOT_START
    assert f"cannot read the key file {bootstrapped.key_file}" in refusal.message

    bootstrapped.arguments = ("--bootstrap-key-file", "no/such/folder/key")
    refusal = bootstrapped.start_refused()
    assert refusal.status == CANNOT_START
    assert "cannot write the key file no/such/folder/key" in refusal.message


def test_the_file_can_be_named_in_the_environment(tmp_path: Path) -> None:
    with Server(tmp_path, TASKSERVER_BOOTSTRAP_KEY_FILE="here.key") as server:
        server.key_file = tmp_path / "here.key"
        assert may_administrate(server, server.key)
