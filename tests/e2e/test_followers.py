"""Thousands follow a task while it is written as fast as can be; and readers that stop cost no memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from tests.conftest import NewServer, every_way_to_serve
from tests.e2e.followers import FORMATS, Follower, line
from tests.e2e.raw import Raw
from tests.server import Server, until

FOLLOWERS = 2000
FILES = 4 * FOLLOWERS  # sockets of either process, those that are just being closed included
CONNECTING = 200  # at a time
WRITING = 4.0  # seconds
FEWEST_LINES, MOST_LINES = 500, 3000  # a machine that stands still for all of that time still writes enough
MOST_AT_ONCE = 120  # lines of an append
LIMIT = 300.0  # seconds for all; about a tenth of it on two cores

MIB = 1024 * 1024
READERS = 40
SHORT_LINES = 60_000  # of an append; a line of one character is fifty times as long in NDJSON
APPENDS = 8
PER_READER = 2 * MIB  # a portion as it was encoded, twice, and what is around a connection


@pytest.fixture
def many_files() -> Iterator[None]:
    """Lets this process and those that it starts have enough connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        pytest.skip(f"a process may have {hard} open files only, and {FILES} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FILES), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@every_way_to_serve
def test_none_of_thousands_misses_a_line(many_files: None, new_server: NewServer) -> None:
    with new_server() as server:
        followers, lines = uvloop.run(asyncio.wait_for(race(server), LIMIT))
        assert server.get("/readyz").status == 200
        assert "ERROR" not in server.log
    assert lines >= FEWEST_LINES
    assert [follower.cursor for follower in followers] == [lines] * FOLLOWERS
    # Some have left and come back, in every format.
    returns = Counter(follower.form for follower in followers if follower.connections > 1)
    assert set(returns) == set(FORMATS)
    assert returns.total() > FOLLOWERS / 10


async def race(server: Server) -> tuple[list[Follower], int]:
    """Followers that have all seen the end, and how many lines were written."""
    chance = random.Random(7)
    task_id = await asyncio.to_thread(server.new_task)
    followers = [Follower(server.port, server.key, task_id, FORMATS[number % 3], chance) for number in range(FOLLOWERS)]
    running = []
    for first in range(0, FOLLOWERS, CONNECTING):
        batch = followers[first : first + CONNECTING]
        running += [asyncio.ensure_future(follower.run()) for follower in batch]
        await asyncio.gather(*(follower.listening for follower in batch))
    lines = await write(server, task_id, chance)
    await asyncio.gather(*running)
    return followers, lines


async def write(server: Server, task_id: str, chance: random.Random) -> int:
    """Append as fast as the server takes it, and end the task; the number of lines."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    last, stop = 0, time.monotonic() + WRITING
    while last < FEWEST_LINES or (last < MOST_LINES and time.monotonic() < stop):
        count = chance.randint(1, MOST_AT_ONCE)
        body = "".join(f"{line(number)}\n" for number in range(last, last + count)).encode()
        await post(server, reader, writer, f"/v1/tasks/{task_id}/output?first={last}", "text/plain", body)
        last += count
    await post(server, reader, writer, f"/v1/tasks/{task_id}/finish", "application/json", b"{}")
    writer.close()
    await writer.wait_closed()
    return last


async def post(
    server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, kind: str, body: bytes
) -> None:
    """One request that must succeed, on a connection that goes on."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Key {server.key}\r\nContent-Type: {kind}\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = (await reader.readuntil(b"\r\n\r\n")).decode()
    assert answer.startswith("HTTP/1.1 200 "), answer
    (length,) = (row.partition(":")[2] for row in answer.split("\r\n") if row.lower().startswith("content-length:"))
    await reader.readexactly(int(length))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("form", ["ndjson", "sse"])
def test_readers_that_stop_cost_little_memory(server: Server, form: str) -> None:
    task_id = server.new_task()
    for _ in range(APPENDS):
        assert server.post(f"/v1/tasks/{task_id}/output", "x\n" * SHORT_LINES).status == 200
    path = f"/v1/tasks/{task_id}/output?format={form}&follow=true"
    with contextlib.ExitStack() as stack:
        before = peak_memory(server)
        readers = [stack.enter_context(Raw(server, receive_buffer=4096)).ask("GET", path) for _ in range(READERS)]
        answers = [reader.head() for reader in readers]
        # All of them have been sent something, and stand; the server has time for others.
        assert all(answer.read(1) for answer in answers)
        until(lambda: server.get(f"/v1/tasks/{task_id}?first={APPENDS * SHORT_LINES}").status == 200, "an answer")
        assert peak_memory(server) - before < READERS * PER_READER
        # One of them goes on, and gets what it would have got.
        server.post(f"/v1/tasks/{task_id}/finish", {})
        body = answers[0].read()
        if form == "ndjson":
            assert json.loads(body.splitlines()[-1])["last"] == body.count(b'"text":"x"') == APPENDS * SHORT_LINES
        else:
            assert body.count(b'"x"') == APPENDS * SHORT_LINES
            assert b"\nevent: end\n" in body


def peak_memory(server: Server) -> int:
    """The most memory that the process ever used, in bytes."""
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    (peak,) = (row.split()[1] for row in status.splitlines() if row.startswith("VmHWM:"))
    return int(peak) * 1024
