"""Ingest: request bodies to lines, at once or live (CONTRACTS A4).

Both line-oriented formats end a line with a newline, so a live body is cut at
its last newline, decoded and appended while the rest is still under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from aiohttp import web

from taskserver.api.tasks.lineformats import (
    DECODERS,
    JSON,
    NDJSON,
    TEXT,
    Decode,
    Unfinished,
    from_text,
    from_texts,
    longest_row,
)
from taskserver.api.tasks.schemas import LinesBody
from taskserver.config import PARTIAL_PAUSE
from taskserver.encoding import cut
from taskserver.errors import Draining, OutputFull, TaskServerError, TooLarge, UnsupportedMediaType
from taskserver.livepartials import LivePartials
from taskserver.model import MICROSECONDS, Chunk, Lines, Stream, Task
from taskserver.partial import shown_of
from taskserver.store import Appended
from taskserver.web.bodies import LOOK, check_encoding, declared_type, read_body, read_watched
from taskserver.web.context import caller, services
from taskserver.web.params import body

LINES_BODY = LinesBody()
RENEWALS = 3  # an open live body is a sign of life: so often it renews the lease in the lease's time

Append = Callable[[Lines, int | None], Awaitable[Appended]]
"""Adds lines at a number to the task in question."""


async def receive(request: web.Request, task_id: str, first: int | None, closing: bool) -> Appended:
    """Append the request's body to a task, live if its length is not known in advance. See ``Tasks.append``."""
    content_type = declared_type(request) or TEXT  # curl -T names no type
    core, who = services(request), caller(request)
    limit = core.settings.limits.line_bytes
    append = partial(core.tasks.append, who, task_id, closing=closing)
    if content_type == JSON:
        return await append(from_texts((await body(request, LINES_BODY))["lines"], limit), first)
    decode = DECODERS.get(content_type)
    if decode is None:
        raise UnsupportedMediaType(f"the body must be {TEXT}, {NDJSON} or {JSON}, not {content_type}")
    if request.content_length is None and request.body_exists:
        check_encoding(request)
        return await _receive_live(request, append, task_id, first, decode, limit)
    decoded = decode(await read_body(request), limit)
    done = await append(decoded.lines, first)
    if decoded.unfinished is not None:
        _tell(core.partials, await core.tasks.own(who, task_id), done.last, decoded.unfinished)
    return done


def _tell(partials: LivePartials, task: Task, last: int, unfinished: Unfinished) -> None:
    partials.tell(task, last, unfinished.get(Stream.STDOUT, ""), unfinished.get(Stream.STDERR, ""))


class _Behind:
    """What stands unfinished behind the lines of a live body, told when it is time; see ``partial``."""

    def __init__(self, partials: LivePartials, task: Task) -> None:
        self._partials = partials
        self._task = task
        self._clock = asyncio.get_running_loop().time
        self._told: tuple[int, Unfinished] = (-1, {})
        self._now = self._told
        self._due = 0.0

    def stands(self, last: int, unfinished: Unfinished) -> None:
        """This stands behind line ``last`` now."""
        if last != self._now[0]:
            self._told = (last, {})  # lines have come, and nothing is told behind them
            self._due = self._clock() + PARTIAL_PAUSE
        self._now = (last, {stream: text for stream, text in unfinished.items() if text})
        self.tell()

    @property
    def waits(self) -> bool:
        """Whether there is something to tell, when it is time."""
        return self._now != self._told

    def tell(self) -> None:
        """Tell it, if it is time and there is something to tell."""
        if self.waits and self._clock() >= self._due:
            self._due = self._clock() + PARTIAL_PAUSE
            self._told = self._now
            _tell(self._partials, self._task, *self._now)


async def _receive_live(
    request: web.Request, append: Append, task_id: str, first: int | None, decode: Decode, limit: int
) -> Appended:
    """Append lines as they arrive.

    What has been appended stays when a later line is refused; the error's
    ``payload`` says where the output ends then. A line that is cut off because
    the producer vanished is not a line and is dropped.
    """
    core = services(request)
    # An empty append checks the task and says where it ends, before anything is read.
    begun = done = await append(Lines(0, b"", b""), first)
    task = await core.tasks.own(caller(request), task_id)
    renew_every = float("inf") if task.lease_us is None else task.lease_us / MICROSECONDS / RENEWALS
    behind = _Behind(core.partials, task)
    rest = b""
    longest = longest_row(decode, limit)
    try:
        while True:
            data = await _next_data(request, task_id, renew_every, behind)
            whole, rest = _cut_at_newline(rest + data) if data else (rest, b"")
            if len(rest.removesuffix(b"\r")) > longest:
                raise TooLarge(f"a line is longer than {limit} bytes")
            unfinished = None
            if whole:
                decoded = decode(whole, limit)
                unfinished = decoded.unfinished
                if decoded.lines.count:
                    done = await _append_what_fits(append, decoded.lines, None if first is None else done.last)
            if not data:
                return Appended(begun.first, done.last, done.cancel_requested)
            if decode is from_text:
                unfinished = {Stream.STDOUT: shown_of(rest)}
            if unfinished is not None:
                behind.stands(done.last, unfinished)
    except TaskServerError as error:
        error.payload = {"last": done.last, **(error.payload or {})}
        raise


async def _append_what_fits(append: Append, lines: Lines, first: int | None) -> Appended:
    """Append lines; if the output may not have all of them, as many as it may, and then raise OutputFull."""
    try:
        return await append(lines, first)
    except OutputFull as full:
        facts = full.payload or {}
        room = facts["limit"] - facts["last"]
        if room > 0:
            part = cut(Chunk(0, lines.count, lines.payload, lines.side), 0, room)
            facts["last"] = (await append(Lines(part.count, part.payload, part.side), first)).last
        raise


async def _next_data(request: web.Request, task_id: str, renew_every: float, behind: _Behind) -> bytes:
    """What has arrived; empty at the body's end. Raises BadBody, BadCredential, Draining."""
    if data := request.content.read_nowait():
        return data
    tasks, who = services(request).tasks, caller(request)
    loop = asyncio.get_running_loop()
    renew_at = loop.time() + renew_every

    async def look() -> None:
        nonlocal renew_at
        who.check()  # a revoked key must end its body within a second
        if services(request).waits.draining:
            raise Draining("the server is shutting down; go on at `last` when it is back")
        # A heartbeat to a task that has ended is refused, and so ends the body.
        if loop.time() >= renew_at or (await tasks.own(who, task_id)).finished:
            await tasks.heartbeat(who, task_id)
            renew_at = loop.time() + renew_every
        behind.tell()

    every = min(LOOK, renew_every, PARTIAL_PAUSE if behind.waits else LOOK)
    return await read_watched(request, request.content.readany(), every, look)


def _cut_at_newline(data: bytes) -> tuple[bytes, bytes]:
    end = data.rfind(b"\n") + 1
    return data[:end], data[end:]
