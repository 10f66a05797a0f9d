"""Dags as HTTP calls: how long a caller waits for a result that takes no work, alone and in a crowd."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench.figure import CLIENT_CPU, Figure, Goal, Metric, Sample
from tests.bench.load import Connection, LoadError, connections
from tests.bench.servers import STOP_LIMIT, Bench, Target
from tests.dags.bench import answer, doubled, same

DAGS = Path(__file__).parents[2] / "dags" / "bench.py"
CONCURRENCY = "32"  # tasks at a time
WARM_UP, CALLS = 20, 200
CALLERS, EACH = 200, 5
ITEMS = 10_000
WAIT = 10  # seconds for which one request waits; less than the load generator does for an answer
JSON = "application/json"


@contextlib.contextmanager
def worker(target: Target) -> Iterator[None]:
    """``taskserver worker`` with threads, while it works."""
    environment = {**os.environ, "TASKSERVER_URL": f"http://127.0.0.1:{target.port}", "TASKSERVER_KEY": target.key}
    command = [sys.executable, "-m", "taskserver", "worker", str(DAGS), "--concurrency", CONCURRENCY, "--quiet"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        if "working on" not in process.stderr.readline():
            raise LoadError("the worker did not start")
        yield
    finally:
        process.kill()
        process.wait(STOP_LIMIT)
        process.stderr.close()


async def call(target: Target, client: Connection, dag_id: str, conf: bytes = b"{}") -> object:
    """The only result of a run. Raises LoadError if it does not come."""
    body = b'{"conf": %b}' % conf
    told = json.loads((await client.ask(target.post(f"/v1/dags/{dag_id}/run?wait={WAIT}", body, JSON))).body)
    while not told["finished"]:
        told = json.loads((await client.ask(target.get(f"/v1/runs/{told['id']}/result?wait={WAIT}"))).body)
    if told["state"] != "success":
        raise LoadError(f"a run has ended as {told['state']}: {told['error']}")
    (value,) = told["results"].values()
    return value


async def durations(work: Callable[[], Awaitable[object]], count: int) -> list[float]:
    """Milliseconds that each of ``count`` calls takes, one after the other."""
    found = []
    for _ in range(count):
        start = time.perf_counter()
        await work()
        found.append(1000 * (time.perf_counter() - start))
    return found


class Alone(Figure):
    """A caller that calls again and again."""

    name = "call"
    beside = "threads and two round trips"
    against = "the same two functions through a ThreadPoolExecutor and two round trips to a bare aiohttp handler"
    note = (
        f"A dag of two tasks that do nothing, called by HTTP and run by a worker with threads: p50 of {CALLS} calls,"
        " one after the other. Each is five requests and as many durable commits, one behind the other."
    )
    metrics = (
        Metric("p50", "p50", "ms", more_is_better=False),
        Metric("ms", "alone", "ms", more_is_better=False, has_ratio=False),
    )
    goals = (Goal("p50", 10.0), Goal("ms", 50.0))

    async def ours(self, bench: Bench) -> Sample:
        with bench.ours() as target, worker(target):
            async with connections(target.port, 1) as (client,):
                return await self._measure(lambda: call(target, client, "two_tasks"))

    async def yardstick(self, bench: Bench) -> Sample:
        loop = asyncio.get_running_loop()
        with bench.bare() as target, ThreadPoolExecutor() as pool:
            async with connections(target.port, 1) as (client,):
                request = target.post("/post", b'{"conf": {}}', JSON)

                async def work() -> None:
                    await client.ask(request)
                    value = await loop.run_in_executor(pool, answer)
                    await loop.run_in_executor(pool, doubled, value)
                    await client.ask(request)

                return await self._measure(work)

    async def _measure(self, work: Callable[[], Awaitable[object]]) -> Sample:
        await durations(work, WARM_UP)
        own, start = time.process_time(), time.perf_counter()
        p50 = statistics.median(await durations(work, CALLS))
        cpu = (time.process_time() - own) / (time.perf_counter() - start)
        return {"p50": p50, "ms": p50, CLIENT_CPU: cpu}


class Crowd(Figure):
    """Many who call at the same time."""

    name = "call-crowd"
    against = "the same number of requests of each to bare aiohttp handlers, which do nothing"
    note = (
        f"The same dag, called by {CALLERS} callers at the same time, {EACH} times each, and run by one worker:"
        " calls/s and p99 of a call. A call that is lost or fails ends the measurement."
    )
    metrics = (
        Metric("rate", "", "runs/s", more_is_better=True, has_ratio=False),
        Metric("p99", "p99", "ms", more_is_better=False, has_ratio=False),
    )
    connections = CALLERS

    async def ours(self, bench: Bench) -> Sample:
        with bench.ours() as target, worker(target):
            return await self._measure(target, lambda client: call(target, client, "two_tasks"))

    async def yardstick(self, bench: Bench) -> Sample:
        with bench.bare() as target:
            request = target.post("/post", b'{"conf": {}}', JSON)
            return await self._measure(target, lambda client: client.ask(request))

    async def _measure(self, target: Target, work: Callable[[Connection], Awaitable[object]]) -> Sample:
        async with connections(target.port, CALLERS) as clients:
            await work(clients[0])
            own, start = time.process_time(), time.perf_counter()
            found = await asyncio.gather(*(durations(lambda one=client: work(one), EACH) for client in clients))  # type: ignore[misc]
            elapsed = time.perf_counter() - start
        each = sorted(duration for one in found for duration in one)
        return {
            "rate": len(each) / elapsed,
            "p99": each[int(0.99 * len(each))],
            CLIENT_CPU: (time.process_time() - own) / elapsed,
        }


class Mapped(Figure):
    """A task that is mapped over many items."""

    name = "call-mapped"
    beside = "ThreadPoolExecutor.map"
    against = "the same function through ThreadPoolExecutor.map, which records nothing"
    note = f"A run of a dag that maps a task which does nothing over {ITEMS:,} items: its duration for each item."
    metrics = (Metric("item", "", "µs/item", more_is_better=False, has_ratio=False),)

    async def ours(self, bench: Bench) -> Sample:
        items = bench.scaled(ITEMS)
        with bench.ours() as target, worker(target):
            async with connections(target.port, 1) as (client,):
                start = time.perf_counter()
                if await call(target, client, "mapped", b'{"items": %d}' % items) != items:
                    raise LoadError("an item was lost")
                return {"item": 1e6 * (time.perf_counter() - start) / items, CLIENT_CPU: 0.0}

    async def yardstick(self, bench: Bench) -> Sample:
        items = bench.scaled(ITEMS)
        with ThreadPoolExecutor(int(CONCURRENCY)) as pool:
            start = time.perf_counter()
            found = await asyncio.to_thread(lambda: len(list(pool.map(same, range(items)))))
            return {"item": 1e6 * (time.perf_counter() - start) / found, CLIENT_CPU: 0.0}


FIGURES = [Alone(), Crowd(), Mapped()]
