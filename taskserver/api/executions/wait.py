"""Wait for an execution's end (PROTOCOLS.md, C3)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from aiohttp import web

from taskserver.api.executions.answers import JSON, STATUS, json_answer, statistics
from taskserver.api.executions.executions import find_execution
from taskserver.api.executions.schemas import WaitBody
from taskserver.dagmodel import Run
from taskserver.errors import Draining
from taskserver.jsontext import dumps
from taskserver.web.context import caller, services
from taskserver.web.requests import leave_untimed
from taskserver.web.streaming import LIVE, stream
from taskserver.web.validation import load_body

WAIT = WaitBody()

Beats = AsyncGenerator[tuple[Run, bool], None]


async def wait_execution(request: web.Request) -> web.StreamResponse:
    """Answer when the execution has ended or the time is up.

    A wait that takes longer than a heartbeat is answered in parts: whitespace,
    which JSON allows before a value, and then the answer.
    """
    began = asyncio.get_running_loop().time()
    timeout = (await load_body(request, WAIT))["timeout"]
    if services(request).waits.draining:
        raise Draining("the server is shutting down; ask again")
    run = await find_execution(request)
    if run.finished:
        return json_answer(await _answer(request, run, began))
    leave_untimed(request)
    heartbeat = services(request).settings.timing.heartbeat
    async with aclosing(services(request).runs.beats(caller(request), run.id, timeout, heartbeat)) as beats:
        run, over = await anext(beats)
        if over:
            return json_answer(await _answer(request, run, began))
        async with aclosing(_late(request, beats, began)) as parts:
            return await stream(request, parts, JSON, LIVE)


async def _late(request: web.Request, beats: Beats, began: float) -> AsyncGenerator[bytes, None]:
    """The answer's parts after the first heartbeat."""
    yield b" "
    async for run, over in beats:
        yield dumps(await _answer(request, run, began)) if over else b" "


async def _answer(request: web.Request, run: Run, began: float) -> dict[str, Any]:
    stats = await services(request).runs.stats(caller(request), run)
    return {
        "completed": run.finished,
        "execution_id": str(run.id),
        "status": STATUS[run.state],
        "duration_ms": round((asyncio.get_running_loop().time() - began) * 1000),
        "message": _message(run, services(request).waits.draining),
        "stats": statistics(run, stats),
    }


def _message(run: Run, draining: bool) -> str:
    if run.finished:
        return f"execution {STATUS[run.state]}"
    return "the server is shutting down; ask again" if draining else "the time is up; the execution goes on"
