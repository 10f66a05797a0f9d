"""Airflow's waiters: how soon the end of a run reaches all of them, and what they cost until then."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from dataclasses import dataclass
from itertools import cycle, islice

from tests.bench.figure import CLIENT_CPU, Figure, Goal, Metric, Sample, Yardstick
from tests.bench.load import Connection, connections
from tests.bench.rivals import EVENT_STREAM, nchan, publish_event
from tests.bench.servers import Bench, Target
from tests.bench.waiting import LATENCIES, Streams, Woken, typical

INTERVALS = (1, 5, 30)  # seconds between two lines, of a third of the waiters each
REPEATS = 5  # ends on the same connections, of which the median counts
ALONE = 21  # ends of runs for which nobody waits
IDLE_SECONDS = 10.0
FEW, MANY = 1_000, 10_000  # waiters for whom there are goals
NCHAN = (
    "EventSource subscribers of nginx' nchan module (one worker), to whom nothing is sent meanwhile; the published"
    " message being the last line; it is kept in memory and stored nowhere"
)
DAG = b'{"tasks": [{"task_id": "report", "result": true}]}'
RESULT = b'{"code": 0, "result": {"type": "json", "data": {"rows": 1200, "url": "s3://reports/2026-11-21.parquet"}}}'
FINISH = b'{"state": "success"}'
TICK = b'{"state":"running"}\n'


@dataclass(frozen=True)
class Run:
    """A running run: where it is waited for (``interval`` is to follow), and where it is ended."""

    wait: str
    finish: str


class End(Figure):
    """How soon all waiters have the end of a run."""

    against = (
        "bare aiohttp handlers that write the same prepared lines: the ticks from a task of its own for each, the last"
        " line when one asyncio.Event is set by a POST that stores and reads nothing"
    )
    metrics = (
        *LATENCIES,
        Metric("alone", "without waiters", "ms", more_is_better=False, has_ratio=False),
        Metric("after", "p50 after the commit", "ms", more_is_better=False, has_ratio=False),
    )

    def __init__(self, waiters: int) -> None:
        self.name = f"airflow-end-{waiters}"
        self.goals = (Goal("after", 5.0),) if waiters == FEW else ()
        self.note = (
            f"Airflow waiters (B3) of one run, interval {', '.join(map(str, INTERVALS))} s for a third each, a"
            " connection each, whose ticks go on meanwhile: from the sending of the request that ends the run, which"
            " ours makes durable, and whose result ours reads, to each client's last byte (p50, p99, max); median of"
            f" {REPEATS} ends a round. 'without waiters': the same request on a run for which nobody waits, until its"
            f" own answer is there; median of {ALONE}. What p50 has beyond that it has, within some 0.2 ms of HTTP,"
            " after the commit."
        )
        self.connections = waiters + 1
        self._waiters = waiters
        self._last = b""

    def yardsticks(self, bench: Bench) -> list[Yardstick]:
        found = [*super().yardsticks(bench)]
        if bench.nginx is not None:
            found.append(Yardstick("nchan", NCHAN, self._nchan, (Goal("p99", 1.2),) if self._waiters == MANY else ()))
        return found

    async def ours(self, bench: Bench) -> Sample:
        with bench.ours() as target:
            async with connections(target.port, 1) as (producer,):
                probe, *runs = [await _make_run(target, producer) for _ in range(1 + ALONE + REPEATS)]
                await producer.ask(target.post(probe.finish, FINISH, "application/json"))
                self._last = (await producer.ask(target.get(f"{probe.wait}1"))).body
                assert "results" in json.loads(self._last)
                return await self._measure(target, producer, runs)

    async def yardstick(self, bench: Bench) -> Sample:
        with bench.bare() as target:
            async with connections(target.port, 1) as (producer,):
                await target.set_answer(producer, TICK + self._last)
                return await self._measure(target, producer, [Run("/ticks?interval=", "/wake")] * (ALONE + REPEATS))

    async def _nchan(self, bench: Bench) -> Sample:
        data = self._last.rstrip()
        with nchan(bench) as target:
            end = publish_event(target, "/publish/bench", data)
            async with connections(target.port, 1) as (producer,):
                alone = [await _duration(producer, end) for _ in range(ALONE)]
                async with connections(target.port, self._waiters) as clients:
                    streams = Streams(target, clients, event=b"\ndata: " + data + b"\n\n")
                    await streams.begin_each([target.get("/events/bench", EVENT_STREAM)] * self._waiters)
                    woken = [await streams.wake(producer, end) for _ in range(REPEATS)]
        return _sample(woken, alone)

    async def _measure(self, target: Target, producer: Connection, runs: list[Run]) -> Sample:
        ends = [target.post(run.finish, FINISH, "application/json") for run in runs]
        alone = [await _duration(producer, end) for end in ends[:ALONE]]
        woken: list[Woken] = []
        async with connections(target.port, self._waiters) as clients:
            streams = Streams(target, clients, last=self._last)
            for run, end in zip(runs[ALONE:], ends[ALONE:], strict=True):
                waits = [target.get(f"{run.wait}{interval}") for interval in INTERVALS]
                await streams.begin_each(list(islice(cycle(waits), self._waiters)))
                woken.append(await streams.wake(producer, end))
        return _sample(woken, alone)


class Idle(Figure):
    """CPU of waiters that are told each second that nothing has happened."""

    against = "bare aiohttp handlers, each of which writes the same line and sleeps for a second, again and again"
    metrics = (
        Metric("cpu", "CPU", "% of a core", more_is_better=False, has_difference=True),
        Metric("lines", "", "lines/s", more_is_better=True),
    )

    def __init__(self, waiters: int) -> None:
        self.name = f"airflow-idle-{waiters}"
        self.goals = (Goal("cpu", 10.0),) if waiters == FEW else ()
        self.note = (
            f"Airflow waiters (B3, interval=1) of one run to which nothing happens, for {IDLE_SECONDS:.0f} s: the"
            " process' CPU. The difference is what ours costs beyond writing the bytes. lines/s: what the clients"
            " received, to show that both sides sent the same."
        )
        self.connections = waiters
        self._waiters = waiters

    async def ours(self, bench: Bench) -> Sample:
        with bench.ours() as target:
            async with connections(target.port, 1) as (producer,):
                run = await _make_run(target, producer)
            return await self._measure(target, target.get(f"{run.wait}1"))

    async def yardstick(self, bench: Bench) -> Sample:
        with bench.bare() as target:
            async with connections(target.port, 1) as (producer,):
                await target.set_answer(producer, TICK + TICK)
            return await self._measure(target, target.get("/ticks?interval=1"))

    async def _measure(self, target: Target, request: bytes) -> Sample:
        async with connections(target.port, self._waiters) as clients:
            streams = Streams(target, clients)
            await streams.begin_each([request] * self._waiters)
            server, own, start, lines = target.cpu(), time.process_time(), time.perf_counter(), streams.parts
            await asyncio.sleep(IDLE_SECONDS)
            elapsed = time.perf_counter() - start
            streams.check_waiting()
            return {
                "cpu": 100 * (target.cpu() - server) / elapsed,
                "lines": (streams.parts - lines) / elapsed,
                CLIENT_CPU: (time.process_time() - own) / elapsed,
            }


async def _make_run(target: Target, client: Connection) -> Run:
    """A run that nobody has claimed, with its only task done."""

    async def ask(request: bytes) -> dict[str, str]:
        answer: dict[str, str] = json.loads((await client.ask(request)).body)
        return answer

    await ask(target.put("/v1/dags/bench", DAG))
    run = await ask(target.post("/v1/dags/bench/runs", b"{}", "application/json"))
    task = await ask(target.post(f"/v1/runs/{run['id']}/tasks", b'{"task_id": "report"}', "application/json"))
    # Its first line makes the task, and so the run, running.
    await ask(target.post(f"/v1/tasks/{task['id']}/output", b"1200 rows\n"))
    await ask(target.post(f"/v1/tasks/{task['id']}/finish", RESULT, "application/json"))
    return Run(f"/api/v2/dags/bench/dagRuns/{run['run_id']}/wait?interval=", f"/v1/runs/{run['id']}/finish")


def _sample(woken: list[Woken], durations: list[float]) -> Sample:
    latencies, alone = typical(woken), 1000 * statistics.median(durations)
    return {**latencies, "alone": alone, "after": latencies["p50"] - alone}


async def _duration(client: Connection, request: bytes) -> float:
    start = time.perf_counter()
    await client.ask(request)
    return time.perf_counter() - start


FIGURES = [End(FEW), End(MANY), Idle(FEW), Idle(MANY)]
