"""Polls of a live task."""

from __future__ import annotations

import json

from tests.bench.figure import CLIENT_CPU, Figure, Goal, Metric, Sample
from tests.bench.load import Connection, closed_loop, connections
from tests.bench.samples import text
from tests.bench.servers import Bench, Target

CONNECTIONS = 32
KNOWN, NEW = 1000, 20  # lines that the client has already, and lines that it gets
PARTS = 4  # appends that brought the new lines


class Polls(Figure):
    """How many readers of a running task can be answered."""

    name = "polls"
    against = "a bare aiohttp handler (same process setup) that returns the same bytes"
    note = (
        f"GET of a running task at line {KNOWN} with wait=0: {NEW} new lines in {PARTS} chunks; {CONNECTIONS}"
        " keep-alive connections, each asking again as soon as it has its answer. Ours checks key and owner each time."
    )
    metrics = (
        Metric("rate", "", "polls/s", more_is_better=True),
        Metric("cpu", "server CPU", "µs/poll", more_is_better=False),
    )

    goals = (Goal("rate", 0.85),)

    def __init__(self) -> None:
        self._body = b""

    async def ours(self, bench: Bench) -> Sample:
        with bench.ours() as target:
            async with connections(target.port, CONNECTIONS) as clients:
                await _make_task(target, clients[0])
                request = target.get(f"/v1/tasks/bench?first={KNOWN}&wait=0")
                self._body = (await clients[0].ask(request)).body
                assert len(json.loads(self._body)["output"]) == NEW
                return await _measure(target, clients, request, bench.seconds)

    async def yardstick(self, bench: Bench) -> Sample:
        with bench.bare() as target:
            async with connections(target.port, CONNECTIONS) as clients:
                await target.set_answer(clients[0], self._body)
                request = target.get(f"/get?first={KNOWN}&wait=0")
                return await _measure(target, clients, request, bench.seconds)


async def _make_task(target: Target, client: Connection) -> None:
    await client.ask(target.post("/v1/tasks", b'{"id": "bench"}', "application/json"))
    await client.ask(target.post("/v1/tasks/bench/output", text(0, KNOWN)))
    size = NEW // PARTS
    for first in range(KNOWN, KNOWN + NEW, size):
        await client.ask(target.post("/v1/tasks/bench/output", text(first, size)))


async def _measure(target: Target, clients: list[Connection], request: bytes, seconds: float) -> Sample:
    rate = await closed_loop(clients, [request] * len(clients), seconds, target.cpu)
    return {"rate": rate.per_second, "cpu": 1e6 * rate.server_cpu, CLIENT_CPU: rate.client_cpu}


FIGURES = [Polls()]
