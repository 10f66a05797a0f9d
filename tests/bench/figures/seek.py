"""Reading a few lines anywhere in a long output."""

from __future__ import annotations

import json
import statistics
import time

from tests.bench.archive import TASK
from tests.bench.figure import CLIENT_CPU, Figure, Goal, Metric, Sample
from tests.bench.figures.follow import ARCHIVE
from tests.bench.load import connections
from tests.bench.servers import Bench
from tests.bench.summary import percentile

NEW = 20  # lines of a read
WARM_UP_REQUESTS = 200


class Seek(Figure):
    """What the place of some lines costs."""

    name = "seek"
    beside = "line 0"
    against = "the same lines of the same server at the beginning of the same output"
    note = (
        f"GET of {NEW} lines (A5 as JSON, limit={NEW}) at the end of a finished and sealed task of {ARCHIVE.lines:,}"
        " lines, again and again on one connection: what one request takes, the client's share included."
    )
    metrics = (
        Metric("p50", "p50", "ms", more_is_better=False),
        Metric("p99", "p99", "ms", more_is_better=False),
    )
    goals = (Goal("p50", 1.2),)

    async def prepare(self, bench: Bench) -> None:
        await ARCHIVE.folder(bench)

    async def ours(self, bench: Bench) -> Sample:
        return await _measure(bench, ARCHIVE.size(bench) - NEW)

    async def yardstick(self, bench: Bench) -> Sample:
        return await _measure(bench, 0)


async def _measure(bench: Bench, first: int) -> Sample:
    with bench.ours_in(await ARCHIVE.folder(bench)) as target:
        async with connections(target.port, 1) as (client,):
            request = target.get(f"/v1/tasks/{TASK}/output?first={first}&limit={NEW}")
            assert len(json.loads((await client.ask(request)).body)["output"]) == NEW
            for _ in range(WARM_UP_REQUESTS):
                await client.ask(request)
            times: list[float] = []
            start, cpu = time.perf_counter(), time.process_time()
            while (begun := time.perf_counter()) - start < bench.seconds:
                await client.ask(request)
                times.append(time.perf_counter() - begun)
            share = (time.process_time() - cpu) / (time.perf_counter() - start)
    return {
        "p50": 1000 * statistics.median(times),
        "p99": 1000 * percentile(sorted(times), 0.99),
        CLIENT_CPU: share,
    }


FIGURES = [Seek()]
