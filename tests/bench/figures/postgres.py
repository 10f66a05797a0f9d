"""PostgreSQL: appends and bulk ingest through one node, beside programs that write as much plainly."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

from tests.bench.figure import CLIENT_CPU, Figure, Goal, Metric, Sample
from tests.bench.figures.bulk import LINES, PIECE, send_live
from tests.bench.load import Connection, Rate, closed_loop, connections
from tests.bench.plain import CONNECTIONS, COPIED_ROWS, StoredChunk
from tests.bench.postgres import Node, connected, nodes, plainly, scratch_database
from tests.bench.samples import text
from tests.bench.servers import Bench, Target

APPENDS = (
    Metric("rate", "", "appends/s", more_is_better=True),
    Metric("cpu", "CPU of the process", "µs/append", more_is_better=False),
)
CHUNKS = "SELECT count, codec, payload, side FROM chunk WHERE codec = 0 ORDER BY log, first LIMIT 1000"


async def make_tasks(target: Target, client: Connection, count: int) -> None:
    """Create bench00, bench01 …"""
    for number in range(count):
        await client.ask(target.post("/v1/tasks", b'{"id": "bench%02d"}' % number, "application/json"))


def appends(targets: Sequence[Target], lines: int) -> list[bytes]:
    """A request for each of CONNECTIONS tasks, the targets taking turns."""
    turns = [(number, targets[number % len(targets)]) for number in range(CONNECTIONS)]
    return [target.post(f"/v1/tasks/bench{number:02d}/output", text(number, lines)) for number, target in turns]


async def append_all_the_time(node: Target, lines: int, seconds: float) -> Rate:
    """CONNECTIONS producers with a task each."""
    async with connections(node.port, CONNECTIONS) as clients:
        await make_tasks(node, clients[0], CONNECTIONS)
        return await closed_loop(clients, appends([node], lines), seconds, node.cpu)


class Plain(Figure):
    """The yardstick is ``tests.bench.plain``'s ``inserts``."""

    beside = "asyncpg"
    against = (
        f"{CONNECTIONS} connections of asyncpg in a process of its own, each inserting the same rows one by one, which"
        " autocommit: a prepared statement, the chunk table's columns and key, no HTTP, nothing checked or counted"
    )
    metrics = APPENDS
    goals = (Goal("rate", 1.0),)
    on_postgres = True

    async def yardstick(self, bench: Bench) -> Sample:
        async with scratch_database(bench) as (url, _):
            return _sample(await plainly("inserts", url, bench.seconds))


class Appends(Plain):
    """One line per request."""

    name = "pg-appends"
    note = (
        f"POST of one line of 80 bytes on {CONNECTIONS} connections to one node, each to a task of its own and waiting"
        " for its acknowledgement before the next. What HTTP costs is in it, and the load generator shares the cores."
    )

    async def ours(self, bench: Bench) -> Sample:
        async with nodes(bench, 1) as (node,):
            rate = await append_all_the_time(node, 1, bench.seconds)
            return {"rate": rate.per_second, "cpu": 1e6 * rate.server_cpu, CLIENT_CPU: rate.client_cpu}


class Store(Plain):
    """The same without HTTP."""

    name = "pg-appends-store"
    note = f"The same by the store alone: {CONNECTIONS} producers in one process that append a line each, no HTTP."

    async def ours(self, bench: Bench) -> Sample:
        async with scratch_database(bench) as (url, _):
            return _sample(await plainly("store", url, bench.seconds))


class Bulk(Figure):
    """The yardstick copies the very chunks that ours has left."""

    beside = "COPY"
    against = (
        "one connection of asyncpg in a process of its own that copies the same chunks into a table with the same"
        f" columns and key, {COPIED_ROWS} with each COPY, which autocommits: no HTTP and nothing to encode"
    )
    metrics = (Metric("rate", "", "lines/s", more_is_better=True),)
    goals = (Goal("rate", 0.5),)
    on_postgres = True

    def __init__(self, name: str, live: bool, what: str) -> None:
        self.name = name
        self.note = f"{what}."
        self._live = live
        self._chunks: list[StoredChunk] = []

    async def ours(self, bench: Bench) -> Sample:
        async with nodes(bench, 1) as (node,):
            sample = await self._ingest(bench, node)
            async with connected(node.database) as connection:
                self._chunks = [tuple(row) for row in await connection.fetch(CHUNKS)]
            return sample

    async def yardstick(self, bench: Bench) -> Sample:
        async with scratch_database(bench) as (url, folder):
            file = folder / "chunks"
            file.write_bytes(pickle.dumps(self._chunks))
            return {"rate": (await plainly("copy", url, bench.seconds, str(file)))["rate"]}

    async def _ingest(self, bench: Bench, node: Node) -> Sample:
        if not self._live:
            rate = await append_all_the_time(node, LINES, bench.seconds)
            return {"rate": rate.per_second * LINES, CLIENT_CPU: rate.client_cpu}
        async with connections(node.port, 1) as (client,):
            await make_tasks(node, client, 1)
            return await send_live(node, client, bench.seconds)


def _sample(found: dict[str, float]) -> Sample:
    return {"rate": found["rate"], "cpu": found["cpu"], CLIENT_CPU: found["share"]}


FIGURES = [
    Appends(),
    Store(),
    Bulk("pg-bulk-32", False, f"POST of {LINES} lines of 80 bytes by {CONNECTIONS} producers with a task each"),
    Bulk("pg-bulk-live", True, f"One chunked body, sent as fast as it is taken in chunks of {PIECE} lines"),
]
