"""Runs from their worker's side: claim one, create its tasks, keep it alive, end it (PROTOCOLS.md, A6)."""

from __future__ import annotations

import uuid

from aiohttp import web

from taskserver.api.tasks.answers import json_answer, json_head
from taskserver.api.tasks.reading import answer_task
from taskserver.api.tasks.results import RESULT_QUERY, answer_result
from taskserver.api.tasks.run_schemas import ClaimBody, ClaimQuery, RunFinishBody, RunHeartbeatBody, RunTaskBody
from taskserver.dagmodel import RunState
from taskserver.errors import RunNotFound
from taskserver.model import Place
from taskserver.summaries import run_summary, task_summary
from taskserver.web.context import caller, services
from taskserver.web.params import body, query
from taskserver.web.requests import leave_untimed
from taskserver.web.streaming import NO_STORE

CLAIM_QUERY, CLAIM = ClaimQuery(), ClaimBody()
RUN_TASK, HEARTBEAT, FINISH = RunTaskBody(), RunHeartbeatBody(), RunFinishBody()


async def claim_run(request: web.Request) -> web.StreamResponse:
    """The run that is due longest, or 204 if there is none in time."""
    args = query(request, CLAIM_QUERY)
    wish = await body(request, CLAIM)
    if args["wait"]:
        leave_untimed(request)
    run = await services(request).runs.claim(caller(request), wish["dags"], wish["claim"], wish["lease"], args["wait"])
    if run is None:
        return web.Response(status=204, headers=NO_STORE)
    return json_answer({**run_summary(run), "claim": run.claim})


async def get_run(request: web.Request) -> web.StreamResponse:
    """A run and its tasks."""
    runs = services(request).runs
    run = await runs.get(caller(request), _id(request))
    tasks = await runs.tasks(caller(request), run)
    return json_answer({**run_summary(run), "tasks": [task_summary(task) for task in tasks]})


async def get_result(request: web.Request) -> web.StreamResponse:
    """What came out of a run; waits for its end."""
    args = query(request, RESULT_QUERY)
    run = await services(request).runs.get(caller(request), _id(request))
    return await answer_result(request, run, args["wait"])


async def create_task(request: web.Request) -> web.StreamResponse:
    """Create a task in a run."""
    wish = await body(request, RUN_TASK)
    task = await services(request).runs.create_task(
        caller(request),
        Place(_id(request), wish["task_id"], wish["map_index"], wish["try_number"]),
        claim=wish["claim"],
        task_id=wish["id"],
        name=wish["name"],
        lease=wish["lease"],
        labels=wish["labels"],
        outcome=wish["finish"],
    )
    return await answer_task(request, task, task.last, json_head(201))


async def heartbeat(request: web.Request) -> web.StreamResponse:
    """Renew a claim's lease."""
    word = await body(request, HEARTBEAT)
    run = await services(request).runs.heartbeat(caller(request), _id(request), word["claim"])
    return json_answer({"cancel_requested": run.cancel_requested})


async def release(request: web.Request) -> web.StreamResponse:
    """Give a claimed run back."""
    word = await body(request, HEARTBEAT)
    return json_answer(run_summary(await services(request).runs.release(caller(request), _id(request), word["claim"])))


async def finish_run(request: web.Request) -> web.StreamResponse:
    """End a run."""
    word = await body(request, FINISH)
    state = None if word["state"] is None else RunState(word["state"])
    run = await services(request).runs.finish(caller(request), _id(request), word["claim"], state, word["error"])
    return json_answer(run_summary(run))


async def cancel_run(request: web.Request) -> web.StreamResponse:
    """Ask a run's claimant and tasks to stop."""
    return json_answer(run_summary(await services(request).runs.cancel(caller(request), _id(request))))


async def delete_run(request: web.Request) -> web.StreamResponse:
    """Remove a run with its tasks."""
    await services(request).runs.delete(caller(request), _id(request))
    return web.Response(status=204)


def _id(request: web.Request) -> uuid.UUID:
    text = request.match_info["id"]
    try:
        return uuid.UUID(text)
    except ValueError:
        raise RunNotFound(f"there is no run {text!r}") from None
