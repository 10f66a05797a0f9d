"""Appends while the sealer works."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from tests.bench.figure import CLIENT_CPU, Figure, Metric, Sample
from tests.bench.load import LoadError, connections, paced_loop
from tests.bench.prepared import DATABASE, Stored
from tests.bench.samples import text
from tests.bench.servers import SYNCHRONOUS, Bench
from tests.bench.summary import percentile

TASKS, LINES = 4_000, 1_000  # that wait to be sealed: more than is sealed while it is measured
CONNECTIONS = 32
RATE = 500  # appends a second: well below what can be had, so that latency is not the length of a queue
UNSEALED = "SELECT count(*) FROM task WHERE finished_at IS NOT NULL AND sealed = 0"


class Sealing(Figure):
    """Latency of appends with a backlog of ended tasks to seal, and without."""

    name = "sealing"
    beside = "nothing to seal"
    against = "the same server on the same database, in which all of these tasks are marked as sealed"
    note = (
        f"POST of one line on {CONNECTIONS} connections, {RATE} a second in all, while the sealer works through a"
        f" backlog of {TASKS:,} ended tasks with {LINES:,} lines each; from the moment when a request is due until its"
        f" acknowledgement, synchronous={SYNCHRONOUS}."
    )
    metrics = (
        Metric("p50", "append p50", "ms", more_is_better=False),
        Metric("p99", "append p99", "ms", more_is_better=False),
        Metric("sealed", "sealed meanwhile", "lines/s", more_is_better=True, has_ratio=False),
    )

    def __init__(self) -> None:
        self._backlog = Stored(TASKS, LINES, is_sealed=False)

    async def prepare(self, bench: Bench) -> None:
        await self._backlog.folder(bench)

    async def ours(self, bench: Bench) -> Sample:
        async with self._backlog.copy(bench) as folder:
            return await _measure(bench, folder)

    async def yardstick(self, bench: Bench) -> Sample:
        async with self._backlog.copy(bench) as folder:
            with contextlib.closing(sqlite3.connect(folder / DATABASE)) as database:
                database.execute("UPDATE task SET sealed = 1")
                database.commit()
            return await _measure(bench, folder)


async def _measure(bench: Bench, folder: Path) -> Sample:
    file = folder / DATABASE
    backlog = _unsealed(file)
    with bench.ours_in(folder) as target:
        async with connections(target.port, CONNECTIONS) as clients:
            for number in range(CONNECTIONS):
                body = b'{"id": "bench%02d"}' % number
                await clients[0].ask(target.post("/v1/tasks", body, "application/json"))
            requests = [target.post(f"/v1/tasks/bench{number:02d}/output", text(0, 1)) for number in range(CONNECTIONS)]
            before = _unsealed(file)
            paced = await paced_loop(clients, requests, bench.seconds, RATE)
            left = _unsealed(file)
    if backlog and not left:
        raise LoadError("the backlog was sealed before the measurement ended")
    times = sorted(paced.times)
    return {
        "p50": 1000 * percentile(times, 0.5),
        "p99": 1000 * percentile(times, 0.99),
        "sealed": (before - left) * LINES / bench.seconds,
        CLIENT_CPU: paced.client_cpu,
    }


def _unsealed(file: Path) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        count: int = database.execute(UNSEALED).fetchone()[0]
        return count


FIGURES = [Sealing()]
