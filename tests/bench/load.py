"""The load generator: many keep-alive connections on bare protocols, so that what is measured is the server.

Nothing here creates a task or a future per request: a closed loop writes the
next request from within the callback that brought the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from tests.bench.wire import ProtocolError, Response, ResponseReader

WAVE = 200  # connections opened at a time: well below any listen backlog
SOURCES = 250  # addresses to connect from, 127.0.0.1 and so on: Linux has some 28,000 ports for each by default
# Of ip(7); the socket module of older Pythons has no name for it. The port is chosen when it is known where to, so that
# one that another server's connection had a moment ago is free.
IP_BIND_ADDRESS_NO_PORT = 24
ANSWER_LIMIT = 30.0  # seconds for any single answer
WARM_UP = 0.5  # seconds of a closed loop that do not count: caches fill and the interpreter specialises


T = TypeVar("T")

_turns = itertools.count()  # across all measurements: closed connections keep their ports for a minute


class LoadError(Exception):
    """A measurement went wrong: a lost connection, an answer that is a failure, or one that came too early."""


class Connection(asyncio.Protocol):
    """One keep-alive connection. Set ``on_response`` (and ``on_failure``) before sending.

    ``on_chunks``, if set, gets the chunks of a chunked body that goes on, as
    they come; the response has only those that came with its end. ``on_data``,
    if set, gets all that comes as it is, and nothing is parsed.
    """

    def __init__(self) -> None:
        self.on_response: Callable[[Connection, Response], None] = _surprise
        self.on_failure: Callable[[Exception], None] = _ignore
        self.on_chunks: Callable[[Connection, list[bytes]], None] | None = None
        self.on_data: Callable[[Connection, bytes], None] | None = None
        self._reader = ResponseReader()
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its class

    def data_received(self, data: bytes) -> None:
        if self.on_data is not None:
            self.on_data(self, data)
            return
        try:
            response = self._reader.feed(data)
            if response is not None:
                self.on_response(self, response)
            elif self.on_chunks is not None and (chunks := self._reader.take_chunks()):
                self.on_chunks(self, chunks)
        except (ProtocolError, LoadError) as error:
            self.on_failure(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()
        _settle(self.closed, None)
        self.on_failure(LoadError(f"the server closed a connection: {exc}"))

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def send(self, data: bytes) -> None:
        """Write to the socket, or to the transport's buffer if that is full."""
        assert self._transport is not None
        self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the transport's buffer has room."""
        await self._writable.wait()

    async def ask(self, request: bytes) -> Response:
        """Send a request and wait for its answer. Raises LoadError unless that is a success."""
        future = self.expect()
        self.send(request)
        return await answer(future)

    def expect(self) -> asyncio.Future[Response]:
        """A future of the next response."""
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self.on_response = lambda _, response: _settle(future, response)
        self.on_failure = lambda error: _fail(future, error)
        return future

    def close(self) -> None:
        """Begin to close the connection; nobody is told but ``closed``."""
        self.on_failure = _ignore
        if self._transport is not None:
            self._transport.abort()


async def answer(future: asyncio.Future[Response]) -> Response:
    """The response, within ANSWER_LIMIT. Raises LoadError if it is no success."""
    return check(await asyncio.wait_for(future, ANSWER_LIMIT))


def check(response: Response) -> Response:
    """The response itself. Raises LoadError if it is no success."""
    if not 200 <= response.status < 300:
        raise LoadError(f"the server answered {response.status}: {response.body[:200]!r}")
    return response


@contextlib.asynccontextmanager
async def connections(port: int, count: int) -> AsyncIterator[list[Connection]]:
    """``count`` open connections to a port of 127.0.0.1, from many source addresses, so that ports never run out."""
    loop = asyncio.get_running_loop()
    opened: list[Connection] = []

    async def open_one() -> None:
        with contextlib.ExitStack() as undo:
            sock = undo.enter_context(_next_socket())
            await loop.sock_connect(sock, ("127.0.0.1", port))
            _, connection = await loop.create_connection(Connection, sock=sock)
            undo.pop_all()  # it is the connection's now
        opened.append(connection)

    try:
        for start in range(0, count, WAVE):
            wave = (open_one() for _ in range(start, min(start + WAVE, count)))
            await asyncio.wait_for(asyncio.gather(*wave), ANSWER_LIMIT)
        yield opened
    finally:
        for connection in opened:
            connection.close()
        if opened:
            # Their descriptors are to be free again before the next server is started.
            await asyncio.wait([connection.closed for connection in opened], timeout=ANSWER_LIMIT)


