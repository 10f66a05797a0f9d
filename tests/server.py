"""A real server for tests: a process of its own, a free port, a temporary directory."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from taskserver.keyfile import key_file_of
from tests.ports import held_port

START_LIMIT = 30.0  # seconds; a start takes half of one, but not on a machine under load
STOP_LIMIT = 30.0  # seconds; a shutdown may take seven of them
CALL_LIMIT = 60.0  # seconds; longer than any answer may take, so that a server that hangs fails its test
EVENT_LIMIT = 20.0  # seconds for what a test waits for; reached only by a failure
LOOK = 0.01  # seconds between two looks

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """What the server answered to one request."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Refusal:
    """How a server ended that did not start: its exit status and what it told the operator."""

    status: int
    message: str


class Server:
    """``taskserver serve`` in ``folder``; use it as a context manager.

    After ``kill`` or ``stop``, ``start`` begins a new process on the same port
    and database, as a supervisor would. ``command`` and ``wrapper`` (a prefix,
    such as ``setpriv …``) may be changed before a start.
    """

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.folder = folder
        self.database = f"sqlite:///{folder}/tasks.db"
        self.key_file = folder / "tasks.db.key"
        self.command: tuple[str, ...] = (sys.executable, "-m", "taskserver", "serve")
        self.wrapper: tuple[str, ...] = ()
        self.arguments = arguments
        self.environment = environment
        self.port = 0
        self.process: subprocess.Popen[str] | None = None
        self._port_holder: socket.socket | None = None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None:
            self.kill()
        if self._port_holder is not None:
            self._port_holder.close()
            self._port_holder, self.port = None, 0

    def use_database(self, url: str) -> None:
        """Keep everything there; the first key is then in a file in this server's folder all the same."""
        self.database = url
        self.key_file = self.folder / key_file_of(url)

    @property
    def url(self) -> str:
        """Such as ``http://127.0.0.1:34605``."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        """The admin key that the first start made."""
        return self.key_file.read_text().strip()

    @property
    def headers(self) -> dict[str, str]:
        """What an admin's request carries."""
        return {"Authorization": f"Key {self.key}"}

    @property
    def cli_environment(self) -> dict[str, str]:
        """An environment in which the CLI finds this server."""
        return {**os.environ, "TASKSERVER_URL": self.url, "TASKSERVER_KEY": self.key}

    @property
    def log(self) -> str:
        """What the server wrote to its standard error so far, over all starts."""
        return (self.folder / "server.log").read_text()

    @property
    def troubles(self) -> str:
        """The same without the notes of changes of keys."""
        return "".join(line for line in self.log.splitlines(keepends=True) if " taskserver.audit: " not in line)

    @property
    def workers(self) -> list[int]:
        """The processes that answer requests beside the first one, if there are any (Linux)."""
        assert self.process is not None
        return children(self.process.pid)

    # --- its life ------------------------------------------------------------------

    def start(self) -> None:
        """Start the process and wait until it says that it listens."""
        self.launch()
        self.wait_until_it_listens()

    def launch(self) -> None:
        """Start the process without waiting for anything."""
        self._hold_port()
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                self._command(),
                cwd=self.folder,
                env={**os.environ, **self.environment},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def wait_until_it_listens(self) -> None:
        """Wait until a process that was launched says so."""
        line = self._wait_for("listening on ")
        self.port = int(line.rsplit(":", 1)[1])

    def start_refused(self) -> Refusal:
        """Start the process where it must not get as far as listening, and wait until it has ended."""
        done = subprocess.run(
            self._command(),
            cwd=self.folder,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=START_LIMIT,
            check=False,
        )
        assert "listening on" not in done.stdout, done.stdout
        return Refusal(done.returncode, done.stderr)

    def stop(self, limit: float = STOP_LIMIT) -> int:
        """SIGTERM, and the exit status."""
        return self._end(signal.SIGTERM, limit)

    def kill(self) -> int:
        """SIGKILL: nothing of the process runs after this."""
        return self._end(signal.SIGKILL, STOP_LIMIT)

    # --- talking to it -------------------------------------------------------------

    def get(self, path: str, *, key: str | None = None) -> Answer:
        """GET, as an admin unless ``key`` says otherwise."""
        return self.call("GET", path, key=key)

    def post(self, path: str, body: object = None, *, key: str | None = None) -> Answer:
        """POST: bytes and str are sent as text/plain, anything else but None as JSON."""
        return self.call("POST", path, body, key=key)

    def call(self, method: str, path: str, body: object = None, *, key: str | None = None) -> Answer:
        """One request on a connection of its own."""
        headers = {"Authorization": f"Key {key or self.key}"}
        if isinstance(body, (bytes, str)):
            headers["Content-Type"] = "text/plain"
            data: bytes | None = body.encode() if isinstance(body, str) else body
        elif body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        else:
            data = None
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=CALL_LIMIT)
        with contextlib.closing(connection):
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def new_task(self, **fields: object) -> str:
        """Create a task and return its id."""
        answer = self.post("/v1/tasks", fields)
        assert answer.status == 201, answer
        return str(answer.json["id"])

    def new_key(self, name: str, *scopes: str, **fields: object) -> str:
        """Make an API key and return it."""
        answer = self.post("/v1/keys", {"name": name, "scopes": scopes, **fields})
        assert answer.status == 201, answer
        return str(answer.json["key"])

    # --- plumbing ------------------------------------------------------------------

    def _hold_port(self) -> None:
        """Keep the port while the server is down: others look for free ports at the same time."""
        if self._port_holder is None and sys.platform == "linux":
            self._port_holder = held_port(self.port)
            self.port = self._port_holder.getsockname()[1]

    def _command(self) -> list[str]:
        listen = ("--port", str(self.port), "--database", self.database)
        return [*self.wrapper, *self.command, *listen, *self.arguments]

    def _end(self, number: int, limit: float) -> int:
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.send_signal(number)  # does nothing to a process that has ended
        try:
            return self.process.wait(limit)
        finally:
            self.process.stdout.close()

    def _wait_for(self, text: str) -> str:
        """The first line of the process's output that holds ``text``."""
        assert self.process is not None
        assert self.process.stdout is not None
        deadline = time.monotonic() + START_LIMIT
        said = b""
        # Read from the descriptor: what a file object has buffered select does not see.
        pipe = self.process.stdout.fileno()
        ready = select.poll()  # unlike select() it knows file descriptors beyond 1,023
        ready.register(pipe, select.POLLIN)
        while ready.poll(max(0.0, deadline - time.monotonic()) * 1000):
            data = os.read(pipe, 65536)
            said += data
            for line in said.decode().splitlines(keepends=True):
                if text in line and line.endswith("\n"):
                    return line
            if not data:
                break
        self.kill()
        raise AssertionError(f"the server did not start; its log:\n{self.log}")


def children(process: int) -> list[int]:
    """The processes that a process has started and that have not ended, oldest first (Linux)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == process and state != "Z":
                found.append(int(entry.name))
    return sorted(found)


def running(folder: Path, *arguments: str, **environment: str) -> Iterator[Server]:
    """For fixtures: a server while the test runs."""
    with Server(folder, *arguments, **environment) as server:
        yield server


def in_thread(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, on an event loop of its own: for those who may be on one already."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result(CALL_LIMIT)


def runs(pid: int) -> bool:
    """Whether a process has not ended (Linux). It may be nobody's child, so that it stays a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:  # it is gone, or was waited for while we looked
        return False


def until(ask: Callable[[], T | None], what: str, limit: float = EVENT_LIMIT) -> T:
    """Ask again and again until the answer is true, and return it. Raises AssertionError after ``limit`` seconds."""
    deadline = time.monotonic() + limit
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"did not happen within {limit:g} s: {what}"
        time.sleep(LOOK)
    return answer
