"""The log of a real server: its lines as text and as JSON, who changed which key, and what must never be in it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.commands import Commands
from tests.e2e.raw import Raw
from tests.server import Server, until

SECRET_LINE = "the-password-is-swordfish"  # what a producer prints is nobody's business
OPERATORS_KEY = "an-operators-own-key-0123456789abcdef"  # does not look like one of ours

# As `python -m taskserver`, but handlers fail, and a task that nobody waits for, with all they know in their words.
BROKEN = """
import asyncio, gc
from taskserver.keys import Keys
from taskserver.tasks import Tasks

async def fail(words):
    raise KeyError(words)

async def append(self, caller, task_id, lines, first=None, **_):
    asyncio.ensure_future(fail(lines.payload))
    await asyncio.sleep(0)
    gc.collect()
    asyncio.get_running_loop().call_soon(int, lines.payload)
    try:
        raise ValueError(lines.payload)
    except ValueError as error:
        raise RuntimeError(lines.payload) from error

async def list_keys(self):
    raise LookupError(list(self._by_secret))

Tasks.append, Keys.list = append, list_keys
import taskserver.__main__
"""


def lines(server: Server) -> list[Any]:
    """The lines of a log that is written as JSON."""
    return [json.loads(line) for line in server.log.splitlines()]


def of(server: Server, logger: str) -> list[Any]:
    return [line for line in lines(server) if line["logger"] == logger]


def logged(server: Server, *words: str) -> str:
    """The first line that has these words."""

    def find() -> str | None:
        return next((line for line in server.log.splitlines() if all(word in line for word in words)), None)

    return until(find, f"a line with {words}")


def bootstrapped(folder: Path, *arguments: str) -> Server:
    """A server whose admin key is the operator's own, and looks like nothing."""
    server = Server(folder, "--bootstrap-key-file", str(folder / "boot.key"), *arguments)
    server.key_file = folder / "boot.key"
    server.key_file.write_text(OPERATORS_KEY)
    server.key_file.chmod(0o600)
    return server


# --- what lines look like --------------------------------------------------------


def test_the_access_log_tells_of_each_request(tmp_path: Path) -> None:
    with Server(tmp_path, "--access-log", "--log-format", "json") as server:
        ci = server.new_key("ci", "write")
        task_id = server.post("/v1/tasks", {}, key=ci).json["id"]
        refusal = server.get(f"/v1/tasks/{task_id}?first=7&wait=1")
        until(lambda: len(of(server, "taskserver.access")) == 3, "three lines")
        _, created, refused = of(server, "taskserver.access")
        assert list(created) == [
            *("time", "level", "logger", "message", "process"),
            *("request_id", "method", "path", "status", "seconds", "bytes", "key", "address"),
        ]
        assert (created["method"], created["path"], created["status"]) == ("POST", "/v1/tasks", 201)
        assert (created["key"], created["address"], created["level"]) == ("ci", "127.0.0.1", "info")
        assert created["bytes"] > 300
        assert 0 <= created["seconds"] < 20
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", created["time"])
        assert (refused["path"], refused["status"], refused["key"]) == (f"/v1/tasks/{task_id}", 400, "admin")
        assert refused["request_id"] == refusal.headers["X-Request-ID"]


def test_as_text_the_fields_stand_behind_the_message(tmp_path: Path) -> None:
    with Server(tmp_path, "--access-log") as server:
        reader = server.new_key("ann@work", "read")
        server.get("/v1/tasks/a%0Ab%22?first=1", key=reader)
        line = logged(server, "status=404")
        assert re.match(r"[-0-9]{10} [:0-9]{8},\d{3} INFO taskserver\.access: request request_id=[-0-9a-f]{36} ", line)
        assert re.search(r" method=GET path=/v1/tasks/a%0Ab%22 status=404 seconds=\d+\.\d", line)
        assert line.endswith(" key=ann@work address=127.0.0.1")


def test_behind_a_proxy_that_is_trusted_the_address_is_the_clients(tmp_path: Path) -> None:
    arguments = ("--log-format", "json", "--access-log", "--trusted-proxy", "127.0.0.0/8")
    with Server(tmp_path, *arguments) as server, Raw(server) as raw:
        raw.ask("POST", "/v1/keys", "X-Forwarded-For: 198.51.100.9", "Content-Length: 14").send(b'{"name": "ci"}')
        assert raw.answer().status == 201
        until(lambda: of(server, "taskserver.access"), "its line")
        for logger in ("taskserver.access", "taskserver.audit"):
            assert of(server, logger)[-1]["address"] == "198.51.100.9"


# --- who changed which key -------------------------------------------------------


