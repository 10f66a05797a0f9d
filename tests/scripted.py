"""A server that answers what a test tells it to: for clients that must live with any answer, and with none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

CUT = web.Response()  # in the place of an answer: the connection breaks
HALF = web.Response()  # and here it breaks within the answer


@dataclass
class Script:
    """Answers in the order in which they are given, and the requests that came for them.

    When there are no answers left, the last one is given again.
    """

    answers: list[web.Response]
    requests: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.Response:
        """Give the next answer."""
        self.requests.append(f"{request.method} {request.raw_path}")
        self.bodies.append(await request.read())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is CUT or answer is HALF:
            if answer is HALF:
                begun = web.StreamResponse(headers={"Content-Length": "1000"})
                await begun.prepare(request)
                await begun.write(b"[")
            assert request.transport is not None
            request.transport.close()  # what has been written still leaves
            raise ConnectionResetError
        # A response is sent once, so the one in the script stays as it is.
        return web.Response(body=answer.body, status=answer.status, headers=answer.headers)


@asynccontextmanager
async def scripted(*answers: web.Response) -> AsyncIterator[Script]:
    """A server with this script."""
    script = Script(list(answers))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", script.handle)
    async with TestServer(app, host="127.0.0.1") as server:
        script.url = f"http://127.0.0.1:{server.port}"
        yield script


def answer(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer in JSON."""
    return web.json_response(body, status=status, headers=headers)


def refusal(
    status: int, code: int = 1, error: str = "no", payload: Any = None, retry_after: int | None = None
) -> web.Response:
    """An error in the shape of the tasks room."""
    headers = None if retry_after is None else {"Retry-After": str(retry_after)}
    return answer({"code": code, "error": error, "payload": payload}, status, headers)
