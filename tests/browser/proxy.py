"""A proxy as people put one before a server: below a path prefix, which it takes away, and with a Host of its own.

``python -m tests.browser.proxy PREFIX UPSTREAM`` prints the port that it listens on.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, web

PER_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host"}
PREFIX, UPSTREAM = web.AppKey("prefix", str), web.AppKey("upstream", str)
SESSION = web.AppKey("session", ClientSession)


async def pass_on(request: web.Request) -> web.StreamResponse:
    """A request and its answer, each part as it comes."""
    path = request.raw_path.removeprefix(request.app[PREFIX])
    headers = [(name, value) for name, value in request.headers.items() if name.lower() not in PER_HOP]
    body = request.content.iter_any() if request.body_exists else None
    url = f"{request.app[UPSTREAM]}/{path}"
    try:
        async with request.app[SESSION].request(
            request.method, url, headers=headers, data=body, allow_redirects=False
        ) as answer:
            response = web.StreamResponse(status=answer.status)
            response.headers.extend(
                (name, value) for name, value in answer.headers.items() if name.lower() not in PER_HOP
            )
            await response.prepare(request)
            async for part in answer.content.iter_any():
                await response.write(part)
            await response.write_eof()
            return response
    except (ClientError, OSError):
        return web.Response(status=502, text="<h1>Bad Gateway</h1>", content_type="text/html")


async def with_session(app: web.Application) -> AsyncIterator[None]:
    """The connections to the server."""
    async with ClientSession(
        cookie_jar=DummyCookieJar(), auto_decompress=False, timeout=ClientTimeout(total=None)
    ) as session:
        app[SESSION] = session
        yield


async def serve(prefix: str, upstream: str) -> None:
    """Serve until the process is ended."""
    app = web.Application()
    app[PREFIX], app[UPSTREAM] = prefix, upstream
    app.cleanup_ctx.append(with_session)
    app.router.add_route("*", prefix + "{path:.*}", pass_on)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
