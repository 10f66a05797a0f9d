"""Watch which tasks change their state, as server-sent events (PROTOCOLS.md, A7)."""

from __future__ import annotations

import math
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

from aiohttp import web

from taskserver.api.tasks.schemas import ChangesQuery
from taskserver.audience import Subject
from taskserver.errors import RunNotFound, TaskNotFound
from taskserver.feed import Watched
from taskserver.jsontext import dumps
from taskserver.streams import SSE, sse_begin, sse_idle
from taskserver.summaries import run_summary, task_summary
from taskserver.web.context import Services, caller, services
from taskserver.web.params import query
from taskserver.web.seats import StreamSeat, Told
from taskserver.web.streaming import LIVE, make_part, stream

CHANGES_QUERY = ChangesQuery()
MAX_TOLD = 100  # tasks and runs in one event; of more the newest, and the client is told that there were others


async def get_changes(request: web.Request) -> web.StreamResponse:
    """What changes from now on: tasks that are new, in another state or gone.

    ``Last-Event-ID`` resumes after an event.
    """
    args = query(request, CHANGES_QUERY)
    core, who = services(request), caller(request)
    run: uuid.UUID | None = args["run"]
    if run is not None:
        await core.runs.get(who, run)
    watched = Watched(None if who.is_admin else who.owner, run)
    # EventSource sends no header as long as it has seen no id.
    seen = request.headers.get("Last-Event-ID") or args["since"]
    async with aclosing(_follow(request, watched, seen)) as parts:
        return await stream(request, parts, SSE.content_type, LIVE)


async def _follow(request: web.Request, watched: Watched, seen: str) -> AsyncGenerator[bytes, None]:
    core, who = services(request), caller(request)
    seat = Seat(who, request)
    start = sse_begin()
    with core.feed.watching():
        try:
            cursor = _position(core, seen)
            while True:
                if seat.adrift:
                    seat.leave()
                    changes = core.audiences.join(("changes", watched), seat, partial(Changes, core, watched))
                data, seat.cursor = await _news(core, watched, cursor)
                cursor = seat.cursor
                if start or data:
                    yield start + (data or sse_idle())
                    start = b""
                if core.waits.draining:
                    return
                if changes.cursor <= cursor:
                    await seat.wait(math.inf)
                cursor = seat.cursor
                who.check()
                await request.writer.drain()  # a slow client: nothing is read for it meanwhile
        finally:
            seat.leave()


class Seat(StreamSeat):
    """What is told twice does no harm here, since every event says how things stand."""

    __slots__ = ()

    def tell(self, news: Told) -> bool:
        if news.first < self.cursor:
            self.cursor = news.first
        return super().tell(news)


class Changes(Subject[Told]):
    """What changes, for all who watch the same and know all of it so far."""

    def __init__(self, core: Services, watched: Watched) -> None:
        self.topics = (watched.topic,)
        self.heartbeat = core.settings.timing.heartbeat
        self.cursor = core.feed.last
        """The number of the last change that was told."""
        self._core = core
        self._watched = watched
        self._looked_up_to = self.cursor
        self._slept = False
        self._unknown = False
        """Something woke us, and what it was is not known."""

    async def look(self) -> tuple[Told | None, bool]:
        data, end = await _news(self._core, self._watched, self._looked_up_to)
        self._looked_up_to = end
        self._unknown = self._unknown or (self.woken and not data)
        if not data and self._slept and self._unknown:
            data, self._unknown = _reset(self._core, end), False
        # What wakes us and is not known here is another node's change; if it was none, it does no harm to read.
        self._slept = not data and not self._core.feed.whole
        if not data:
            return None, False
        first, self.cursor = self.cursor, end
        return Told(first, end, make_part(data)), False

    def idle(self) -> Told | None:
        return Told(self.cursor, self.cursor, make_part(sse_idle()))


async def _news(core: Services, watched: Watched, cursor: int) -> tuple[bytes, int]:
    """The event with what changed after ``cursor``, if anything did, and the cursor up to which was looked."""
    end, touched = core.feed.last, core.feed.since(cursor, watched)
    if touched is None:
        return _reset(core, end), end
    if not touched:
        return b"", end
    tasks: list[Any] = []
    runs: list[Any] = []
    deleted: list[str] = []
    for one in touched[-MAX_TOLD:]:
        name = one.task_id or str(one.run)
        try:
            if one.task_id is None:
                assert one.run is not None
                runs.append(run_summary(await core.runs.head(one.run)))
                continue
            task = await core.tasks.head(one.task_id)
            if task.owner == one.owner:
                tasks.append(task_summary(task))
            else:
                deleted.append(name)  # another owner has taken the id
        except (TaskNotFound, RunNotFound):
            deleted.append(name)
    news = {"tasks": tasks, "runs": runs, "deleted": deleted, "more": len(touched) > MAX_TOLD}
    return _event(core, end, "changes", news), end


def _reset(core: Services, number: int) -> bytes:
    """The client may have missed something: it is to read again what it shows."""
    return _event(core, number, "reset", {})


def _event(core: Services, number: int, name: str, data: object) -> bytes:
    return b"id: %b-%d\nevent: %b\ndata: %b\n\n" % (core.feed.epoch.encode(), number, name.encode(), dumps(data))


def _position(core: Services, seen: str) -> int:
    """The number in an event's id; -1, of which nothing is known, if it is not one of this feed's.

    Nor is anything known for sure where other nodes make changes too.
    """
    epoch, _, number = seen.partition("-")
    known = core.feed.whole and epoch == core.feed.epoch and number.isascii() and number.isdigit() and len(number) < 16
    return int(number) if known else -1
