"""What the room's long polls wait for, and the answers that all who wait for the same are given."""

from __future__ import annotations

from collections.abc import Sequence

from taskserver.api.tasks.answers import json_head
from taskserver.audience import Subject
from taskserver.encoding import SEPARATOR, TASK_TAIL, dumps, task_head
from taskserver.errors import TaskNotFound
from taskserver.model import Chunk, Task
from taskserver.tasks import end_topic, output_topic
from taskserver.web.context import Services
from taskserver.web.prepared import Head, first_bytes


class TaskEnd(Subject[bytes]):
    """The end of a task, for those who have its first ``first`` lines (PROTOCOLS.md, A1)."""

    def __init__(self, core: Services, task: Task, first: int) -> None:
        self.topic = end_topic(task.id)
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
        self.topic = output_topic(task.id)
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
        page = await anext(core.tasks.pages(task, first, task.last), None)
        if page is not None and page.end < task.last:
            return None
        lines = b"" if page is None else payload(page.chunks)
        body = core.encoded.keep(key, task_head(task) + lines + TASK_TAIL)
    return body


async def page_body(core: Services, task: Task, first: int, limit: int) -> bytes:
    """At most ``limit`` lines of a task from ``first`` on; fewer if they are more than one page."""
    key = ("page", task.log, task.version, first, limit)
    body = core.encoded.find(key)
    if body is None:
        page = await anext(core.tasks.pages(task, first, min(task.last, first + limit)), None)
        last = first if page is None else page.end
        start = dumps({"first": first, "last": last, "finished": task.finished and last == task.last})[:-1]
        lines = b"" if page is None else payload(page.chunks)
        body = core.encoded.keep(key, start + b',"output":[' + lines + TASK_TAIL)
    return body


def payload(chunks: Sequence[Chunk]) -> bytes:
    """The lines of consecutive chunks as one payload."""
    return SEPARATOR.join(chunk.payload for chunk in chunks)
