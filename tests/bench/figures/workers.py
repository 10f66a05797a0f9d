"""What a second process brings, on the machine that the load generator shares."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from tests.bench.figure import CLIENT_CPU, Figure, Goal, Metric, Sample
from tests.bench.figures.polls import KNOWN, NEW, make_task
from tests.bench.load import WARM_UP, Connection, LoadError, Rate, closed_loop, connections
from tests.bench.samples import text
from tests.bench.servers import SYNCHRONOUS, Bench, Target
from tests.server import Server, children

CONNECTIONS = 32
WORKERS = 2
DEPTH = 4
OK = b"HTTP/1.1 200 OK\r\n"


@dataclass(frozen=True)
class Processes(Target):
    """A server of several processes; ``pid`` is the first."""

    def cpu(self) -> float:
        pids = [self.pid, *children(self.pid)]
        return sum(Target(self.port, pid, self.key).cpu() for pid in pids)


@contextlib.contextmanager
def server(bench: Bench, workers: int) -> Iterator[Target]:
    """Our server with so many processes, on an empty database."""
    arguments = ("--synchronous", SYNCHRONOUS, "--workers", str(workers))
    with bench.scratch() as folder, Server(folder, *arguments) as running:
        assert running.process is not None
        yield Processes(running.port, running.process.pid, running.key)
        running.stop()  # so that all of them are buried, and their CPU counts as the measurement's


class Pipeline(asyncio.Protocol):
    """A connection on which DEPTH requests are always under way: a light client for many small answers."""

    def __init__(self, request: bytes) -> None:
        self._requests = request * DEPTH
        self._received = bytearray()
        self._size = 0  # of DEPTH answers, once the first ones have told it
        self.count = 0
        self.failed: LoadError | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its class
        self._transport.write(self._requests)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._size and self._received.count(OK) == DEPTH:
            head, _, _ = bytes(self._received).partition(b"\r\n\r\n")
            (length,) = (row[15:] for row in head.lower().split(b"\r\n") if row.startswith(b"content-length:"))
            self._size = DEPTH * (len(head) + 4 + int(length))
        if self._size and len(self._received) >= self._size:
            if len(self._received) != self._size or self._received.count(OK) != DEPTH:
                self.failed = LoadError(f"an answer is not like the others: {bytes(self._received[:200])!r}")
                self._transport.abort()
                return
            self._received.clear()
            self.count += DEPTH
            self._transport.write(self._requests)

    def connection_lost(self, exc: Exception | None) -> None:
        self.failed = self.failed or LoadError(f"the server closed a connection: {exc}")

    def close(self) -> None:
        """Close the connection."""
        self._transport.abort()


async def pipelined_loop(target: Target, request: bytes, seconds: float) -> Rate:
    """Ask the same all the time on CONNECTIONS connections. Raises LoadError if an answer is no success."""
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: Pipeline(request), "127.0.0.1", target.port))[1]
        for _ in range(CONNECTIONS)
    ]
    await asyncio.sleep(WARM_UP)
    count, start, own, cpu = (
        *(sum(client.count for client in clients), time.perf_counter()),
        *(time.process_time(), target.cpu()),
    )
    await asyncio.sleep(seconds)
    count, elapsed = sum(client.count for client in clients) - count, time.perf_counter() - start
    rate = Rate(count / elapsed, (time.process_time() - own) / elapsed, (target.cpu() - cpu) / max(1, count))
    failures = [client.failed for client in clients if client.failed is not None]
    for client in clients:
        client.close()
    if failures or not count:
        raise failures[0] if failures else LoadError("there was no answer")
    return rate


class Workers(Figure):
    """The same work done by WORKERS processes and by one."""

    beside = "one process"
    against = "the same server with --workers 1"

    async def ours(self, bench: Bench) -> Sample:
        return await self._measure(bench, WORKERS)

    async def yardstick(self, bench: Bench) -> Sample:
        return await self._measure(bench, 1)

    async def _measure(self, bench: Bench, workers: int) -> Sample:
        with server(bench, workers) as target:
            async with connections(target.port, CONNECTIONS) as clients:
                rate = await self.load(target, clients, bench.seconds)
                return {"rate": rate.per_second, "cpu": 1e6 * rate.server_cpu, CLIENT_CPU: rate.client_cpu}

    @abc.abstractmethod
    async def load(self, target: Target, clients: list[Connection], seconds: float) -> Rate:
        """Make what is needed, and keep all connections busy."""


class Polls(Workers):
    """Polls of a live task."""

    name = "workers-polls"
    note = (
        f"polls (as there: {NEW} new lines, {CONNECTIONS} connections) with --workers {WORKERS}. So that the"
        f" load generator leaves the cores to the server, {DEPTH} requests are under way on a connection at a time, and"
        " their answers are counted and not parsed."
    )
    metrics = (
        Metric("rate", "", "polls/s", more_is_better=True),
        Metric("cpu", "CPU of all processes", "µs/poll", more_is_better=False),
    )
    goals = (Goal("rate", 1.5),)

    async def load(self, target: Target, clients: list[Connection], seconds: float) -> Rate:
        await make_task(target, clients[0])
        return await pipelined_loop(target, target.get(f"/v1/tasks/bench?first={KNOWN}&wait=0"), seconds)


class Appends(Workers):
    """Durable appends of one line."""

    name = "workers-appends"
    note = f"appends (as there: one line each, {CONNECTIONS} connections and tasks) with --workers {WORKERS}."
    metrics = (
        Metric("rate", "", "appends/s", more_is_better=True),
        Metric("cpu", "CPU of all processes", "µs/append", more_is_better=False),
    )
    goals = (Goal("rate", 1.0),)

    async def load(self, target: Target, clients: list[Connection], seconds: float) -> Rate:
        for number in range(CONNECTIONS):
            await clients[0].ask(target.post("/v1/tasks", b'{"id": "bench%02d"}' % number, "application/json"))
        requests = [
            target.post(f"/v1/tasks/bench{number:02d}/output", text(number, 1)) for number in range(CONNECTIONS)
        ]
        return await closed_loop(clients, requests, seconds, target.cpu)


FIGURES = [Polls(), Appends()]
