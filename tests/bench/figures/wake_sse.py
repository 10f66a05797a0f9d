"""Waking many followers of one task at once."""

from __future__ import annotations

from tests.bench.figure import Figure, Goal, Metric, Sample, Yardstick
from tests.bench.load import Connection, connections
from tests.bench.rivals import EVENT_STREAM, nchan, publish_event
from tests.bench.samples import text
from tests.bench.servers import Bench, Target
from tests.bench.waiting import LATENCIES, Streams, typical

LINES = 20  # of the task before the wait; the followers have read them
REPEATS = 5  # appends to the same followers, of which the median counts
WARM_UP_REQUESTS = 200  # before memory is looked at
MANY = 10_000  # followers for whom there is a goal
NCHAN = (
    "EventSource subscribers of nginx' nchan module (one worker), the published message being the same data under the"
    " same event name; it is kept in memory and stored nowhere"
)
APPEND = text(LINES, 1)
DATA = b"\ndata: "
STREAM = f"/v1/tasks/%s/output?format=sse&first={LINES}"


class WakeSse(Figure):
    """How soon all who follow the same task have its next line."""

    against = (
        "bare aiohttp handlers that stream the same event, prepared, each time one asyncio.Event is set by a POST that"
        " stores nothing; they send no comments while nothing happens"
    )
    metrics = (*LATENCIES, Metric("memory", "memory per follower", "KiB", more_is_better=False))

    def __init__(self, followers: int) -> None:
        self.name = f"wake-sse-{followers}"
        self.note = (
            "Followers of one task by SSE (A5), a connection each, woken by one appended line: from the sending of the"
            " producer's request, which ours makes durable first, to the last byte of each client's event; median of"
            f" {REPEATS} appends a round. Memory: as for the long polls."
        )
        self.connections = followers + 1
        self._followers = followers
        self._event = b""

    def yardsticks(self, bench: Bench) -> list[Yardstick]:
        found = [*super().yardsticks(bench)]
        if bench.nginx is not None:
            found.append(Yardstick("nchan", NCHAN, self._nchan, (Goal("p99", 1.2),) if self._followers == MANY else ()))
        return found

    async def ours(self, bench: Bench) -> Sample:
        with bench.ours() as target:
            async with connections(target.port, 1) as (producer,):
                for task in ("probe", "bench"):
                    await producer.ask(target.post("/v1/tasks", b'{"id": "%s"}' % task.encode(), "application/json"))
                    await producer.ask(target.post(f"/v1/tasks/{task}/output", text(0, LINES)))
                append = "/v1/tasks/%s/output"
                await producer.ask(target.post(append % "probe", APPEND))
                await producer.ask(target.post("/v1/tasks/probe/finish", b'{"code": 0}', "application/json"))
                seen = (await producer.ask(target.get(STREAM % "probe"))).body
                self._event = seen[seen.index(b"id: ") : seen.index(b"\n\n") + 2]
                warm_up = target.get(f"/v1/tasks/bench?first={LINES}")
                return await self._measure(
                    target, producer, warm_up, target.get(STREAM % "bench"), target.post(append % "bench", APPEND)
                )

    async def yardstick(self, bench: Bench) -> Sample:
        with bench.bare() as target:
            async with connections(target.port, 1) as (producer,):
                await target.set_answer(producer, self._event)
                return await self._measure(
                    target, producer, target.get("/get"), target.get("/events"), target.post("/wake", APPEND)
                )

    async def _nchan(self, bench: Bench) -> Sample:
        with nchan(bench) as target:
            async with connections(target.port, 1) as (producer,):
                publish = publish_event(target, "/publish/bench", self._data())
                return await self._measure(
                    target, producer, target.get("/get"), target.get("/events/bench", EVENT_STREAM), publish
                )

    def _data(self) -> bytes:
        """What stands in the event."""
        return self._event[self._event.index(DATA) + len(DATA) : -2]

    async def _measure(
        self, target: Target, producer: Connection, warm_up: bytes, follow: bytes, append: bytes
    ) -> Sample:
        for _ in range(WARM_UP_REQUESTS):
            await producer.ask(warm_up)
        idle = target.rss()
        async with connections(target.port, self._followers) as clients:
            # The ids go on from append to append, and nchan has them behind the event's name: the data are the same.
            streams = Streams(target, clients, event=DATA + self._data() + b"\n\n")
            await streams.begin_each([follow] * self._followers)
            memory = target.rss() - idle
            woken = [await streams.wake(producer, append) for _ in range(REPEATS)]
            streams.check_waiting()
        return {**typical(woken), "memory": memory / self._followers / 1024}


FIGURES = [WakeSse(1_000), WakeSse(10_000)]
