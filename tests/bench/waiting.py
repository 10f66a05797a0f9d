"""Many long polls on one task: opened, settled, and woken."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from tests.bench.load import ANSWER_LIMIT, Connection, LoadError, check
from tests.bench.servers import Target
from tests.bench.wire import Response

SETTLE_STEP = 0.25  # seconds between two looks at the server's CPU time
SETTLE_IDLE = 0.02  # seconds of CPU within a step that count as idle: two ticks of the kernel's clock
SETTLE_LIMIT = 15.0  # below the 20 s that a client may wait for a task's end


@dataclass(frozen=True)
class Woken:
    """Seconds from the producer's request to each answer's last byte, sorted, and this process' share of a core."""

    latencies: list[float]
    client_cpu: float


class Waiters:
    """Clients that wait for the same thing, a request each."""

    def __init__(self, target: Target, clients: list[Connection]) -> None:
        self._target = target
        self._clients = clients
        self._times: list[float] = []
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def begin(self, request: bytes) -> None:
        """Send the request on every connection; return when the server has nothing left to do but wait.

        Raises LoadError if it does not come to rest, or answers before it was woken.
        """
        self._times = []
        self._done = asyncio.get_running_loop().create_future()
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
            raise LoadError(f"{len(self._times)} of {len(self._clients)} long polls were answered before the wake")

    async def wake(self, producer: Connection, request: bytes) -> Woken:
        """Send the producer's request and wait until every client has its whole answer."""
        acknowledged = producer.expect()
        cpu, start = time.process_time(), time.perf_counter()
        producer.send(request)
        await asyncio.wait_for(self._done, ANSWER_LIMIT)
        elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu
        check(await asyncio.wait_for(acknowledged, ANSWER_LIMIT))
        return Woken([moment - start for moment in self._times], cpu / elapsed)

    def _answered(self, connection: Connection, response: Response) -> None:
        self._times.append(time.perf_counter())
        check(response)
        if len(self._times) == len(self._clients) and not self._done.done():
            self._done.set_result(None)

    def _failed(self, error: Exception) -> None:
        if not self._done.done():
            self._done.set_exception(error)


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
