"""What an append, a poll and a wake cost when much is stored."""

from __future__ import annotations

from tests.bench.figure import CLIENT_CPU, Figure, Goal, Metric, Point, Sample
from tests.bench.load import Connection, closed_loop, connections
from tests.bench.prepared import Stored
from tests.bench.samples import text
from tests.bench.servers import SYNCHRONOUS, Bench, Target
from tests.bench.waiting import Waiters, typical

LINES = 100  # of each stored task
TASKS = (1_000, 10_000, 100_000)
CONNECTIONS = 32
KNOWN, NEW = 1000, 20  # lines of the polled task that the client has already, and lines that it gets
WAITERS = 1000
REPEATS = 5  # wakes on the same connections, of which the median counts


class Growth(Figure):
    """The same work on a large database and on an empty one."""

    beside = "empty database"
    metrics = (
        Metric("append", "append", "µs", more_is_better=False),
        Metric("poll", "poll", "µs", more_is_better=False),
        Metric("wake", "wake", "ms", more_is_better=False),
    )
    goals = (Goal("append", 1.3), Goal("poll", 1.3), Goal("wake", 1.3))
    against = "the same server on an empty database"

    def __init__(self, tasks: int) -> None:
        self.name = f"growth-{tasks}"
        self.note = (
            f"On a database with {tasks:,} tasks and {tasks * LINES:,} lines, 99 in 100 of them ended and sealed, of"
            f" which each measurement gets a copy that is in the page cache. append: one line of 80 bytes to tasks that"
            f" are new, {CONNECTIONS} connections, synchronous={SYNCHRONOUS}; poll: {NEW} new lines of a running task,"
            f" {CONNECTIONS} connections; both are elapsed time by requests. wake: p50 of {WAITERS:,} long polls by one"
            f" append (A5 as JSON), median of {REPEATS}."
        )
        self.connections = WAITERS + CONNECTIONS
        self.point = Point("growth", tasks * LINES)
        self.only_plotted = tasks != max(TASKS)
        self._stored = Stored(tasks, LINES, is_sealed=True)

    async def prepare(self, bench: Bench) -> None:
        await self._stored.folder(bench)

    async def ours(self, bench: Bench) -> Sample:
        async with self._stored.copy(bench) as folder:
            with bench.ours_in(folder) as target:
                return await _measure(bench, target)

    async def yardstick(self, bench: Bench) -> Sample:
        with bench.ours() as target:
            return await _measure(bench, target)


async def _measure(bench: Bench, target: Target) -> Sample:
    async with connections(target.port, CONNECTIONS) as clients:
        for number in range(CONNECTIONS):
            await _create(target, clients[0], f"bench{number:02d}")
        appends = [target.post(f"/v1/tasks/bench{number:02d}/output", text(0, 1)) for number in range(CONNECTIONS)]
        append = await closed_loop(clients, appends, bench.seconds, target.cpu)
        await _create(target, clients[0], "polled")
        await clients[0].ask(target.post("/v1/tasks/polled/output", text(0, KNOWN + NEW)))
        polls = [target.get(f"/v1/tasks/polled?first={KNOWN}")] * CONNECTIONS
        poll = await closed_loop(clients, polls, bench.seconds, target.cpu)
        await _create(target, clients[0], "waited")
        wake = await _wake(target, clients[0])
    return {
        "append": 1e6 / append.per_second,
        "poll": 1e6 / poll.per_second,
        "wake": wake,
        CLIENT_CPU: max(append.client_cpu, poll.client_cpu),
    }


async def _wake(target: Target, producer: Connection) -> float:
    """Milliseconds until half of the waiters have the line."""
    woken = []
    async with connections(target.port, WAITERS) as clients:
        waiters = Waiters(target, clients)
        for turn in range(REPEATS):
            await waiters.begin(target.get(f"/v1/tasks/waited/output?first={turn}&wait=55"))
            woken.append(await waiters.wake(producer, target.post("/v1/tasks/waited/output", text(turn, 1))))
    return typical(woken)["p50"]


async def _create(target: Target, client: Connection, task: str) -> None:
    await client.ask(target.post("/v1/tasks", b'{"id": "%s"}' % task.encode(), "application/json"))


FIGURES = [Growth(tasks) for tasks in TASKS]
