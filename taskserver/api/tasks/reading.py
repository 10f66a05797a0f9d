"""Reading: state and output of a task, and lists of tasks (PROTOCOLS.md, A1 and A4)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from aiohttp import web

from taskserver.api.tasks.answers import JSON, json_answer
from taskserver.api.tasks.schemas import ListQuery, TaskQuery, cursor
from taskserver.encoding import SEPARATOR, TASK_TAIL, task_head, task_summary
from taskserver.model import Chunk, Task, TaskFilter, TaskState
from taskserver.tasks import Page
from taskserver.web.context import caller, services
from taskserver.web.params import query
from taskserver.web.streaming import NO_STORE, stream

TASK_QUERY, LIST_QUERY = TaskQuery(), ListQuery()


async def get_task(request: web.Request) -> web.StreamResponse:
    """State and output of a task; waits for its end."""
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


async def list_tasks(request: web.Request) -> web.StreamResponse:
    """Tasks, newest first, a page at a time."""
    args = await query(request, LIST_QUERY)
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
