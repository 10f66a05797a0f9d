"""Abuse costs bounded memory: readers that stop, one huge output, tasks without number.

The suite does it on a small scale; FULL_SCALE=1 in the environment is for the real one (some minutes, 5 GB of disk).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import sys
import zlib
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path

import pytest
import uvloop

from tests.bench.load import Connection, connections
from tests.bench.runner import allow_files
from tests.bench.samples import text
from tests.bench.servers import Target
from tests.e2e.conftest import FIGURE
from tests.e2e.raw import Raw
from tests.server import Server, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

FULL = os.environ.get("FULL_SCALE") == "1"
MIB = 1024 * 1024
FILES = 200  # descriptors of either process beside those of followers

FOLLOWERS = 10_000 if FULL else 500
BATCH = 200  # connections at a time: fewer than any listen backlog takes
APPENDS, APPENDED = 20, 10_000  # and lines of each: more than sockets, buffers and a page hold together
PER_FOLLOWER = 1.5 * MIB  # a page, a portion of it that is being sent, and what is around a connection

OUTPUT = (2000 if FULL else 200) * MIB
FOR_OUTPUT = 128 * MIB  # some pages, the newest lines, and what the sealer has in hand

TASKS = 50_000 if FULL else 5_000
PRODUCERS = 32
LINES = 5  # of a small task
FOR_TASKS = 160 * MIB if FULL else 48 * MIB  # the heads and newest lines that are kept, 64 MiB by their own count

Report = Callable[[str, object], None]


class Memory:
    """What a server's memory does from now on; it has answered before, so that nothing is loaded late."""

    def __init__(self, server: Server) -> None:
        assert server.process is not None
        task_id = server.new_task()
        for _ in range(20):
            server.post(f"/v1/tasks/{task_id}/output", text(0, 100))
            assert server.get(f"/v1/tasks/{task_id}?first=0").status == 200
        self._target = Target(server.port, server.process.pid, server.key)
        self._target.forget_peak()
        self._idle = self._target.rss()

    def peak(self) -> int:
        """By how many bytes the process was larger than at the beginning, at most."""
        return self._target.peak_rss() - self._idle


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as running:
        yield running
    for file in tmp_path.glob("tasks.db*"):  # pytest keeps the folders of some runs
        file.unlink()


@pytest.fixture
def many_files() -> Iterator[None]:
    """Lets this process and those that it starts have enough connections."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allow_files(FOLLOWERS + FILES) < FOLLOWERS + FILES:
        pytest.skip(f"{FOLLOWERS + FILES} open files are needed")
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_followers_that_stop_reading(many_files: None, server: Server, record_property: Report) -> None:
    memory = Memory(server)
    task_id = server.new_task()
    paths = [f"/v1/tasks/{task_id}/output?format={form}&follow=true" for form in ("text", "ndjson", "sse")]
    with contextlib.ExitStack() as stack:
        # Half of them are there before the output, half come to read it from its beginning.
        early = _followers(server, stack, list(islice(cycle(paths), FOLLOWERS // 2)))
        for _ in range(APPENDS):
            assert server.post(f"/v1/tasks/{task_id}/output", text(0, APPENDED)).status == 200
        late = _followers(server, stack, list(islice(cycle(paths), FOLLOWERS - len(early))))
        # All have been sent something, and stand; others are served as ever.
        for follower in (*early, *late):
            assert follower.socket.recv(1, socket.MSG_PEEK)
        lines = APPENDS * APPENDED
        until(lambda: server.get(f"/v1/tasks/{task_id}?first={lines}").status == 200, "an answer")
        peak = memory.peak()
        record_property(FIGURE, f"{FOLLOWERS} followers that stop reading: {peak / FOLLOWERS / 1024:.0f} KiB each")
        assert peak < FOLLOWERS * PER_FOLLOWER
        # One that goes on misses nothing.
        server.post(f"/v1/tasks/{task_id}/finish", {})
        assert early[0].head().read() == text(0, APPENDED) * APPENDS


def _followers(server: Server, stack: contextlib.ExitStack, paths: list[str]) -> list[Raw]:
    """Connections that have asked for these paths, and keep the kernel from taking much of the answers."""
    followers = []
    for number, path in enumerate(paths):
        follower = stack.enter_context(Raw(server, receive_buffer=4096))
        followers.append(follower.ask("GET", path))
        if number % BATCH == 0:
            server.get("/readyz")  # which is answered after they have been accepted
    return followers


def test_a_large_output_is_taken_and_read(server: Server, record_property: Report) -> None:
    memory = Memory(server)
    task_id = server.new_task()
    piece = text(0, 10_000)
    pieces, sent = OUTPUT // len(piece), 0
    with Raw(server) as producer:
        producer.ask("POST", f"/v1/tasks/{task_id}/output", "Content-Type: text/plain", "Transfer-Encoding: chunked")
        for _ in range(pieces):
            producer.send_chunk(piece)
            sent = zlib.crc32(piece, sent)
        assert producer.send_chunk(b"").answer().json["last"] == pieces * 10_000
    taken = memory.peak()
    assert server.post(f"/v1/tasks/{task_id}/finish", {}).status == 200
    with Raw(server) as reader:
        answer = reader.ask("GET", f"/v1/tasks/{task_id}/output?format=text").head()
        received = 0
        while part := answer.read(MIB):
            received = zlib.crc32(part, received)
    assert received == sent
    with Raw(server) as reader:  # the same as one JSON document
        answer = reader.ask("GET", f"/v1/tasks/{task_id}?first=0").head()
        assert sum(len(part) for part in iter(lambda: answer.read(MIB), b"")) > pieces * len(piece)
    record_property(
        FIGURE, f"{OUTPUT // MIB} MiB of output: {taken / MIB:.0f} MiB taking it, {memory.peak() / MIB:.0f} MiB at most"
    )
    assert memory.peak() < FOR_OUTPUT


def test_many_small_tasks(server: Server, record_property: Report) -> None:
    memory = Memory(server)
    uvloop.run(_make_tasks(server))
    newest = server.get("/v1/tasks?state=success&limit=1").json["tasks"]
    assert newest[0]["last"] == LINES
    record_property(FIGURE, f"{TASKS} tasks of {LINES} lines: {memory.peak() / MIB:.0f} MiB")
    assert memory.peak() < FOR_TASKS


async def _make_tasks(server: Server) -> None:
    """By some producers, each a task after the other."""
    assert server.process is not None
    target = Target(server.port, server.process.pid, server.key)
    numbers = iter(range(TASKS))

    async def produce(client: Connection) -> None:
        for number in numbers:
            body = b'{"id": "small-%d", "name": "small"}' % number
            await client.ask(target.post("/v1/tasks", body, "application/json"))
            await client.ask(target.post(f"/v1/tasks/small-{number}/output", text(number, LINES)))
            await client.ask(target.post(f"/v1/tasks/small-{number}/finish", b"{}", "application/json"))

    async with connections(target.port, PRODUCERS) as clients:
        await asyncio.gather(*map(produce, clients))