def _next_socket() -> socket.socket:
    """A socket that connects from the next one of SOURCES."""
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((f"127.0.0.{1 + next(_turns) % SOURCES}", 0))
    return sock


@dataclass(frozen=True)
class Rate:
    """Answers per second, the share of a core that this process used, and the server's CPU seconds per answer."""

    per_second: float
    client_cpu: float
    server_cpu: float


async def closed_loop(
    clients: Sequence[Connection], requests: Sequence[bytes], seconds: float, server_cpu: Callable[[], float]
) -> Rate:
    """Each connection sends its request again and again, as soon as the answer is there, for WARM_UP and ``seconds``.

    ``server_cpu`` tells the CPU seconds that the server has used. Raises LoadError if an answer is no success.
    """
    loop = _ClosedLoop(len(clients))
    for client, request in zip(clients, requests, strict=True):
        client.on_failure = loop.fail
        client.on_response = loop.repeat(request)
        client.send(request)
    await loop.run(WARM_UP)
    count, start, own, server = loop.count, time.perf_counter(), time.process_time(), server_cpu()
    await loop.run(seconds)
    count, elapsed = loop.count - count, time.perf_counter() - start
    own, server = time.process_time() - own, server_cpu() - server
    rate = Rate(count / elapsed, own / elapsed, server / max(1, count))
    loop.stopping = True
    await asyncio.wait_for(loop.idle, ANSWER_LIMIT)
    return rate


@dataclass(frozen=True)
class Paced:
    """Seconds from when each request was due to its whole answer, and the share of a core that this process used."""

    times: list[float]
    client_cpu: float


async def paced_loop(
    clients: Sequence[Connection], requests: Sequence[bytes], seconds: float, per_second: float
) -> Paced:
    """Requests at even intervals, by the connections in turn, for WARM_UP and ``seconds``.

    A connection that is still waiting when its next request is due sends that
    late, and the delay counts: a server that stops for a while is not asked
    less because of it. Raises LoadError if an answer is no success.
    """
    interval = len(clients) / per_second
    begin = time.perf_counter()
    counted, end = begin + WARM_UP, begin + WARM_UP + seconds
    times: list[float] = []

    async def drive(client: Connection, request: bytes, due: float) -> None:
        while due < end:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            await client.ask(request)
            if due >= counted:
                times.append(time.perf_counter() - due)
            due += interval

    cpu = time.process_time()
    starts = (begin + number / per_second for number in range(len(clients)))
    await asyncio.gather(*map(drive, clients, requests, starts))
    return Paced(times, (time.process_time() - cpu) / (time.perf_counter() - begin))


class _ClosedLoop:
    def __init__(self, clients: int) -> None:
        self.count = 0
        self.stopping = False
        self.idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._busy = clients

    def repeat(self, request: bytes) -> Callable[[Connection, Response], None]:
        def again(connection: Connection, response: Response) -> None:
            check(response)
            self.count += 1
            if not self.stopping:
                connection.send(request)
                return
            self._busy -= 1
            if not self._busy:
                _settle(self.idle, None)

        return again

    def fail(self, error: Exception) -> None:
        _fail(self.idle, error)

    async def run(self, seconds: float) -> None:
        """Let it go on; raise if it fails."""
        await asyncio.wait([self.idle], timeout=seconds)
        if self.idle.done():
            self.idle.result()


def _settle(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[T], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _surprise(connection: Connection, response: Response) -> None:
    raise LoadError(f"an answer to nothing: {response.status}")


def _ignore(error: Exception) -> None:
    """What happens to a connection that nobody uses any more does not matter."""
