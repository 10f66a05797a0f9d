"""Follow an execution's tasks as server-sent events (PROTOCOLS.md, C4)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from functools import partial

from aiohttp import web

from taskserver.api.executions.answers import STATUS, error_info, statistics
from taskserver.api.executions.executions import find_execution
from taskserver.api.executions.schemas import EventsQuery
from taskserver.api.executions.sse import encode_end, encode_events, encode_timeout
from taskserver.dagmodel import Run
from taskserver.jsontext import dumps
from taskserver.runs import EventPage
from taskserver.streams import SSE, parse_event_id, sse_begin, sse_idle
from taskserver.web.context import caller, services
from taskserver.web.failures import Unprocessable
from taskserver.web.streaming import LIVE, NO_STORE, stream
from taskserver.web.validation import Fault, load_query, unprocessable

EVENTS_QUERY = EventsQuery()
FORMAT = "execution-events"  # beside those of a task's output


async def get_events(request: web.Request) -> web.StreamResponse:
    """The tasks' transitions: those of the past, then each as it comes, then how the execution ended.

    ``Last-Event-ID`` resumes after an event.
    """
    timeout = load_query(request, EVENTS_QUERY)["timeout"]
    # EventSource sends no header as long as it has seen no id, other clients an empty one.
    seen = request.headers.get("Last-Event-ID", "")
    first, end_seen = _parse(seen) if seen else (0, False)
    run = await find_execution(request)
    if first > run.last:
        raise _bad_event_id(seen, f"is beyond the execution's {run.last} events")
    if end_seen and run.finished and first == run.last:
        return web.Response(status=204, headers=NO_STORE)  # what makes an EventSource stay away
    heartbeat = services(request).settings.timing.heartbeat
    pages = services(request).runs.events(caller(request), run.id, first, timeout, heartbeat)
    async with aclosing(pages), aclosing(_encode(request, pages)) as parts:
        return await stream(request, parts, SSE.content_type, LIVE)


async def _encode(request: web.Request, pages: AsyncIterator[EventPage]) -> AsyncGenerator[bytes, None]:
    once = services(request).encoded
    part = sse_begin()
    run, complete = None, False
    async for page in pages:
        caller(request).check()  # a long catch-up never waits: a revoked key must end it all the same
        if page.chunks:
            part += once.get((FORMAT, page.run.log, page.first, page.end), partial(encode_events, page.chunks))
        elif not page.complete:
            part += sse_idle()
        run, complete = page.run, page.complete
        yield part
        part = b""
    if run is None or (services(request).waits.draining and not complete):
        return  # broken off: the client comes back with its cursor, to another server
    state = await _state(request, run)
    yield encode_end(run.last, state) if complete else encode_timeout(state)


async def _state(request: web.Request, run: Run) -> bytes:
    """How the execution stands, as the last event's data."""
    stats = await services(request).runs.stats(caller(request), run)
    return dumps(
        {
            "execution_id": str(run.id),
            "status": STATUS[run.state],
            "error_info": error_info(run),
            "stats": statistics(run, stats),
        }
    )


def _parse(header: str) -> tuple[int, bool]:
    try:
        return parse_event_id(header)
    except ValueError as error:
        raise _bad_event_id(header, str(error)) from None


def _bad_event_id(header: str, reason: str) -> Unprocessable:
    fault = Fault("value_error", f"Value error, {reason}", {"error": reason})
    return unprocessable(("header", "last-event-id"), fault, header)
