"""Waiting for a run's end: one line each ``interval``, the last one at once (PROTOCOLS.md, B3)."""

from __future__ import annotations

import logging

from aiohttp import web

from taskserver.api.airflow.audience import Audience, Audiences, Selection
from taskserver.api.airflow.linestream import LineStream
from taskserver.api.airflow.runs import find_run
from taskserver.api.airflow.schemas import WaitQuery
from taskserver.api.airflow.shapes import last_line, state_line
from taskserver.dagmodel import Run
from taskserver.errors import Draining, TaskServerError
from taskserver.waiting import Wait
from taskserver.web.context import caller, services
from taskserver.web.streaming import LIVE, abort
from taskserver.web.validation import load_query

log = logging.getLogger(__name__)

MIN_INTERVAL = 0.05  # seconds; a client that asks for less would keep the server busy with saying nothing

WAIT_QUERY = WaitQuery()


class Waiting:
    """The endpoint, and who waits at it."""

    def __init__(self) -> None:
        self._audiences = Audiences()

    async def wait_run(self, request: web.Request) -> web.StreamResponse:
        """Lines with a run's state until it has ended; the last one has the results.

        The end comes at once, whatever the interval.
        """
        args = load_query(request, WAIT_QUERY)
        wanted = _selection(args["result"])
        run = await find_run(request)
        if run.finished:
            line = last_line(run, await services(request).runs.results(run, wanted))
            return await _whole(request, line)
        if request.method == "HEAD":
            return await _whole(request, b"")
        return await self._wait(request, run, wanted, max(args["interval"], MIN_INTERVAL))

    async def _wait(self, request: web.Request, run: Run, wanted: Selection, interval: float) -> web.StreamResponse:
        core, who = services(request), caller(request)
        if core.waits.draining:
            raise Draining("the server is shutting down")
        stream = LineStream(headers=LIVE)
        with (
            self._audiences.seat(core, who, run.id, wanted) as audience,
            core.waits.open(who, audience.topic) as wait,
        ):
            await stream.prepare(request)
            try:
                await stream.write(state_line(run.state))
                audience.add(stream)
                await _follow(stream, audience, wait, interval)
            except ConnectionError:
                if request.transport is not None:
                    request.transport.close()  # behind what is written, and before anybody ends the body
                raise
            except Exception as error:  # the run or the key is gone, or the store has failed
                if not isinstance(error, TaskServerError):
                    log.error("a wait failed", exc_info=error)
                abort(request)
                raise ConnectionResetError("the wait broke off") from None
            finally:
                audience.discard(stream)
        return stream


async def _whole(request: web.Request, line: bytes) -> web.StreamResponse:
    """An answer that needs no waiting."""
    stream = LineStream(headers=LIVE)
    await stream.prepare(request)
    await stream.write_eof(b"" if request.method == "HEAD" else line)
    return stream


async def _follow(stream: LineStream, audience: Audience, wait: Wait, interval: float) -> None:
    """Write a line each interval until the audience is told.

    Raises ConnectionResetError when the server drains: a wait that has no end
    yet must not look as if it had one.
    """

    async def look() -> tuple[Run | None, bool]:
        if stream.ended:
            return None, True
        run = await audience.run()
        return run, run.finished and audience.over

    while True:
        run, done = await wait.until(interval, look)
        if run is None:
            return
        if done or (run.finished and audience.draining):
            audience.discard(stream)
            await stream.write(await audience.last_line(run))
            return
        if not run.finished:  # if it is: the audience is about to be told
            await stream.write(state_line(run.state))
        if audience.draining:
            raise ConnectionResetError("the server is shutting down")


def _selection(result: list[str] | None) -> Selection:
    """``?result=a&result=b``: these; ``?result=``: none; absent: None, which means those that the dag marks."""
    return None if result is None else tuple(sorted({task_id for task_id in result if task_id}))
