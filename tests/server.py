"""A real server for tests: a process of its own, a free port, a temporary directory."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

START_LIMIT = 30.0  # seconds; a start takes half of one, but not on a machine under load


class Server:
    """``taskserver serve`` in ``folder``; use it as a context manager.

    After ``kill`` or ``stop``, ``start`` begins a new process on the same port
    and database, as a supervisor would.
    """

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.folder = folder
        self.database = f"sqlite:///{folder}/tasks.db"
        self.key_file = folder / "tasks.db.key"
        self.arguments = arguments
        self.environment = environment
        self.port = 0
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()

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

    def start(self) -> None:
        """Start the process and wait until it says that it listens."""
        command = [sys.executable, "-m", "taskserver", "serve", "--port", str(self.port), "--database", self.database]
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                [*command, *self.arguments],
                cwd=self.folder,
                env={**os.environ, **self.environment},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        line = self._wait_for("listening on ")
        self.port = int(line.rsplit(":", 1)[1])

    def stop(self, limit: float = 10.0) -> int:
        """SIGTERM, and the exit status."""
        return self._end(signal.SIGTERM, limit)

    def kill(self) -> int:
        """SIGKILL: nothing of the process runs after this."""
        return self._end(signal.SIGKILL, 10.0)

    def _end(self, number: int, limit: float) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        try:
            return self.process.wait(limit)
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()

    def _wait_for(self, text: str) -> str:
        assert self.process is not None
        assert self.process.stdout is not None
        deadline = time.monotonic() + START_LIMIT
        while select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
            line = self.process.stdout.readline()
            if text in line:
                return line
            if not line:
                break
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        raise AssertionError(f"the server did not start; its log:\n{(self.folder / 'server.log').read_text()}")


def running(folder: Path, *arguments: str, **environment: str) -> Iterator[Server]:
    """For fixtures: a server while the test runs."""
    with Server(folder, *arguments, **environment) as server:
        yield server