def test_each_change_of_a_key_is_noted(tmp_path: Path) -> None:
    with bootstrapped(tmp_path, "--log-format", "json") as server:
        taskserver = Commands(server, tmp_path)
        made = taskserver("keys", "create", "ci", "--scope", "write", "--scope", "read", "--expires-in", "1d")
        assert made.code == 0, made
        admin, ci = [(key["id"], key) for key in server.get("/v1/keys").json["keys"]]
        assert server.call("DELETE", "/v1/keys/ci").status == 200
        assert server.call("DELETE", f"/v1/keys/{ci[0]}").status == 200  # it was revoked before: nothing changes
        assert server.call("DELETE", "/v1/keys/nobody").status == 404
        assert server.post("/v1/keys", {"name": "x"}, key="tsk_unknown").status == 401
        by_admin = {"by": "bootstrap", "by_key_id": admin[0], "address": "127.0.0.1"}
        key = {"key_id": ci[0], "key_name": "ci", "owner": "ci", "scopes": "read,write"}
        issued, changed, revoked = [
            {name: value for name, value in line.items() if name not in ("time", "process", "logger", "level")}
            for line in of(server, "taskserver.audit")
        ]
        assert issued == {
            "message": "key issued",
            "key_id": admin[0],
            "key_name": "bootstrap",
            "owner": "bootstrap",
            "scopes": "admin",
            "by": "server",
        }
        assert changed == {"message": "key issued", **key, "expires_at": ci[1]["expires_at"], **by_admin}
        assert revoked == {"message": "key revoked", **key, "expires_at": ci[1]["expires_at"], **by_admin}

        server.stop()
        server.key_file.write_text("another-" + OPERATORS_KEY)
        server.start()
        *_, retired, again = of(server, "taskserver.audit")
        assert (retired["message"], retired["key_id"], retired["by"]) == ("key revoked", admin[0], "server")
        assert (again["message"], again["key_name"]) == ("key issued", "bootstrap")


def test_as_text_it_is_a_line_too(server: Server) -> None:
    server.new_key("ci", "write")
    line = logged(server, "key issued", "key_name=ci")
    assert " INFO taskserver.audit: key issued key_id=" in line
    assert " owner=ci scopes=write by=admin by_key_id=" in line
    assert line.endswith(" address=127.0.0.1")


# --- what is never in it ---------------------------------------------------------


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_line_holds_a_key_or_output(tmp_path: Path, log_format: str, workers: str) -> None:
    with bootstrapped(tmp_path, "--access-log", "--log-format", log_format, "--workers", workers) as server:
        ours = server.new_key("ann", "read", "write")
        wrong = "tsk_" + "wrong" * 8
        task_id = server.post("/v1/tasks", {}, key=ours).json["id"]
        for key in (ours, OPERATORS_KEY):
            server.post(f"/v1/tasks/{task_id}/output", SECRET_LINE, key=key)
            server.post(f"/v1/tasks/{task_id}/output?first=0", {"lines": [SECRET_LINE, 1]}, key=key)
            server.get(f"/v1/tasks/{task_id}/output?format=text&token={key}", key=key)
            server.get(f"/v1/tasks/{key}", key=key + "x")
            server.call("DELETE", f"/v1/keys/{key}x", key=ours)
            server.post("/auth/token", {"username": "ann", "password": key}, key=key)
            server.post("/auth/token", {"username": key, "password": "x"}, key=wrong)
            with Raw(server) as raw:
                raw.ask("POST", f"/v1/tasks/{task_id}/output", "Bad Header: x", key=key)
                raw.rest()
            with Raw(server) as raw:
                raw.ask("POST", f"/v1/tasks/{task_id}/output", "Transfer-Encoding: chunked", key=key)
                raw.send(b"zz" + SECRET_LINE.encode() + b"\r\n").rest()
        server.stop()
        assert "/v1/tasks/" in server.log
        for secret in (ours, wrong, SECRET_LINE):
            assert secret not in server.log
        # One that looks like nothing can only be kept out where we put it in: a client has put this into a path.
        assert all(f"/{OPERATORS_KEY}" in line for line in server.log.splitlines() if OPERATORS_KEY in line)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_failing_handlers_traceback_holds_neither(tmp_path: Path, log_format: str) -> None:
    server = bootstrapped(tmp_path, "--log-format", log_format)
    server.command = (sys.executable, "-c", BROKEN, "serve")
    with server:
        task_id = server.post("/v1/tasks", {}).json["id"]
        failed = server.post(f"/v1/tasks/{task_id}/output", SECRET_LINE)
        assert (failed.status, server.get("/v1/keys").status) == (500, 500)
        for kind in ("ValueError", "RuntimeError", "LookupError", "KeyError"):
            logged(server, kind)
        assert str(failed.headers["X-Request-ID"]) in logged(server, "a handler failed", f"/v1/tasks/{task_id}/output")
        logged(server, "Exception in callback")
        logged(server, "Task exception was never retrieved")
        assert "raise RuntimeError(lines.payload) from error" in server.log or "in append" in server.log
        for secret in (SECRET_LINE, OPERATORS_KEY, "swordfish"):
            assert secret not in server.log
