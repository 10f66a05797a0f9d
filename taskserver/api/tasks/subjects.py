"""What the room's long polls and followers wait for, and what all who wait for the same are given."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from taskserver.api.tasks.answers import json_head
from taskserver.audience import Subject
from taskserver.encoding import json_pieces
from taskserver.errors import TaskNotFound
from taskserver.jsontext import dumps
from taskserver.livepartials import partial_topic
from taskserver.meters import Waiter
from taskserver.model import Chunk, Task
from taskserver.partial import Partial
from taskserver.streams import Encoder, portions
from taskserver.summaries import TASK_TAIL, task_head
from taskserver.tasks import end_topic, output_topic
from taskserver.web.context import Services
from taskserver.web.prepared import Head, first_bytes
from taskserver.web.seats import Told
from taskserver.web.streaming import make_part


class TaskEnd(Subject[bytes]):
    """The end of a task, for those who have its first ``first`` lines (PROTOCOLS.md, A1)."""

    def __init__(self, core: Services, task: Task, first: int) -> None:
        self.topics = (end_topic(task.id),)
        self._core = core
        self._task = task
        self._first = first

    async def look(self) -> tuple[bytes | None, bool]:
        task = await current(self._core, self._task)
        if not task.finished:
            return None, False
        body = await task_body(self._core, task, self._first)
        return (None if body is None else first_bytes(json_head(), body)), True


class TaskOutput(Subject[bytes]):
    """A task's next lines, as a page of JSON (A5)."""

    def __init__(self, core: Services, task: Task, first: int, limit: int, head: Head) -> None:
        self.topics = (output_topic(task.id),)
        self._core = core
        self._task = task
        self._first = first
        self._limit = limit
        self._head = head

    async def look(self) -> tuple[bytes | None, bool]:
        task = await current(self._core, self._task)
        if not task.finished and task.last <= self._first:
            return None, False
        return first_bytes(self._head, await page_body(self._core, task, self._first, self._limit)), True


class Tail(Subject[Told]):
    """A task's lines as they come, for those who follow them in one format and have all of them so far."""

    waiter = Waiter.STREAM

    def __init__(self, core: Services, task: Task, encoder: Encoder) -> None:
        self.topics = (output_topic(task.id),)
        if encoder.partial is not None:
            self.topics += (partial_topic(task.log),)
        self.heartbeat = core.settings.timing.heartbeat
        self.cursor = task.last
        """Where what has been told ends."""
        self._core = core
        self._task = task
        self._encoder = encoder
        self._shown: set[Partial | None] = set()  # what the members may take to be unfinished

    async def look(self) -> tuple[Told | None, bool]:
        task = await current(self._core, self._task)
        if task.last == self.cursor and not task.finished:
            return self._partial(task), False
        first, data = self.cursor, b""
        page = await self._core.tasks.page(task, first, task.last)
        portion = next(iter(portions(page.chunks)), None)  # each is told before the next one is encoded
        if portion is not None:
            data = lines_once(self._core, self._encoder, task, portion)
            self.cursor = portion[-1].end
            self._shown = {None}  # by these lines, for who is told them
        over = task.finished and self.cursor == task.last
        if over:
            data += self._encoder.end(task)
        return Told(first, self.cursor, make_part(data, last=over)), over

    def shown(self, partial: Partial | None) -> None:
        """A member's own handler has told it this, or nothing."""
        self._shown.add(partial)

    def _partial(self, task: Task) -> Told | None:
        """What is unfinished now, if that is news to somebody."""
        partials = self._core.tasks.partials
        found = partials.find(task)
        if self._encoder.partial is None or self._shown <= {found} or partials.ahead_of(task):  # lines come first
            return None
        self._shown = {found}
        return Told(self.cursor, self.cursor, make_part(self._encoder.partial(found)))

    def idle(self) -> Told | None:
        data = self._encoder.idle()
        return Told(self.cursor, self.cursor, make_part(data)) if data else None


def lines_once(core: Services, encoder: Encoder, task: Task, portion: Sequence[Chunk]) -> bytes:
    """Lines in a format, encoded once for all who follow them."""
    key = (encoder.lines, task.log, portion[0].first, portion[-1].end)
    return core.encoded.get(key, partial(encoder.lines, portion))


async def current(core: Services, seen: Task) -> Task:
    """A task that was seen, as committed last. Raises TaskNotFound if it was deleted, also if its id is used again.

    So the rights of those who saw it then are still true: a task's owner does not change.
    """
    task = await core.tasks.head(seen.id)
    if task.log != seen.log:
        raise TaskNotFound(f"there is no task {seen.id!r}")
    return task


async def task_body(core: Services, task: Task, first: int) -> bytes | None:
    """A task with its lines from ``first`` on; None if they are more than one page."""
    key = ("task", task.log, task.version, first)
    body = core.encoded.find(key)
    if body is None:
        page = await core.tasks.page(task, first, task.last)
        if page.end < task.last:
            return None
        body = core.encoded.keep(key, b"".join((task_head(task), *json_pieces(page.chunks), TASK_TAIL)))
    return body


async def page_body(core: Services, task: Task, first: int, limit: int) -> bytes:
    """At most ``limit`` lines of a task from ``first`` on; fewer if they are long."""
    key = ("page", task.log, task.version, first, limit)
    body = core.encoded.find(key)
    if body is None:
        page = await core.tasks.page(task, first, min(task.last, first + limit), core.settings.memory.large_page_bytes)
        start = dumps({"first": first, "last": page.end, "finished": page.complete})[:-1]
        body = core.encoded.keep(key, b"".join((start, b',"output":[', *json_pieces(page.chunks), TASK_TAIL)))
    return body
