"""The yardstick's server: aiohttp and uvloop set up as ours, and handlers that do nothing but answer.

`python -m tests.bench.bare` prints its port and serves until it is killed.
Routes are plain paths (the cheapest kind), there is no middleware, no key is
checked, and the answer's bytes stand ready: it is as fast as aiohttp can be.
"""

from __future__ import annotations

import asyncio

import uvloop
from aiohttp import web

from taskserver.config import LISTEN_BACKLOG

HEADERS = {"Cache-Control": "no-store", "Content-Type": "application/json; charset=utf-8"}
MAX_BODY = 8 * 1024 * 1024  # as ours


class Bare:
    """Handlers around one answer and one event."""

    def __init__(self) -> None:
        self._answer = b"{}"
        self._event = asyncio.Event()

    async def set_answer(self, request: web.Request) -> web.Response:
        """Take the body as the answer to everything from now on."""
        self._answer = await request.read()
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


async def serve() -> None:
    """Serve until the process is killed."""
    bare = Bare()
    app = web.Application(client_max_size=MAX_BODY)
    app.router.add_put("/answer", bare.set_answer)
    app.router.add_get("/get", bare.get)
    app.router.add_post("/post", bare.post)
    app.router.add_get("/wait", bare.wait)
    app.router.add_post("/wake", bare.wake)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=LISTEN_BACKLOG).start()
    print(runner.addresses[0][1], flush=True)  # noqa: T201 - the port is this program's output
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve())
