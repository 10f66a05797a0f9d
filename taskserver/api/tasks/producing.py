"""Producing: create a task, append to it, keep it alive, end it (CONTRACTS A4)."""

from __future__ import annotations

from aiohttp import web

from taskserver.api.tasks.answers import json_answer, make_head
from taskserver.api.tasks.ingest import receive
from taskserver.api.tasks.lineformats import from_texts
from taskserver.api.tasks.reading import answer_task
from taskserver.api.tasks.schemas import AppendQuery, FinishBody, NewTaskBody
from taskserver.model import Outcome
from taskserver.web.context import caller, services
from taskserver.web.params import body, query

APPEND_QUERY, NEW_TASK, FINISH = AppendQuery(), NewTaskBody(), FinishBody()


async def create_task(request: web.Request) -> web.StreamResponse:
    """Create a queued task."""
    wish = await body(request, NEW_TASK)
    task = await services(request).tasks.create(
        caller(request), task_id=wish["id"], name=wish["name"], lease=wish["lease"], labels=wish["labels"]
    )
    return await answer_task(request, task, task.last, make_head({"Location": f"{request.path}/{task.id}"}, 201))


async def append_output(request: web.Request) -> web.StreamResponse:
    """Append the body's lines; the answer comes when they are durable."""
    args = query(request, APPEND_QUERY)
    done = await receive(request, request.match_info["id"], args["first"], args["closing"])
    return json_answer({"first": done.first, "last": done.last, "cancel_requested": done.cancel_requested})


async def finish_task(request: web.Request) -> web.StreamResponse:
    """End a task, with its last lines in the same commit."""
    word = await body(request, FINISH)
    lines = None
    if word["output"] is not None:
        lines = from_texts(word["output"], services(request).settings.limits.line_bytes)
    outcome = Outcome(word["code"], word["error"], word["result"])
    tasks, task_id = services(request).tasks, request.match_info["id"]
    task = await tasks.finish(caller(request), task_id, outcome, lines, word["first"])
    return await answer_task(request, task, task.last)


async def heartbeat(request: web.Request) -> web.StreamResponse:
    """Renew the lease."""
    task = await services(request).tasks.heartbeat(caller(request), request.match_info["id"])
    return json_answer({"cancel_requested": task.cancel_requested})


async def cancel_task(request: web.Request) -> web.StreamResponse:
    """Ask the producer to stop."""
    task = await services(request).tasks.cancel(caller(request), request.match_info["id"])
    return await answer_task(request, task, task.last)


async def delete_task(request: web.Request) -> web.StreamResponse:
    """Remove a finished task and its output."""
    await services(request).tasks.delete(caller(request), request.match_info["id"])
    return web.Response(status=204)
