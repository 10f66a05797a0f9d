"""Reading: state and output of a task, its output alone, and lists of tasks (CONTRACTS A1, A4, A5)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

from aiohttp import web

from taskserver.api.tasks.schemas import FORMATS, ListQuery, OutputQuery, TaskQuery, cursor
from taskserver.config import MAX_OUTPUT_WAIT
from taskserver.encoding import SEPARATOR, TASK_TAIL, dumps, raw_text, task_head, task_summary
from taskserver.model import Chunk, Task, TaskFilter, TaskState
from taskserver.tasks import Page
from taskserver.web.context import caller, services
from taskserver.web.params import query
from taskserver.web.streaming import LIVE, NO_STORE, stream

JSON = "application/json; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
FOLLOW_HEARTBEAT = 15.0  # how often a quiet stream looks after its caller; text has no word for a heartbeat

TASK_QUERY, OUTPUT_QUERY, LIST_QUERY = TaskQuery(), OutputQuery(), ListQuery()

_PREFER_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?\s*(?:$|[,;])", re.IGNORECASE)


async def get_task(request: web.Request) -> web.StreamResponse:
    """State and output of a task; waits for its end (A1)."""
    args = await query(request, TASK_QUERY)
    first = args["first"]
    task = await services(request).tasks.wait_end(caller(request), request.match_info["id"], first, args["wait"])
    return await answer_task(request, task, first)


async def answer_task(request: web.Request, task: Task, first: int, status: int = 200) -> web.StreamResponse:
    """A task with its lines from ``first`` on; in one piece if they fit into a page, else streamed."""
    pages = services(request).tasks.pages(task, first, task.last)
    page = await anext(pages, None)
    head = task_head(task)
    if page is None or page.end == task.last:
        lines = payload(page.chunks) if page is not None else b""
        return web.Response(body=head + lines + TASK_TAIL, status=status, headers={**NO_STORE, "Content-Type": JSON})
    return await stream(request, _task_parts(head, page, pages), JSON)


async def _task_parts(head: bytes, page: Page, pages: AsyncIterator[Page]) -> AsyncIterator[bytes]:
    yield head
    yield payload(page.chunks)
    async for page in pages:
        yield SEPARATOR + payload(page.chunks)
    yield TASK_TAIL


async def get_output(request: web.Request) -> web.StreamResponse:
    """A task's output, in the format that the client asks for (A5)."""
    args = await query(request, OUTPUT_QUERY)
    first = args["first"]
    if args["tail"] is not None:
        task = await services(request).tasks.get(caller(request), request.match_info["id"])
        first = max(0, task.last - args["tail"])
    if _format(request, args) == "text":
        return await _text(request, first, args["follow"])
    return await _json_page(request, first, args)


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


async def _text(request: web.Request, first: int, follow: bool) -> web.StreamResponse:
    tasks, task_id = services(request).tasks, request.match_info["id"]
    if follow:
        # Looked at before the stream begins, so that failures have their true status.
        await tasks.wait_output(caller(request), task_id, first, 0)
        pages = tasks.follow(caller(request), task_id, first, FOLLOW_HEARTBEAT)
        return await stream(request, _raw(pages), TEXT, LIVE)
    task = await tasks.wait_output(caller(request), task_id, first, 0)
    return await stream(request, _raw(tasks.pages(task, first, task.last)), TEXT)


async def _raw(pages: AsyncIterator[Page]) -> AsyncIterator[bytes]:
    yield b""  # the headers go out now, not with the first line
    async for page in pages:
        if page.chunks:
            yield raw_text(payload(page.chunks))


async def list_tasks(request: web.Request) -> web.StreamResponse:
    """Tasks, newest first, a page at a time."""
    args = await query(request, LIST_QUERY)
    labels = dict(label.split("=", 1) for label in args["label"])
    state = None if args["state"] is None else TaskState(args["state"])
    where = TaskFilter(state=state, name=args["name"], labels=labels)
    # One more than asked for tells whether there is a next page.
    tasks = await services(request).tasks.list(caller(request), where, args["limit"] + 1, args["cursor"])
    shown = tasks[: args["limit"]]
    after = cursor(shown[-1].log) if len(tasks) > len(shown) else None
    body = dumps({"tasks": [task_summary(task) for task in shown], "cursor": after})
    return web.Response(body=body, headers={**NO_STORE, "Content-Type": JSON})


def payload(chunks: Sequence[Chunk]) -> bytes:
    """The lines of consecutive chunks as one payload."""
    return SEPARATOR.join(chunk.payload for chunk in chunks)


def _format(request: web.Request, args: dict[str, Any]) -> str:
    """``format`` if given, else the first type in ``Accept`` that we have, else JSON."""
    if args["format"] is not None:
        return str(args["format"])
    for item in request.headers.get("Accept", "").split(","):
        media_type = item.partition(";")[0].strip().lower()
        for name, offered in FORMATS.items():
            if media_type == offered:
                return name
    return "json"
