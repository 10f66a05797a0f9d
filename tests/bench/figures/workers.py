"""What a second process brings, on the machine that the load generator shares."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from tests.bench.figure import CLIENT_CPU, Figure, Goal, Metric, Sample
from tests.bench.figures.polls import KNOWN, NEW, make_task
from tests.bench.load import Connection, closed_loop, connections
from tests.bench.samples import text
from tests.bench.servers import SYNCHRONOUS, Bench, Target
from tests.server import Server, children

CONNECTIONS = 32
WORKERS = 2


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
                requests = await self.requests(target, clients[0])
                rate = await closed_loop(clients, requests, bench.seconds, target.cpu)
                return {"rate": rate.per_second, "cpu": 1e6 * rate.server_cpu, CLIENT_CPU: rate.client_cpu}

    @abc.abstractmethod
    async def requests(self, target: Target, client: Connection) -> list[bytes]:
        """What each connection asks again and again, once what it needs is there."""


class Polls(Workers):
    """Polls of a live task."""

    name = "workers-polls"
    note = f"polls (as there: {NEW} new lines, {CONNECTIONS} connections) with --workers {WORKERS}."
    metrics = (
        Metric("rate", "", "polls/s", more_is_better=True),
        Metric("cpu", "CPU of all processes", "µs/poll", more_is_better=False),
    )
    goals = (Goal("rate", 1.5),)

    async def requests(self, target: Target, client: Connection) -> list[bytes]:
        await make_task(target, client)
        return [target.get(f"/v1/tasks/bench?first={KNOWN}&wait=0")] * CONNECTIONS


class Appends(Workers):
    """Durable appends of one line."""

    name = "workers-appends"
    note = f"appends (as there: one line each, {CONNECTIONS} connections and tasks) with --workers {WORKERS}."
    metrics = (
        Metric("rate", "", "appends/s", more_is_better=True),
        Metric("cpu", "CPU of all processes", "µs/append", more_is_better=False),
    )
    goals = (Goal("rate", 1.0),)

    async def requests(self, target: Target, client: Connection) -> list[bytes]:
        for number in range(CONNECTIONS):
            await client.ask(target.post("/v1/tasks", b'{"id": "bench%02d"}' % number, "application/json"))
        return [target.post(f"/v1/tasks/bench{number:02d}/output", text(number, 1)) for number in range(CONNECTIONS)]


FIGURES = [Polls(), Appends()]
