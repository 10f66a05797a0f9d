"""Reading: state and output of a task, and lists of tasks (PROTOCOLS.md, A1 and A4)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiohttp import web

from taskserver.api.tasks.answers import JSON, json_answer, json_head
from taskserver.api.tasks.schemas import ListQuery, TaskQuery, cursor
from taskserver.api.tasks.subjects import TaskEnd, task_body
from taskserver.encoding import SEPARATOR, json_pieces
from taskserver.model import Task, TaskFilter, TaskState
from taskserver.streams import portions
from taskserver.summaries import TASK_TAIL, task_head, task_summary
from taskserver.tasks import check_first
from taskserver.web.context import Services, caller, services
from taskserver.web.params import query
from taskserver.web.prepared import Head, Prepared, may_be_first
from taskserver.web.requests import leave_untimed
from taskserver.web.seats import wait_for_answer
from taskserver.web.streaming import stream

TASK_QUERY, LIST_QUERY = TaskQuery(), ListQuery()


async def get_task(request: web.Request) -> web.StreamResponse:
    """State and output of a task; waits for its end."""
    args = query(request, TASK_QUERY)
    first, wait = args["first"], args["wait"]
    core, who, task_id = services(request), caller(request), request.match_info["id"]
    known = core.tasks.glance(who, task_id)
    task = check_first(known or await core.tasks.get(who, task_id), first)
    if wait and not task.finished and may_be_first(request):
        key, seen = ("end", task.log, first), task
        told = await wait_for_answer(
            request, key, lambda: TaskEnd(core, seen, first), json_head(), wait, sure=known is not None
        )
        if told is not None:
            return told
        task = await core.tasks.wait_end(who, task_id, first, 0)
    elif wait:
        leave_untimed(request)
        task = await core.tasks.wait_end(who, task_id, first, wait)
    return await answer_task(request, task, first)


async def answer_task(request: web.Request, task: Task, first: int, head: Head | None = None) -> web.StreamResponse:
    """A task with its lines from ``first`` on; in one piece if they fit into a page, else streamed."""
    body = await task_body(services(request), task, first)
    if body is not None:
        return Prepared(head or json_head(), body)
    async with aclosing(_task_parts(services(request), task, first)) as parts:
        return await stream(request, parts, JSON)


async def _task_parts(core: Services, task: Task, first: int) -> AsyncGenerator[bytes, None]:
    yield task_head(task)
    separator = b""
    async with aclosing(core.tasks.pages(task, first, task.last)) as pages:
        async for page in pages:
            for portion in portions(page.chunks):
                yield b"".join((separator, *json_pieces(portion)))
                separator = SEPARATOR
    yield TASK_TAIL


async def list_tasks(request: web.Request) -> web.StreamResponse:
    """Tasks, newest first, a page at a time."""
    args = query(request, LIST_QUERY)
    wanted = {tuple(label.split("=", 1)) for label in args["label"]}
    labels = dict(wanted)
    if len(labels) < len(wanted):  # one label cannot have two values
        return json_answer({"tasks": [], "cursor": None})
    state = None if args["state"] is None else TaskState(args["state"])
    where = TaskFilter(state=state, name=args["name"], labels=labels, text=args["text"] or None)
    # One more than asked for tells whether there is a next page.
    tasks = await services(request).tasks.list(caller(request), where, args["limit"] + 1, args["cursor"])
    shown = tasks[: args["limit"]]
    after = cursor(shown[-1].log) if len(tasks) > len(shown) else None
    return json_answer({"tasks": [task_summary(task) for task in shown], "cursor": after})
