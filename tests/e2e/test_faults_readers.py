"""Readers that stop reading cost the server no memory, and nobody else any time (DESIGN, invariant 6)."""

from __future__ import annotations

import contextlib
import http.client
import sys
from pathlib import Path

import pytest

from tests.e2e.raw import Raw
from tests.server import Server, until

READERS = 50
MIB = 1024 * 1024
LINE = "x" * 99
BODY = (LINE + "\n") * 80_000
BODIES = 4  # 32 MB of output: fifty copies would be 1.6 GB
PER_READER = 2 * MIB  # generous: two pages of 256 KiB, what they are encoded to, and the transport's buffer
PER_APPEND = 64 * MIB  # what one append of 8 MB takes while it is under way, in all its forms

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def memory(server: Server) -> int:
    """The most memory that the process ever used, in bytes."""
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(peak) * 1024


def stopped_readers(server: Server, stack: contextlib.ExitStack, path: str) -> list[http.client.HTTPResponse]:
    """Readers that have read the head of the answer and no more."""
    readers = [stack.enter_context(Raw(server, receive_buffer=4096)) for _ in range(READERS)]
    return [reader.ask("GET", path).head() for reader in readers]


@pytest.mark.parametrize("query", ["", "/output?format=text", "/output?format=text&follow=true"])
def test_readers_that_stop_cost_little_memory(server: Server, query: str) -> None:
    task = server.new_task()
    for _ in range(BODIES):
        assert server.post(f"/v1/tasks/{task}/output", BODY).status == 200
    before = memory(server)
    with contextlib.ExitStack() as stack:
        readers = stopped_readers(server, stack, f"/v1/tasks/{task}{query}")
        # While they stand still, another one reads it all.
        assert server.get(f"/v1/tasks/{task}").json["last"] == 80_000 * BODIES
        assert memory(server) - before < READERS * PER_READER
        # One of them goes on, and gets what it would have got.
        if "follow" in query:
            server.post(f"/v1/tasks/{task}/finish", {})
        assert readers[0].read().count(LINE.encode()) == 80_000 * BODIES


def test_followers_that_stop_do_not_hold_up_the_producer(server: Server) -> None:
    task = server.new_task()
    with contextlib.ExitStack() as stack:
        readers = stopped_readers(server, stack, f"/v1/tasks/{task}/output?format=text&follow=true")
        before = memory(server)
        for number in range(BODIES // 2):
            answer = server.post(f"/v1/tasks/{task}/output?first={number * 80_000}", BODY)
            assert answer.json["last"] == (number + 1) * 80_000
        assert server.post(f"/v1/tasks/{task}/finish", {}).status == 200
        assert memory(server) - before < READERS * PER_READER + PER_APPEND
        assert readers[-1].read() == BODY.encode() * (BODIES // 2)


def test_a_reader_that_is_slow_gets_everything(server: Server) -> None:
    task = server.new_task()
    with Raw(server, receive_buffer=4096) as reader:
        response = reader.ask("GET", f"/v1/tasks/{task}/output?format=text&follow=true").head()
        server.post(f"/v1/tasks/{task}/output", BODY)
        assert response.readline() == LINE.encode() + b"\n"
        # The task ends, its output is sealed, and the reader is still at its beginning.
        server.post(f"/v1/tasks/{task}/finish", {"output": ["the end"]})
        until(lambda: server.get(f"/v1/tasks/{task}?first=80001").json["finished"], "the task has ended")
        assert response.read() == (BODY[100:] + "the end\n").encode()


def test_a_task_that_is_deleted_under_its_reader(server: Server) -> None:
    task = server.new_task()
    for _ in range(2):
        server.post(f"/v1/tasks/{task}/output", BODY)
    server.post(f"/v1/tasks/{task}/finish", {})
    with Raw(server, receive_buffer=4096) as reader:
        response = reader.ask("GET", f"/v1/tasks/{task}").head()
        assert server.call("DELETE", f"/v1/tasks/{task}").status == 204
        # Half an answer must not look like a whole one.
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            response.read()
