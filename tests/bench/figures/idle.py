"""What waiters cost while nothing happens."""

from __future__ import annotations

import asyncio
import time

from tests.bench.figure import Figure, Goal, Metric, Sample
from tests.bench.load import connections
from tests.bench.servers import Bench, Target
from tests.bench.waiting import Waiters

WAITERS = 10_000
SECONDS = 20.0  # two of the intervals at which a wait looks again by itself; well within wait=55


class Idle(Figure):
    """CPU of waiters that wait."""

    name = f"idle-{WAITERS}"
    against = "the bare long poll's waiters, which never look again; no ratio, as they use nothing at all"
    note = f"{WAITERS} long polls (A5 as JSON, wait=55) on a task on which nothing happens, for {SECONDS:.0f} s."
    metrics = (Metric("cpu", "CPU", "% of a core", more_is_better=False, has_ratio=False),)
    goals = (Goal("cpu", 1.0),)
    connections = WAITERS

    async def ours(self, bench: Bench) -> Sample:
        with bench.ours() as target:
            async with connections(target.port, 1) as (producer,):
                await producer.ask(target.post("/v1/tasks", b'{"id": "bench"}', "application/json"))
                return await _measure(target, target.get("/v1/tasks/bench/output?wait=55"))

    async def yardstick(self, bench: Bench) -> Sample:
        with bench.bare() as target:
            return await _measure(target, target.get("/wait"))


async def _measure(target: Target, request: bytes) -> Sample:
    async with connections(target.port, WAITERS) as clients:
        waiters = Waiters(target, clients)
        await waiters.begin(request)
        cpu, start = target.cpu(), time.perf_counter()
        await asyncio.sleep(SECONDS)
        share = (target.cpu() - cpu) / (time.perf_counter() - start)
        waiters.check_waiting()
        return {"cpu": 100 * share}


FIGURES = [Idle()]
