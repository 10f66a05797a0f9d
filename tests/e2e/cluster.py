"""A small Dask cluster: a scheduler and workers, each a process of its own on 127.0.0.1."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType

from tests.server import until

START_LIMIT = 60.0  # seconds: it imports distributed, which takes its time beside other tests
REGISTERED = "Registered to:"  # what a worker says once, when the scheduler has taken it
LOCAL = ("--host", "127.0.0.1", "--no-dashboard")


class Cluster:
    """Use it as a context manager: what is left is killed at its end. Workers log into ``folder``."""

    def __init__(self, folder: Path, workers: int = 1) -> None:
        self.folder = folder
        self.address = ""
        self.workers: list[subprocess.Popen[bytes]] = []
        self._wanted = workers
        self._log = (folder / "dask.log").open("ab")
        self.scheduler: subprocess.Popen[bytes]

    def __enter__(self) -> Cluster:
        self.start_scheduler("0")
        for _ in range(self._wanted):
            self.add_worker()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()
        self._log.close()

    @property
    def executor(self) -> str:
        """What ``--executor`` gets."""
        return self.address.replace("tcp://", "dask://")

    @property
    def log(self) -> str:
        """What its processes have told so far."""
        return (self.folder / "dask.log").read_text(errors="replace")

    def start_scheduler(self, port: str) -> None:
        """Start the scheduler and wait until it listens."""
        before = self.log.count("Scheduler at:")
        self.scheduler = self._start("dask_scheduler", "--port", port)
        until(lambda: self.log.count("Scheduler at:") > before, "the scheduler", START_LIMIT)
        line = [line for line in self.log.splitlines() if "Scheduler at:" in line][-1]
        self.address = "tcp://" + line.rpartition("tcp://")[2].strip()

    def add_worker(self) -> None:
        """Start one more worker and wait until the scheduler knows it."""
        before = self.log.count(REGISTERED)
        worker = ("--nworkers", "1", "--nthreads", "4", "--no-nanny", "--local-directory", str(self.folder))
        self.workers.append(self._start("dask_worker", self.address, *worker))
        until(lambda: self.log.count(REGISTERED) > before, "the worker's registration", START_LIMIT)

    def _start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.{module}", *arguments, *LOCAL]
        return subprocess.Popen(command, cwd=self.folder, stdout=self._log, stderr=self._log)
