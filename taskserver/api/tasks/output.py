"""A task's output alone, in the format that the client asks for: pages of JSON, or streams (PROTOCOLS.md, A5)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from aiohttp import web

from taskserver.api.tasks.answers import JSON
from taskserver.api.tasks.reading import payload
from taskserver.api.tasks.schemas import FORMATS, OutputQuery
from taskserver.config import MAX_OUTPUT_WAIT
from taskserver.encoding import TASK_TAIL, dumps
from taskserver.errors import BadParameter
from taskserver.model import Task
from taskserver.streams import ENCODERS, END_SUFFIX, SSE, Encoder
from taskserver.tasks import Page
from taskserver.web.context import caller, services
from taskserver.web.params import query
from taskserver.web.streaming import LIVE, NO_STORE, stream

HEARTBEAT = 15.0  # seconds; proxies close streams that are silent for a minute

OUTPUT_QUERY = OutputQuery()

_PREFER_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?\s*(?:$|[,;])", re.IGNORECASE)
_EVENT_ID = re.compile(rf"(\d{{1,10}})({END_SUFFIX})?", re.ASCII)


async def get_output(request: web.Request) -> web.StreamResponse:
    """A page of lines that waits for new ones, or a stream of them."""
    args = await query(request, OUTPUT_QUERY)
    chosen = _format(request, args["format"])
    first = args["first"]
    if args["tail"] is not None:
        task = await services(request).tasks.get(caller(request), request.match_info["id"])
        first = max(0, task.last - args["tail"])
    if chosen == "json":
        return await _json_page(request, first, args)
    encoder = ENCODERS[chosen]
    ended = False
    if encoder is SSE and "Last-Event-ID" in request.headers:
        first, ended = _last_event(request.headers["Last-Event-ID"])
    # Looked at before the stream begins, so that failures have their true status.
    task = await services(request).tasks.wait_output(caller(request), request.match_info["id"], first, 0)
    if ended and task.finished:
        return web.Response(status=204, headers=NO_STORE)  # what makes an EventSource stay away
    return await _stream(request, encoder, task, first, follow=args["follow"] or encoder is SSE)


async def _json_page(request: web.Request, first: int, args: dict[str, Any]) -> web.StreamResponse:
    tasks = services(request).tasks
    headers = {**NO_STORE, "Content-Type": JSON}
    wait = args["wait"]
    if wait is None and (preferred := _PREFER_WAIT.search(request.headers.get("Prefer", ""))):
        wait = min(int(preferred[1]), MAX_OUTPUT_WAIT)
        headers["Preference-Applied"] = f"wait={wait}"
        headers["Vary"] = "Prefer"
    task = await tasks.wait_output(caller(request), request.match_info["id"], first, wait or 0)
    page = await anext(tasks.pages(task, first, min(task.last, first + args["limit"])), None)
    last = first if page is None else page.end
    finished = task.finished and last == task.last
    head = dumps({"first": first, "last": last, "finished": finished})[:-1]
    lines = b"" if page is None else payload(page.chunks)
    return web.Response(body=head + b',"output":[' + lines + TASK_TAIL, headers=headers)


async def _stream(request: web.Request, encoder: Encoder, task: Task, first: int, follow: bool) -> web.StreamResponse:
    tasks = services(request).tasks
    if follow:
        pages = tasks.follow(caller(request), task.id, first, HEARTBEAT)
        return await stream(request, _encode(request, encoder, pages), encoder.content_type, LIVE)
    pages = tasks.pages(task, first, task.last)
    return await stream(request, _encode(request, encoder, pages, task), encoder.content_type)


async def _encode(
    request: web.Request, encoder: Encoder, pages: AsyncIterator[Page], ends_with: Task | None = None
) -> AsyncIterator[bytes]:
    """The pages as bytes. The end is told behind the last page, or behind all pages as ``ends_with`` has it."""
    once = services(request).encoded
    yield encoder.begin()  # empty or not: the headers go out now, not with the first line
    async for page in pages:
        if page.chunks:
            key = (encoder.name, page.task.log, page.first, page.end)
            yield once.get(key, partial(encoder.lines, page.chunks))
        elif not page.complete:
            yield encoder.idle()
        if page.complete and ends_with is None:
            yield encoder.end(page.task)
    if ends_with is not None:
        yield encoder.end(ends_with)


def _last_event(header: str) -> tuple[int, bool]:
    """The cursor in ``Last-Event-ID``, and whether it is that of the ``end`` event."""
    match = _EVENT_ID.fullmatch(header)
    if match is None:
        raise BadParameter("Last-Event-ID: must be the id of an earlier event")
    return int(match[1]), match[2] is not None


def _format(request: web.Request, wanted: str | None) -> str:
    """``?format=`` if given, else the first type in ``Accept`` that we have, else JSON."""
    if wanted is not None:
        return wanted
    for item in request.headers.get("Accept", "").split(","):
        media_type = item.partition(";")[0].strip().lower()
        for name, offered in FORMATS.items():
            if media_type == offered:
                return name
    return "json"
