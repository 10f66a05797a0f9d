"""Waiting for a run's end: one line each ``interval``, the last one at once (PROTOCOLS.md, B3)."""

from __future__ import annotations

import logging
from functools import partial

from aiohttp import web

from taskserver.api.airflow.audience import LineStream, RunEnd, Selection, end_line
from taskserver.api.airflow.runs import find_run
from taskserver.api.airflow.schemas import WaitQuery
from taskserver.api.airflow.shapes import state_line
from taskserver.dagmodel import Run
from taskserver.errors import Draining, TaskServerError
from taskserver.keys import Caller
from taskserver.meters import Waiter
from taskserver.runs import run_topic
from taskserver.web.context import Services, caller, services
from taskserver.web.requests import fields_of, leave_untimed
from taskserver.web.seats import StreamSeat
from taskserver.web.streaming import LIVE, abort
from taskserver.web.validation import load_query

log = logging.getLogger(__name__)

MIN_INTERVAL = 0.05  # seconds; a client that asks for less would keep the server busy with saying nothing

WAIT_QUERY = WaitQuery()


async def wait_run(request: web.Request) -> web.StreamResponse:
    """Lines with a run's state until it has ended; the last one has the results.

    The end comes at once, whatever the interval.
    """
    args = load_query(request, WAIT_QUERY)
    wanted = _selection(args["result"])
    run = await find_run(request)
    if run.finished:
        return await _whole(request, await end_line(services(request), run, wanted))
    if request.method == "HEAD":
        return await _whole(request, b"")
    return await _wait(request, run, wanted, max(args["interval"], MIN_INTERVAL))


async def _wait(request: web.Request, run: Run, wanted: Selection, interval: float) -> web.StreamResponse:
    core = services(request)
    if core.waits.draining:
        raise Draining("the server is shutting down")
    leave_untimed(request)
    stream = LineStream(headers=LIVE)
    seat = StreamSeat(caller(request), request)
    core.audiences.join(("run", run.id, wanted), seat, partial(RunEnd, core, run.id, wanted))
    try:
        await stream.prepare(request)
        await _follow(request, stream, run, wanted, seat, interval)
        await stream.write_eof()
    except ConnectionError:
        if request.transport is not None:
            request.transport.close()  # behind what is written, and before anybody ends the body
        raise
    except Exception as error:  # the run or the key is gone, or the store has failed
        if not isinstance(error, TaskServerError):
            log.error("a wait failed", exc_info=error, extra={"fields": fields_of(request)})
        abort(request)
        raise ConnectionResetError("the wait broke off") from None
    finally:
        seat.leave()
    return stream


async def _follow(
    request: web.Request, stream: LineStream, run: Run, wanted: Selection, seat: StreamSeat, interval: float
) -> None:
    """Write a line each interval until the run has ended, unless the audience is told of its end.

    Raises ConnectionResetError when the server drains: a wait that has no end
    yet must not look as if it had one.
    """
    core, who = services(request), caller(request)
    while True:
        if not run.finished:  # if it is, the audience is about to be told
            await stream.write(state_line(run.state))
        if core.waits.draining:
            raise ConnectionResetError("the server is shutting down")
        await seat.wait(interval)
        if seat.ended:
            return
        if seat.adrift:
            seat.leave()
            run = await _alone(core, who, run, interval)
        else:
            run = await core.runs.get(who, run.id)
        if run.finished and (seat.adrift or core.waits.draining):
            seat.leave()
            await stream.write(await end_line(core, run, wanted))
            return


async def _alone(core: Services, who: Caller, run: Run, interval: float) -> Run:
    """The run after an interval, or at its end: for a wait whose audience is over, since that could not look."""

    async def look() -> tuple[Run, bool]:
        now = await core.runs.get(who, run.id)
        return now, now.finished

    return await core.waits.until(who, run_topic(run.id), interval, look, Waiter.RUN)


async def _whole(request: web.Request, line: bytes) -> web.StreamResponse:
    """An answer that needs no waiting."""
    stream = LineStream(headers=LIVE)
    await stream.prepare(request)
    await stream.write_eof(b"" if request.method == "HEAD" else line)
    return stream


def _selection(result: list[str] | None) -> Selection:
    """``?result=a&result=b``: these; ``?result=``: none; absent: None, which means those that the dag marks."""
    return None if result is None else tuple(sorted({task_id for task_id in result if task_id}))
