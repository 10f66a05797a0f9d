"""The processes that are measured: our server and the bare one, and what the kernel knows of them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.load import Connection, LoadError
from tests.bench.wire import Response, build_head, build_request
from tests.postgres import PostgresServer
from tests.server import Server

REPOSITORY = Path(__file__).parents[2]
SYNCHRONOUS = "full"  # an acknowledged line survives a power failure: what the server does by default
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
STOP_LIMIT = 10.0
NO_KEY = "x" * 47  # as long as one of our keys, so that all sides parse the same number of bytes


@dataclass(frozen=True)
class Target:
    """A server under load: where it listens, which process it is, and the key that requests carry."""

    port: int
    pid: int
    key: str

    def headers(self, content_type: str | None = None, accept: str = "*/*") -> dict[str, str]:
        """What every request carries, of the same length for every target."""
        headers = {"Host": f"127.0.0.1:{self.port}", "Authorization": f"Key {self.key}", "Accept": accept}
        return headers if content_type is None else {**headers, "Content-Type": content_type}

    def get(self, target: str, accept: str = "*/*") -> bytes:
        """A GET request."""
        return build_request("GET", target, self.headers(accept=accept))

    def post(self, target: str, body: bytes, content_type: str = "text/plain") -> bytes:
        """A POST request with a body of known length."""
        return build_request("POST", target, self.headers(content_type), body)

    def put(self, target: str, body: bytes, content_type: str = "application/json") -> bytes:
        """A PUT request with a body of known length."""
        return build_request("PUT", target, self.headers(content_type), body)

    def post_chunked(self, target: str, content_type: str = "text/plain") -> bytes:
        """The head of a POST request with a chunked body."""
        return build_head("POST", target, {**self.headers(content_type), "Transfer-Encoding": "chunked"})

    def rss(self) -> int:
        """Resident memory in bytes. The kernel's socket buffers are not in it."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE

    def forget_peak(self) -> None:
        """Let the peak of the resident memory begin anew from what it is now."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # proc_pid_clear_refs(5)

    def peak_rss(self) -> int:
        """The most resident memory in bytes since ``forget_peak``."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    def cpu(self) -> float:
        """Seconds of CPU that the process has used, all threads together; exact to a hundredth."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS  # utime and stime, proc(5)

    async def set_answer(self, connection: Connection, body: bytes) -> Response:
        """Tell the bare server what to answer from now on."""
        return await connection.ask(build_request("PUT", "/answer", self.headers(), body))

    async def set_answer_from(self, connection: Connection, file: Path) -> Response:
        """The same with what is in a file: a body that is too large to be sent around."""
        return await connection.ask(build_request("PUT", "/answer-from", self.headers(), str(file).encode()))


@dataclass(frozen=True)
class Bench:
    """How to measure: what a figure gets.

    Attributes:
        folder: where databases lie, each measurement in a folder of its own.
        seconds: how long throughput is measured at a time.
        scale: the share of what figures on much stored output say they store.
        nginx: the program, with its nchan module, if it is there to be measured beside.
        durable_streams: the folder in which npm has installed @durable-streams/server, if it is there.
        build: a shell command whose output is stored, in the place of our own build.
        postgres: the PostgreSQL on which figures about it make schemas for themselves.
        browser: a Chromium that shows the dashboard, if there is one.
    """

    folder: Path
    seconds: float
    scale: float = 1.0
    nginx: Path | None = None
    durable_streams: Path | None = None
    build: str | None = None
    postgres: PostgresServer | None = None
    browser: Path | None = None

    def scaled(self, count: int) -> int:
        """How many of something that is stored by the million."""
        return max(1, round(count * self.scale))

    @contextlib.contextmanager
    def ours(self) -> Iterator[Target]:
        """Our server on an empty database."""
        with self.scratch() as folder, self.ours_in(folder) as target:
            yield target

    @contextlib.contextmanager
    def ours_in(self, folder: Path) -> Iterator[Target]:
        """Our server with its database in ``folder``."""
        with Server(folder, "--synchronous", SYNCHRONOUS) as server:
            assert server.process is not None
            yield Target(server.port, server.process.pid, server.key)

    @contextlib.contextmanager
    def bare(self) -> Iterator[Target]:
        """The bare aiohttp server."""
        with announced([sys.executable, "-m", "tests.bench.bare"], "the bare server") as target:
            yield target

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder that is gone afterwards."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            yield Path(folder)


@contextlib.contextmanager
def announced(command: list[str], what: str) -> Iterator[Target]:
    """A yardstick's server that prints its port, which is the first line that it prints, and serves until killed."""
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise LoadError(f"{what} did not start")
        yield Target(int(line), process.pid, NO_KEY)
    finally:
        process.kill()
        process.wait(STOP_LIMIT)
        assert process.stdout is not None
        process.stdout.close()


def sync_latency(folder: Path) -> float:
    """Median seconds of a 4 KiB write with fsync: what a commit cannot go below here."""
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(50):
            file.write(b"x" * 4096)
            file.flush()
            start = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]
