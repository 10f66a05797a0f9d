"""A task's output alone, in the format that the client asks for: pages of JSON, or streams (PROTOCOLS.md, A5)."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from aiohttp import web

from taskserver.api.tasks.answers import json_head, preferred_head
from taskserver.api.tasks.prefer import preferred_wait
from taskserver.api.tasks.schemas import FORMATS, OutputQuery
from taskserver.api.tasks.subjects import Tail, TaskOutput, current, lines_once, page_body
from taskserver.config import DEFAULT_OUTPUT_LIMIT
from taskserver.errors import BadParameter
from taskserver.model import Task, TaskState
from taskserver.streams import ENCODERS, PLAIN, SSE, TEXT, WITH_PARTIALS, Encoder, parse_event_id, portions
from taskserver.tasks import check_first
from taskserver.web.context import caller, services
from taskserver.web.params import query
from taskserver.web.prepared import Prepared, may_be_first
from taskserver.web.requests import leave_untimed
from taskserver.web.seats import StreamSeat, wait_for_answer
from taskserver.web.streaming import LIVE, NO_STORE, stream

OUTPUT_QUERY = OutputQuery()


async def get_output(request: web.Request) -> web.StreamResponse:
    """A page of lines that waits for new ones, or a stream of them."""
    args = query(request, OUTPUT_QUERY)
    tasks, task_id = services(request).tasks, request.match_info["id"]
    chosen = _format(request, args["format"])
    first, end_seen = args["first"], False
    # EventSource sends no header as long as it has seen no id, other clients an empty one.
    if chosen == SSE.name and (seen := request.headers.get("Last-Event-ID")):
        first, end_seen = _last_event(seen)
    elif args["tail"] is not None:
        first = max(0, (await tasks.get(caller(request), task_id)).last - args["tail"])
    if chosen == "json":
        return await _json_page(request, first, args)
    # Looked at before the stream begins, so that failures have their true status.
    task = await tasks.wait_output(caller(request), task_id, first, 0)
    if end_seen and task.finished and first == task.last:
        return web.Response(status=204, headers=NO_STORE)  # what makes an EventSource stay away
    encoder = ENCODERS[chosen]
    if encoder is TEXT and not args["escapes"]:
        encoder = PLAIN
    if args["follow"] or encoder is SSE:
        if args["partials"]:
            encoder = WITH_PARTIALS.get(encoder, encoder)
        return await _stream(request, encoder, _follow(request, encoder, task, first), LIVE)
    if args["limit"] is not None:
        task = _up_to(task, first + args["limit"])
    return await _stream(request, encoder, _all(request, encoder, task, first), NO_STORE)


def _up_to(task: Task, end: int) -> Task:
    """A task as if its output went to line ``end`` only: who gets no more must not be told of its end."""
    return task if end >= task.last else replace(task, state=TaskState.RUNNING, code=0, error="", last=end)


async def _json_page(request: web.Request, first: int, args: dict[str, Any]) -> web.StreamResponse:
    core, who, task_id = services(request), caller(request), request.match_info["id"]
    wait, limit, head = args["wait"], args["limit"] or DEFAULT_OUTPUT_LIMIT, json_head()
    if wait is None and (preferred := preferred_wait(request)) is not None:
        wait = preferred
        head = preferred_head(wait)
    known = core.tasks.glance(who, task_id)
    task = check_first(known or await core.tasks.get(who, task_id), first)
    if wait and not task.finished and task.last == first and may_be_first(request):
        key, seen = ("output", task.log, first, limit, head), task
        told = await wait_for_answer(
            request, key, lambda: TaskOutput(core, seen, first, limit, head), head, wait, sure=known is not None
        )
        if told is not None:
            return told
        task = await core.tasks.wait_output(who, task_id, first, 0)
    elif wait:
        leave_untimed(request)
        task = await core.tasks.wait_output(who, task_id, first, wait)
    return Prepared(head, await page_body(core, task, first, limit))


async def _stream(
    request: web.Request, encoder: Encoder, parts: AsyncGenerator[bytes, None], headers: Mapping[str, str]
) -> web.StreamResponse:
    async with aclosing(parts):
        return await stream(request, parts, encoder.content_type, headers)


async def _all(request: web.Request, encoder: Encoder, task: Task, first: int) -> AsyncGenerator[bytes, None]:
    """A task's lines from ``first`` on and its state, as it was seen."""
    start = encoder.begin()
    async with aclosing(_lines(request, encoder, task, first)) as parts:
        async for part in parts:
            yield start + part
            start = b""
    yield start + encoder.end(task)


async def _follow(request: web.Request, encoder: Encoder, task: Task, first: int) -> AsyncGenerator[bytes, None]:
    """A task's lines from ``first`` on until it has ended, or the server drains.

    What is behind the tail is read and sent here, at the pace of the client. Who
    has everything is told the rest by ``Tail``, but for what it takes too slowly.
    """
    core, who = services(request), caller(request)
    seat = StreamSeat(who, request)
    start, begun, again = encoder.begin(), False, False
    try:
        while True:
            if seat.adrift and not task.finished:
                seat.leave()
                tail = core.audiences.join(("tail", encoder.name, task.log), seat, partial(Tail, core, task, encoder))
            async with aclosing(_lines(request, encoder, task, first)) as parts:
                async for part in parts:
                    yield start + part
                    start, begun = b"", True
            seat.cursor = first = task.last
            if task.finished:
                yield start + encoder.end(task)
                return
            if not begun:
                yield start + encoder.idle()  # that may be nothing: the headers go out
                start, begun = b"", True
            unfinished = core.tasks.partials.find(task)
            tail.shown(unfinished)
            if encoder.partial and (unfinished or again):
                yield encoder.partial(unfinished)
            again = True
            if core.waits.draining:
                return
            # What has come since is told to those who wait already.
            if tail.cursor <= first and core.tasks.partials.find(task) == unfinished:
                await seat.wait(math.inf)
            if seat.ended:
                return
            first = seat.cursor
            who.check()
            await request.writer.drain()  # a slow client: nothing is read for it meanwhile
            task = await current(core, task)
    finally:
        seat.leave()


async def _lines(request: web.Request, encoder: Encoder, task: Task, first: int) -> AsyncGenerator[bytes, None]:
    """A task's lines from ``first`` on as it was seen."""
    core = services(request)
    async with aclosing(core.tasks.pages(task, first, task.last)) as pages:
        async for page in pages:
            caller(request).check()  # a long catch-up never waits: a revoked key must end it all the same
            for portion in portions(page.chunks):
                yield lines_once(core, encoder, task, portion)


def _last_event(header: str) -> tuple[int, bool]:
    try:
        return parse_event_id(header)
    except ValueError as error:
        raise BadParameter(f"Last-Event-ID: {error}") from None


def _format(request: web.Request, wanted: str | None) -> str:
    """``?format=`` if given, else what ``Accept`` gives the most weight (RFC 9110, 12.5.1), else JSON."""
    return _accepted(request.headers.get("Accept", "")) if wanted is None else wanted


@lru_cache  # clients of a kind all say the same
def _accepted(accept: str) -> str:
    names = {media_type: name for name, media_type in FORMATS.items()} | {"*/*": "json"}
    best, best_weight = "json", 0.0
    for item in accept.split(","):
        media_type, *parameters = (part.strip().lower() for part in item.split(";"))
        weight = next((_weight(part[2:]) for part in parameters if part.startswith("q=")), 1.0)
        if media_type in names and weight > best_weight:
            best, best_weight = names[media_type], weight
    return best


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
