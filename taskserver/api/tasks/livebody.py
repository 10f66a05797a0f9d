"""Live bodies, whose lines become readable as they arrive (PROTOCOLS.md, A4).

Both line-oriented formats end a line with a newline, so a live body is cut at
its last newline, decoded and appended while the rest is still under way.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from aiohttp import web

from taskserver.api.tasks.lineformats import Decode, from_text, longest_row
from taskserver.config import PARTIAL_PAUSE
from taskserver.encoding import cut
from taskserver.errors import Draining, OutputFull, TaskServerError, TooLarge
from taskserver.model import MICROSECONDS, Chunk, Lines
from taskserver.partial import Unfinished, unfinished_text
from taskserver.store import Appended
from taskserver.tasks import NO_LINES
from taskserver.web.bodies import LOOK, read_watched
from taskserver.web.context import caller, services

RENEWALS = 3  # an open live body is a sign of life: so often it renews the lease in the lease's time
REPEAT = 10.0  # seconds after which what stands still is told again: somebody may have missed it


class Append(Protocol):
    """Adds lines at a number to the task in question."""

    async def __call__(self, lines: Lines, first: int | None) -> Appended: ...


class LiveBody:
    """One request with a live body.

    What is to be done now and then (looking whether it can go on, renewing the
    lease, telling what is unfinished) is done when it is due, whether data comes
    or not.
    """

    def __init__(self, request: web.Request, task_id: str, append: Append, decode: Decode) -> None:
        self._request = request
        self._tasks = services(request).tasks
        self._waits = services(request).waits
        self._who = caller(request)
        self._task_id = task_id
        self._append = append
        self._decode = decode
        self._limit = services(request).settings.limits.line_bytes
        self._longest = longest_row(decode, self._limit)
        self._rest = b""
        self._done: Appended
        self._clock = asyncio.get_running_loop().time
        self._look_at = self._clock() + LOOK
        self._renew_every = self._renew_at = math.inf
        self._log = 0
        self._behind = _Behind(self._clock)

    async def receive(self, first: int | None) -> Appended:
        """Append lines as they arrive.

        What has been appended stays when a later line is refused; the error's
        ``payload`` says where the output ends then. A line that is cut off because
        the producer vanished is not a line and is dropped.
        """
        # An empty append checks the task and says where it ends, before anything is read.
        begun = self._done = await self._append(NO_LINES, first)
        task = await self._tasks.own(self._who, self._task_id)
        self._log = task.log
        if task.lease_us is not None:
            self._renew_every = task.lease_us / MICROSECONDS / RENEWALS
            self._renew_at = self._clock() + self._renew_every
        complete = False
        try:
            while data := await self._next_data():
                await self._take(data, first is not None)
            await self._take(b"", first is not None)
            complete = True
        except TaskServerError as error:
            error.payload = {"last": self._done.last, **(error.payload or {})}
            raise
        finally:
            news = self._behind.last_word(complete=complete)
            if news is not None:
                await self._tell(news)
        return Appended(begun.first, self._done.last, self._done.cancel_requested)

    async def _take(self, data: bytes, counted: bool) -> None:
        """Take some data, or the body's end. ``counted``: its client says where its lines are to stand."""
        whole, self._rest = _cut_at_newline(self._rest + data) if data else (self._rest, b"")
        if len(self._rest.removesuffix(b"\r")) > self._longest:
            raise TooLarge(f"a line is longer than {self._limit} bytes")
        if whole:
            decoded = self._decode(whole, self._limit)
            if decoded.lines.count:
                self._done = await self._append_what_fits(decoded.lines, self._done.last if counted else None)
                self._behind.clear()
            if decoded.unfinished is not None:
                self._behind.stands(decoded.unfinished)
        if self._decode is from_text:
            self._behind.begins(self._rest)

    async def _append_what_fits(self, lines: Lines, first: int | None) -> Appended:
        """Append lines; if the output may not have all of them, as many as it may, and then raise OutputFull."""
        try:
            return await self._append(lines, first)
        except OutputFull as full:
            facts = full.payload or {}
            room = facts["limit"] - facts["last"]
            if room > 0:
                part = cut(Chunk(0, lines.count, lines.payload, lines.side), 0, room)
                facts["last"] = (await self._append(Lines(part.count, part.payload, part.side), first)).last
            raise

    async def _next_data(self) -> bytes:
        """What has arrived; empty at the body's end. Raises BadBody, BadCredential, Draining."""
        pause = await self._look()
        if data := self._request.content.read_nowait():
            return data
        return await read_watched(self._request, self._request.content.readany(), pause, self._look)

    async def _look(self) -> float:
        """Do what is due; after how many seconds something is again."""
        if self._clock() >= min(self._look_at, self._renew_at):
            self._look_at = self._clock() + LOOK
            self._who.check()  # a revoked key must end its body within a second
            if self._waits.draining:
                raise Draining("the server is shutting down; go on at `last` when it is back")
            # A heartbeat to a task that has ended is refused, and so ends the body.
            if self._clock() >= self._renew_at or (await self._tasks.own(self._who, self._task_id)).finished:
                await self._tasks.heartbeat(self._who, self._task_id)
                self._renew_at = self._clock() + self._renew_every
        if (news := self._behind.take_due()) is not None:
            await self._tell(news)
        return max(0.0, min(self._look_at, self._renew_at, self._behind.due_at) - self._clock())

    async def _tell(self, news: Unfinished) -> None:
        with suppress(TaskServerError):  # the task is gone, or cannot be looked at: for a bar no body is refused
            # Behind the task's last line as it is now: it may be somebody else's.
            task = await self._tasks.head(self._task_id)
            if task.log == self._log and not task.finished:
                self._tasks.partials.tell(task.log, task.last, news)


class _Behind:
    """What stands unfinished behind a live body's lines, and when that is to be told; see ``partial``.

    ``due_at``: when there is something to tell, by ``clock``.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.clear()

    def clear(self) -> None:
        """Lines have come: nothing is behind them."""
        self._rest = b""
        self._said = self._told = Unfinished()
        self._earliest = 0.0
        self.due_at = math.inf

    def begins(self, rest: bytes) -> None:
        """A line of raw output that has begun so. Most are whole soon."""
        if rest != self._rest:
            if not self._rest:
                self._earliest = self._clock() + PARTIAL_PAUSE
            self._rest = rest
            self.due_at = self._earliest

    def stands(self, unfinished: Unfinished) -> None:
        """The body itself says what there is."""
        if unfinished != self._now():
            self._said = unfinished
            self.due_at = self._earliest

    def take_due(self) -> Unfinished | None:
        """What is to be told now."""
        if self._clock() < self.due_at:
            return None
        self._told = self._now()
        self._earliest = self._clock() + PARTIAL_PAUSE
        self.due_at = self._clock() + REPEAT if any(self._told) else math.inf
        return self._told

    def last_word(self, *, complete: bool) -> Unfinished | None:
        """What is to be told at the end: what is not told yet, or that a line which was begun will never be one."""
        now = self._now() if complete else Unfinished()
        return None if now == self._told else now

    def _now(self) -> Unfinished:
        return Unfinished(stdout=unfinished_text(self._rest)) if self._rest else self._said


def _cut_at_newline(data: bytes) -> tuple[bytes, bytes]:
    end = data.rfind(b"\n") + 1
    return data[:end], data[end:]
