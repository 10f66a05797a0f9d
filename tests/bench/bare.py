"""The yardstick's server: aiohttp and uvloop set up as ours, and handlers that do nothing but answer.

`python -m tests.bench.bare` prints its port and serves until it is killed.
Routes are plain paths (the cheapest kind), there is no middleware, no key is
checked, and the answer's bytes stand ready: it is as fast as aiohttp can be.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import uvloop
from aiohttp import web

from taskserver.config import KIB, LISTEN_BACKLOG

HEADERS = {"Cache-Control": "no-store", "Content-Type": "application/json; charset=utf-8"}
STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Incremental": "?1"}
MAX_BODY = 8 * 1024 * 1024  # as ours
PIECE = 64 * KIB  # of a streamed answer
SSE_BEGIN = b"retry: 1000\n:\n"  # as ours to a follower for whom there is nothing yet


class Bare:
    """Handlers around one answer and one event."""

    def __init__(self) -> None:
        self._answer = b"{}"
        self._event = asyncio.Event()

    async def set_answer(self, request: web.Request) -> web.Response:
        """Take the body as the answer to everything from now on."""
        self._answer = await request.read()
        return web.Response()

    async def set_answer_from(self, request: web.Request) -> web.Response:
        """Take what is in the file that the body names."""
        self._answer = await asyncio.to_thread(Path(await request.text()).read_bytes)
        return web.Response()

    async def get(self, request: web.Request) -> web.Response:
        """Answer at once."""
        return web.Response(body=self._answer, headers=HEADERS)

    async def post(self, request: web.Request) -> web.Response:
        """Read the body and answer."""
        await request.read()
        return web.Response(body=self._answer, headers=HEADERS)

    async def wait(self, request: web.Request) -> web.Response:
        """A long poll without time limit."""
        await self._event.wait()
        return web.Response(body=self._answer, headers=HEADERS)

    async def wake(self, request: web.Request) -> web.Response:
        """Answer all that wait now, and let the next ones wait again."""
        await request.read()
        self._event.set()
        self._event = asyncio.Event()
        return web.Response(body=self._answer, headers=HEADERS)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """The answer in pieces, from memory."""
        response = web.StreamResponse(headers={**STREAM_HEADERS, "Content-Type": "text/plain; charset=utf-8"})
        await response.prepare(request)
        answer = memoryview(self._answer)
        for start in range(0, len(answer), PIECE):
            await response.write(answer[start : start + PIECE])
        await response.write_eof()
        return response

    async def ticks(self, request: web.Request) -> web.StreamResponse:
        """The answer's first line at once and then each ``interval`` seconds, and its second one at the wake.

        The ticks come from a task of their own, so that they and the wake cost as little as they can: one does not
        look at the event, the other not at the clock.
        """
        event, interval = self._event, float(request.query["interval"])
        tick, last = self._answer.splitlines(keepends=True)
        response = web.StreamResponse(headers={**STREAM_HEADERS, "Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        await response.write(tick)
        ticking = asyncio.create_task(_repeat(response, tick, interval))
        try:
            await event.wait()
        finally:
            ticking.cancel()
        await response.write_eof(last)
        return response

    async def events(self, request: web.Request) -> web.StreamResponse:
        """A stream of server-sent events: the answer at each wake, for ever."""
        response = web.StreamResponse(headers={**STREAM_HEADERS, "Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(SSE_BEGIN)
        while True:
            await self._event.wait()
            await response.write(self._answer)


async def _repeat(response: web.StreamResponse, line: bytes, interval: float) -> None:
    while True:
        await asyncio.sleep(interval)
        await response.write(line)


async def serve() -> None:
    """Serve until the process is killed."""
    bare = Bare()
    app = web.Application(client_max_size=MAX_BODY)
    app.router.add_put("/answer", bare.set_answer)
    app.router.add_put("/answer-from", bare.set_answer_from)
    app.router.add_get("/get", bare.get)
    app.router.add_post("/post", bare.post)
    app.router.add_get("/wait", bare.wait)
    app.router.add_post("/wake", bare.wake)
    app.router.add_get("/stream", bare.stream)
    app.router.add_get("/ticks", bare.ticks)
    app.router.add_get("/events", bare.events)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=LISTEN_BACKLOG).start()
    print(runner.addresses[0][1], flush=True)  # noqa: T201 - the port is this program's output
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve())
