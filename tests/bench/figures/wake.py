"""Waking many long polls at once, and the memory that they take while they wait."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tests.bench.figure import Figure, Goal, Metric, Point, Sample, Yardstick
from tests.bench.load import Connection, connections
from tests.bench.rivals import nchan
from tests.bench.samples import text
from tests.bench.servers import Bench, Target
from tests.bench.waiting import LATENCIES, Waiters, Woken, typical

LINES = 20  # of the task before the wait; the waiters have read them
REPEATS = 5  # wakes on the same connections, of which the median counts
WARM_UP_REQUESTS = 200  # before memory is looked at: what a server loads once is not a waiter's
MANY = 10_000  # waiters for whom there are goals
GOALS = (Goal("memory", 1.25),)
NCHAN_GOALS = (Goal("p99", 0.85),)
NCHAN = (
    "long polls of nginx' nchan module (one worker, a channel for each wake), the published message being the same"
    " body; it is kept in memory and stored nowhere"
)


@dataclass(frozen=True)
class Event:
    """What the clients wait for: their path, and what the producer sends to bring it about."""

    poll: str
    path: str
    body: bytes
    content_type: str


JSON = "application/json"
END = Event(f"/v1/tasks/%s?first={LINES}&wait=20", "/v1/tasks/%s/finish", b'{"code": 0}', JSON)
APPEND = Event(f"/v1/tasks/%s/output?first={LINES}&wait=55", "/v1/tasks/%s/output", text(LINES, 1), "text/plain")


class Wake(Figure):
    """How soon all who wait for the same thing have it."""

    against = (
        "a bare aiohttp long poll with the same body: handlers on one asyncio.Event without a time limit, woken by a"
        " POST that stores nothing"
    )
    metrics = (*LATENCIES, Metric("memory", "memory per waiter", "KiB", more_is_better=False))

    def __init__(self, name: str, waiters: int, event: Event, comment: str, only_plotted: bool = False) -> None:
        self.name = f"{name}-{waiters}"
        self.goals = GOALS if waiters == MANY else ()
        self.point = Point(name, waiters)
        self.only_plotted = only_plotted
        self.note = (
            f"Long polls on one task, each on a keep-alive connection of its own, woken by {comment}: from the sending"
            " of the producer's request, which ours makes durable first, to each client's last byte; median of"
            f" {REPEATS} wakes a round. Memory: growth of the process' RSS by connection and wait, without the kernel's"
            " buffers."
        )
        self.connections = waiters + 1
        self._waiters = waiters
        self._event = event
        self._body = b""

    def yardsticks(self, bench: Bench) -> list[Yardstick]:
        found = [*super().yardsticks(bench)]
        if bench.nginx is not None:
            found.append(Yardstick("nchan", NCHAN, self._nchan, NCHAN_GOALS if self._waiters == MANY else ()))
        return found

    async def ours(self, bench: Bench) -> Sample:
        event = self._event
        with bench.ours() as target:
            async with connections(target.port, 1) as (producer,):
                tasks = [f"bench{number}" for number in range(REPEATS)]
                for task in ["probe0", *tasks]:
                    await _make_task(target, producer, task)
                await producer.ask(target.post(event.path % "probe0", event.body, event.content_type))
                self._body = (await producer.ask(target.get(event.poll % "probe0"))).body
                assert "output" in json.loads(self._body)
                warm_up = target.get(f"/v1/tasks/probe0?first={LINES}")
                polls = [target.get(event.poll % task) for task in tasks]
                wakes = [target.post(event.path % task, event.body, event.content_type) for task in tasks]
                return await self._measure(target, producer, warm_up, polls, wakes)

    async def yardstick(self, bench: Bench) -> Sample:
        event = self._event
        with bench.bare() as target:
            async with connections(target.port, 1) as (producer,):
                await target.set_answer(producer, self._body)
                polls = [target.get("/wait")] * REPEATS
                wakes = [target.post("/wake", event.body, event.content_type)] * REPEATS
                return await self._measure(target, producer, target.get("/get"), polls, wakes)

    async def _nchan(self, bench: Bench) -> Sample:
        with nchan(bench) as target:
            async with connections(target.port, 1) as (producer,):
                polls = [target.get(f"/poll/bench{number}") for number in range(REPEATS)]
                wakes = [target.post(f"/publish/bench{number}", self._body, JSON) for number in range(REPEATS)]
                return await self._measure(target, producer, target.get("/get"), polls, wakes)

    async def _measure(
        self, target: Target, producer: Connection, warm_up: bytes, polls: list[bytes], wakes: list[bytes]
    ) -> Sample:
        for _ in range(WARM_UP_REQUESTS):
            await producer.ask(warm_up)
        memory = target.rss()
        woken: list[Woken] = []
        async with connections(target.port, self._waiters) as clients:
            waiters = Waiters(target, clients)
            for poll, wake in zip(polls, wakes, strict=True):
                await waiters.begin(poll)
                if not woken:
                    memory = target.rss() - memory
                woken.append(await waiters.wake(producer, wake))
        return {**typical(woken), "memory": memory / self._waiters / 1024}


async def _make_task(target: Target, client: Connection, task: str) -> None:
    await client.ask(target.post("/v1/tasks", b'{"id": "%s"}' % task.encode(), "application/json"))
    await client.ask(target.post(f"/v1/tasks/{task}/output", text(0, LINES)))


BY_END = "its end (A1, wait=20)"
BY_APPEND = "one appended line (A5 as JSON, wait=55)"
FIGURES = [
    Wake("wake-end", 1_000, END, BY_END),
    Wake("wake-end", MANY, END, BY_END),
    Wake("wake-append", 100, APPEND, BY_APPEND, only_plotted=True),
    Wake("wake-append", 300, APPEND, BY_APPEND, only_plotted=True),
    Wake("wake-append", 1_000, APPEND, BY_APPEND),
    Wake("wake-append", 3_000, APPEND, BY_APPEND, only_plotted=True),
    Wake("wake-append", MANY, APPEND, BY_APPEND),
]
