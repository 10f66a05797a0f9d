"""Durable appends of one line."""

from __future__ import annotations

from tests.bench.figure import CLIENT_CPU, Figure, Goal, Metric, Sample, Yardstick
from tests.bench.load import Connection, closed_loop, connections
from tests.bench.rivals import durable_streams
from tests.bench.samples import text
from tests.bench.servers import SYNCHRONOUS, Bench, Target

CONNECTIONS = 32
ANSWER = b'{"first":100000,"last":100001,"cancel_requested":false}'  # of the length that ours has after a while
DURABLE_STREAMS = (
    "@durable-streams/server (Node, one process) with its file store, which writes to a file for each stream, syncs it"
    " and updates LMDB before it answers 204; a stream in the place of each task"
)


class Appends(Figure):
    """How many lines that come one by one can be made durable."""

    against = "a bare aiohttp handler that reads the body and answers JSON of the same size, and stores nothing"
    goals = (Goal("rate", 0.6),)
    metrics = (
        Metric("rate", "", "appends/s", more_is_better=True),
        Metric("cpu", "server CPU", "µs/append", more_is_better=False),
    )

    def __init__(self, name: str, tasks: int, where: str) -> None:
        self.name = name
        self.note = (
            f"POST of one line of 80 bytes on {CONNECTIONS} connections, each waiting for its acknowledgement"
            f" before the next, {where}; synchronous={SYNCHRONOUS}."
        )
        self._tasks = tasks

    def yardsticks(self, bench: Bench) -> list[Yardstick]:
        found = [*super().yardsticks(bench)]
        if bench.durable_streams is not None:
            found.append(Yardstick("durable-streams", DURABLE_STREAMS, self._durable_streams, (Goal("rate", 10.0),)))
        return found

    async def ours(self, bench: Bench) -> Sample:
        with bench.ours() as target:
            async with connections(target.port, CONNECTIONS) as clients:
                for number in range(self._tasks):
                    body = b'{"id": "bench%02d"}' % number
                    await clients[0].ask(target.post("/v1/tasks", body, "application/json"))
                paths = [f"/v1/tasks/bench{number % self._tasks:02d}/output" for number in range(CONNECTIONS)]
                requests = [target.post(path, text(number, 1)) for number, path in enumerate(paths)]
                return await _measure(target, clients, requests, bench.seconds)

    async def yardstick(self, bench: Bench) -> Sample:
        with bench.bare() as target:
            async with connections(target.port, CONNECTIONS) as clients:
                await target.set_answer(clients[0], ANSWER)
                requests = [target.post("/post", text(number, 1)) for number in range(CONNECTIONS)]
                return await _measure(target, clients, requests, bench.seconds)

    async def _durable_streams(self, bench: Bench) -> Sample:
        with durable_streams(bench) as target:
            async with connections(target.port, CONNECTIONS) as clients:
                paths = [f"/bench{number % self._tasks:02d}" for number in range(CONNECTIONS)]
                for path in sorted(set(paths)):
                    await clients[0].ask(target.put(path, b"", "text/plain"))
                requests = [target.post(path, text(number, 1)) for number, path in enumerate(paths)]
                return await _measure(target, clients, requests, bench.seconds)


async def _measure(target: Target, clients: list[Connection], requests: list[bytes], seconds: float) -> Sample:
    rate = await closed_loop(clients, requests, seconds, target.cpu)
    return {"rate": rate.per_second, "cpu": 1e6 * rate.server_cpu, CLIENT_CPU: rate.client_cpu}


FIGURES = [
    Appends("appends", CONNECTIONS, "to a task of its own each (a commit holds a row and an update for each task)"),
    Appends("appends-one-task", 1, "all to one task (a commit holds one row and one update)"),
]
