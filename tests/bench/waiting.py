"""Many clients that wait for the same thing, by long polls or on streams: opened, settled, and woken."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.bench.figure import CLIENT_CPU, Metric
from tests.bench.load import ANSWER_LIMIT, Connection, LoadError, check
from tests.bench.servers import Target
from tests.bench.summary import percentile
from tests.bench.wire import Response

SETTLE_STEP = 0.25  # seconds between two looks at the server's CPU time
SETTLE_IDLE = 0.02  # seconds of CPU within a step that count as idle: two ticks of the kernel's clock
SETTLE_LIMIT = 15.0  # below the 20 s that a client may wait for a task's end
# Seconds after the last client's first line: what ticks never lets a server come to rest. No whole number, so that what
# is measured from then on begins between the lines of those that tick together.
STREAM_REST = 1.5

LATENCIES = (
    Metric("p50", "p50", "ms", more_is_better=False),
    Metric("p99", "p99", "ms", more_is_better=False),
    Metric("max", "max", "ms", more_is_better=False),
)


@dataclass(frozen=True)
class Woken:
    """Seconds from the producer's request to each answer's last byte, sorted, and this process' share of a core."""

    latencies: list[float]
    client_cpu: float


def typical(woken: Sequence[Woken]) -> dict[str, float]:
    """A sample of LATENCIES: the medians of some wakes, and the client's largest share of a core."""

    def median(of: Callable[[list[float]], float]) -> float:
        return 1000 * statistics.median(of(one.latencies) for one in woken)

    return {
        "p50": median(lambda latencies: percentile(latencies, 0.50)),
        "p99": median(lambda latencies: percentile(latencies, 0.99)),
        "max": median(max),
        CLIENT_CPU: max(one.client_cpu for one in woken),
    }


class Waiters:
    """Clients that wait for the same thing, a long poll each."""

    def __init__(self, target: Target, clients: list[Connection]) -> None:
        self._target = target
        self._clients = clients
        self._times: list[float] = []
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def begin(self, request: bytes) -> None:
        """Send the request on every connection; return when the server has nothing left to do but wait.

        Raises LoadError if it does not come to rest, or answers before it was woken.
        """
        for client in self._clients:
            client.on_response = self._answered
            client.on_failure = self._failed
            client.send(request)
        await settle(self._target)
        self.check_waiting()

    def check_waiting(self) -> None:
        """Raise LoadError unless every client still waits."""
        if self._done.done():
            self._done.result()
        if self._times:
            raise LoadError(f"{len(self._times)} of {len(self._clients)} clients were answered before the wake")

    async def wake(self, producer: Connection, request: bytes) -> Woken:
        """Send the producer's request and wait until every client has its whole answer. May be called again."""
        acknowledged = producer.expect()
        cpu, start = time.process_time(), time.perf_counter()
        producer.send(request)
        await asyncio.wait_for(self._done, ANSWER_LIMIT)
        elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu
        check(await asyncio.wait_for(acknowledged, ANSWER_LIMIT))
        latencies = [moment - start for moment in self._times]
        self._times = []
        self._done = asyncio.get_running_loop().create_future()
        return Woken(latencies, cpu / elapsed)

    def _answered(self, connection: Connection, response: Response) -> None:
        self._told()
        check(response)

    def _told(self) -> None:
        self._times.append(time.perf_counter())
        if len(self._times) == len(self._clients) and not self._done.done():
            self._done.set_result(None)

    def _failed(self, error: Exception) -> None:
        if not self._done.done():
            self._done.set_exception(error)


class LightWaiters(Waiters):
    """Waiters whose answers are counted by their bytes only, where reading so many would be what is measured.

    ``like`` is an answer of the length and the status that all of them must have.
    """

    def __init__(self, target: Target, clients: list[Connection], like: bytes) -> None:
        super().__init__(target, clients)
        self._status, _, _ = like.partition(b"\r\n")
        self._size = len(like)
        self._begun: dict[Connection, int] = {}  # bytes of answers of which a part is still to come

    async def begin(self, request: bytes) -> None:
        for client in self._clients:
            client.on_data = self._received
        await super().begin(request)

    def _received(self, connection: Connection, data: bytes) -> None:
        begun = self._begun.pop(connection, 0)
        if not begun and not data.startswith(self._status):
            self._failed(LoadError(f"an answer is not like the others: {data[:200]!r}"))
        elif begun + len(data) == self._size:
            self._told()
        else:
            self._begun[connection] = begun + len(data)


class Streams(Waiters):
    """Clients that read streams. They are told by the stream's end, or by ``event`` if there is one.

    ``last`` (or ``event``) is what they must be told, as it ends the stream (or
    a chunk). ``parts`` counts the chunks that have come, of all clients.
    """

    def __init__(
        self, target: Target, clients: list[Connection], *, last: bytes | None = None, event: bytes | None = None
    ) -> None:
        super().__init__(target, clients)
        self._last = last
        self._event = event
        self._begun: set[Connection] = set()
        self._all_begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.parts = 0

    async def begin_each(self, requests: Sequence[bytes]) -> None:
        """Send a request on each connection; return a while after every client has the beginning of its stream.

        Raises LoadError if a stream ends or tells too early.
        """
        self._begun = set()
        self._all_begun = asyncio.get_running_loop().create_future()
        for client, request in zip(self._clients, requests, strict=True):
            client.on_response = self._answered
            client.on_chunks = self._received
            client.on_failure = self._failed
            client.send(request)
        await asyncio.wait([self._all_begun, self._done], timeout=ANSWER_LIMIT, return_when=asyncio.FIRST_COMPLETED)
        if not self._all_begun.done() and not self._done.done():
            raise LoadError(f"{len(self._begun)} of {len(self._clients)} streams began within {ANSWER_LIMIT:.0f} s")
        await asyncio.sleep(STREAM_REST)
        self.check_waiting()

    def _received(self, connection: Connection, chunks: list[bytes]) -> None:
        if self._event is not None and chunks[-1].endswith(self._event):
            self._told()
        self.parts += len(chunks)
        if len(self._begun) < len(self._clients):
            self._begun.add(connection)
            if len(self._begun) == len(self._clients):
                self._all_begun.set_result(None)

    def _answered(self, connection: Connection, response: Response) -> None:
        if self._last is None or not response.body.endswith(self._last):
            raise LoadError(f"a stream ended with {response.body[-200:]!r}")
        super()._answered(connection, response)


async def settle(target: Target) -> None:
    """Return when the server idles. Raises LoadError if it does not come to rest."""
    deadline = time.monotonic() + SETTLE_LIMIT
    before = target.cpu()
    while time.monotonic() < deadline:
        await asyncio.sleep(SETTLE_STEP)
        after = target.cpu()
        if after - before <= SETTLE_IDLE:
            return
        before = after
    raise LoadError(f"the server was still busy {SETTLE_LIMIT:.0f} s after the last request")
