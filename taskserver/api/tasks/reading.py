"""Reading: state and output of a task, and lists of tasks (PROTOCOLS.md, A1 and A4)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable, Sequence

from aiohttp import web

from taskserver.api.tasks.answers import JSON, json_answer, json_head
from taskserver.api.tasks.schemas import ListQuery, TaskQuery, cursor
from taskserver.encoding import SEPARATOR, TASK_TAIL, task_head, task_summary
from taskserver.model import Chunk, Task, TaskFilter, TaskState
from taskserver.tasks import Page, check_first
from taskserver.web.context import caller, services
from taskserver.web.params import query
from taskserver.web.prepared import Head, Prepared
from taskserver.web.streaming import stream

TASK_QUERY, LIST_QUERY = TaskQuery(), ListQuery()


async def get_task(request: web.Request) -> web.StreamResponse:
    """State and output of a task; waits for its end."""
    args = query(request, TASK_QUERY)
    first, wait = args["first"], args["wait"]
    core, who, task_id = services(request), caller(request), request.match_info["id"]
    task = core.tasks.glance(who, task_id) or await core.tasks.get(who, task_id)
    check_first(task, first)
    if wait and not task.finished:
        task = await core.tasks.wait_end(who, task_id, first, wait)
    known = core.encoded.find(_key(task, first))
    return Prepared(json_head(), known) if known is not None else await answer_task(request, task, first)


async def answer_task(request: web.Request, task: Task, first: int, head: Head | None = None) -> web.StreamResponse:
    """A task with its lines from ``first`` on; in one piece if they fit into a page, else streamed."""
    pages = services(request).tasks.pages(task, first, task.last)
    page = await anext(pages, None)
    start = task_head(task)
    if page is None or page.end == task.last:
        lines = payload(page.chunks) if page is not None else b""
        body = services(request).encoded.keep(_key(task, first), start + lines + TASK_TAIL)
        return Prepared(head or json_head(), body)
    return await stream(request, _task_parts(start, page, pages), JSON)


def _key(task: Task, first: int) -> Hashable:
    return "task", task.log, task.version, first


async def _task_parts(head: bytes, page: Page, pages: AsyncIterator[Page]) -> AsyncIterator[bytes]:
    yield head
    yield payload(page.chunks)
    async for page in pages:
        yield SEPARATOR + payload(page.chunks)
    yield TASK_TAIL


async def list_tasks(request: web.Request) -> web.StreamResponse:
    """Tasks, newest first, a page at a time."""
    args = query(request, LIST_QUERY)
    wanted = {tuple(label.split("=", 1)) for label in args["label"]}
    labels = dict(wanted)
    if len(labels) < len(wanted):  # one label cannot have two values
        return json_answer({"tasks": [], "cursor": None})
    state = None if args["state"] is None else TaskState(args["state"])
    where = TaskFilter(state=state, name=args["name"], labels=labels)
    # One more than asked for tells whether there is a next page.
    tasks = await services(request).tasks.list(caller(request), where, args["limit"] + 1, args["cursor"])
    shown = tasks[: args["limit"]]
    after = cursor(shown[-1].log) if len(tasks) > len(shown) else None
    return json_answer({"tasks": [task_summary(task) for task in shown], "cursor": after})


def payload(chunks: Sequence[Chunk]) -> bytes:
    """The lines of consecutive chunks as one payload."""
    return SEPARATOR.join(chunk.payload for chunk in chunks)
