"""PostgreSQL: two nodes on one database."""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from pathlib import Path

from tests.bench.figure import CLIENT_CPU, Figure, Goal, Metric, Sample
from tests.bench.figures.postgres import APPENDS, appends, make_tasks
from tests.bench.load import ANSWER_LIMIT, Connection, closed_loop, connections
from tests.bench.plain import CONNECTIONS
from tests.bench.postgres import Nodes, nodes
from tests.bench.samples import text
from tests.bench.servers import Bench, Target
from tests.bench.waiting import LATENCIES, LightWaiters, typical

REACHES = 60  # lines that reach a reader, of which the median counts
REST = 0.05  # seconds at most between two of them, at random: a notification that is held back must not be met in step
WAITERS = 10_000  # on two nodes
REPEATS = 5  # wakes, of which the median counts
POLL = "/v1/tasks/%s/output?first=%d&wait=55"
MUTE = (sys.executable, str(Path(__file__).parents[1] / "mute.py"))  # by its path: nodes run in a folder of their own


class Across(Figure):
    """How much later a reader has a line because another node took it."""

    name = "pg-across"
    beside = "one node"
    against = "the same with the reader on the node that takes the line"
    note = (
        f"One line appended through a node, one reader who waits on the other by long poll: from the producer's request"
        f" to the last byte of the reader's answer, median of {REACHES}."
    )
    metrics = (Metric("p50", "p50", "ms", more_is_better=False, has_difference=True),)
    goals = (Goal("p50", 25.0),)
    on_postgres = True

    async def ours(self, bench: Bench) -> Sample:
        async with nodes(bench, 2) as (a, b):
            return await self._measure(a, b)

    async def yardstick(self, bench: Bench) -> Sample:
        async with nodes(bench, 2) as (a, _):
            return await self._measure(a, a)

    async def _measure(self, writer: Target, reader: Target) -> Sample:
        times = []
        async with connections(writer.port, 1) as (producer,), connections(reader.port, 1) as (client,):
            await make_tasks(writer, producer, 1)
            for number in range(REACHES):
                told = client.expect()
                client.send(reader.get(POLL % ("bench00", number)))
                await asyncio.sleep(REST * (0.5 + random.random() / 2))
                start = time.perf_counter()
                taken = asyncio.ensure_future(producer.ask(writer.post("/v1/tasks/bench00/output", text(number, 1))))
                await told
                times.append(time.perf_counter() - start)
                await taken
        return {"p50": 1000 * statistics.median(times)}


class Notifications(Figure):
    """What telling each other costs two nodes."""

    name = "pg-notify"
    beside = "silent nodes"
    against = "the same nodes with notifications off (tests/bench/mute.py)"
    note = f"Appends as in pg-appends, {CONNECTIONS} producers on two nodes, with notifications on."
    metrics = (
        APPENDS[0],
        Metric("cpu", "CPU of both nodes", "µs/append", more_is_better=False),
    )
    goals = (Goal("rate", 0.9),)
    on_postgres = True

    async def ours(self, bench: Bench) -> Sample:
        return await self._measure(bench)

    async def yardstick(self, bench: Bench) -> Sample:
        return await self._measure(bench, *MUTE)

    async def _measure(self, bench: Bench, *command: str) -> Sample:
        async with nodes(bench, 2, *command) as (a, b):
            half = CONNECTIONS // 2
            async with connections(a.port, half) as at_a, connections(b.port, half) as at_b:
                await make_tasks(a, at_a[0], CONNECTIONS)
                clients = [client for pair in zip(at_a, at_b, strict=True) for client in pair]
                both = Nodes(a.port, a.pid, a.key, (b,))
                rate = await closed_loop(clients, appends([a, b], 1), bench.seconds, both.cpu)
                return {"rate": rate.per_second, "cpu": 1e6 * rate.server_cpu, CLIENT_CPU: rate.client_cpu}


class Wake(Figure):
    """How soon all who wait on two nodes have a line that one of them took."""

    name = f"pg-wake-{WAITERS}"
    beside = f"SQLite, {WAITERS // 2}"
    against = f"one server on SQLite with {WAITERS // 2} waiters"
    note = (
        f"{WAITERS} long polls on one task, half of them on each of two nodes, woken by a line that one takes: from the"
        f" producer's request to each client's last byte, median of {REPEATS} wakes a round. The load generator,"
        " which has twice as many answers to read as beside it and only counts their bytes, shares two cores with both"
        " nodes and the database."
    )
    metrics = LATENCIES
    goals = (Goal("p99", 1.5),)
    connections = WAITERS + 1
    on_postgres = True

    async def ours(self, bench: Bench) -> Sample:
        async with nodes(bench, 2) as (a, b):
            half = WAITERS // 2
            async with connections(a.port, half) as at_a, connections(b.port, half) as at_b:
                return await self._measure(Nodes(a.port, a.pid, a.key, (b,)), at_a + at_b)

    async def yardstick(self, bench: Bench) -> Sample:
        with bench.ours() as target:
            async with connections(target.port, WAITERS // 2) as clients:
                return await self._measure(target, clients)

    async def _measure(self, target: Target, clients: list[Connection]) -> Sample:
        async with connections(target.port, 1) as (producer,):
            await make_tasks(target, producer, 1 + REPEATS)
            await producer.ask(target.post("/v1/tasks/bench00/output", text(0, 1)))
            like = await _raw(clients[0], target.get(POLL % ("bench00", 0)))
            waiters, woken = LightWaiters(target, clients, like), []
            for number in range(1, 1 + REPEATS):
                task = f"bench{number:02d}"
                await waiters.begin(target.get(POLL % (task, 0)))
                woken.append(await waiters.wake(producer, target.post(f"/v1/tasks/{task}/output", text(0, 1))))
        return typical(woken)


async def _raw(client: Connection, request: bytes) -> bytes:
    """An answer as it comes, in one piece since it is small."""
    came: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    client.on_data = lambda _, data: came.set_result(data)
    client.send(request)
    return await asyncio.wait_for(came, ANSWER_LIMIT)


FIGURES = [Across(), Notifications(), Wake()]
