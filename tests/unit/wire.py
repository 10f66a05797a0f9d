"""A bare aiohttp server around one handler, and a client whose bytes the test writes itself."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import trustme
from aiohttp import web

LIMIT = 20.0  # seconds for anything that a test waits for; reached only by a failure

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Heard:
    """One answer."""

    version: str
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    def ask(self, path: str = "/", *headers: str, method: str = "GET", version: str = "1.1") -> None:
        """Send a request and wait for nothing."""
        lines = [f"{method} {path} HTTP/{version}", "Host: x", *headers, "", ""]
        self.writer.write("\r\n".join(lines).encode())

    async def head(self) -> list[str]:
        """The next answer's status line and headers."""
        head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), LIMIT)
        return head.decode().removesuffix("\r\n\r\n").split("\r\n")

    async def answer(self, *, head_only: bool = False) -> Heard:
        """The next answer, by its Content-Length."""
        status, *lines = await self.head()
        version, number, _ = status.split(" ", 2)
        headers = dict(line.split(": ", 1) for line in lines)
        length = 0 if head_only else int(headers["Content-Length"])
        return Heard(version, int(number), headers, await self.read(length))

    async def read(self, size: int) -> bytes:
        """So many bytes, whatever they are."""
        return await asyncio.wait_for(self._reader.readexactly(size), LIMIT)

    async def chunk(self) -> bytes:
        """The next chunk of a chunked body; empty at its end."""
        size = int(await asyncio.wait_for(self._reader.readline(), LIMIT), 16)
        data = await self.read(size + 2)
        assert data.endswith(b"\r\n")
        return data[:-2]

    async def rest(self) -> bytes:
        """What comes until the server closes the connection."""
        return await asyncio.wait_for(self._reader.read(), LIMIT)

    def leave(self) -> None:
        """Break the connection off."""
        self.writer.transport.abort()


@dataclass(frozen=True)
class Wire:
    """The server."""

    port: int
    trust: ssl.SSLContext | None

    @contextlib.asynccontextmanager
    async def connect(self, receive_buffer: int | None = None) -> AsyncIterator[Client]:
        """A connection. ``receive_buffer``: about so many bytes the kernel keeps of what is not read."""
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        name = None if self.trust is None else "localhost"
        # A small limit: the client is not to read ahead of the test.
        reader, writer = await asyncio.open_connection(sock=sock, ssl=self.trust, server_hostname=name, limit=4096)
        try:
            yield Client(reader, writer)
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await asyncio.wait_for(writer.wait_closed(), LIMIT)


@contextlib.asynccontextmanager
async def serving(handler: Handler, *, tls: bool = False, log: bool = False) -> AsyncIterator[Wire]:
    """A server as ours is set up, with ``handler`` for everything."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    access_log = web.access_logger if log else None  # type: ignore[attr-defined]
    runner = web.AppRunner(app, handler_cancellation=True, access_log=access_log, shutdown_timeout=1)
    await runner.setup()
    server_side = trust = None
    if tls:
        authority = trustme.CA()
        server_side, trust = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
        authority.issue_cert("localhost").configure_cert(server_side)
        authority.configure_trust(trust)
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_side).start()
        yield Wire(runner.addresses[0][1], trust)
    finally:
        await runner.cleanup()
