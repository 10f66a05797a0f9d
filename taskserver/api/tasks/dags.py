"""Dags: register, show and trigger them (PROTOCOLS.md, A6)."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from taskserver.api.tasks.answers import json_answer
from taskserver.api.tasks.results import RESULT_QUERY, answer_result
from taskserver.api.tasks.run_schemas import DagBody, TriggerBody
from taskserver.config import MAX_NAME_LENGTH
from taskserver.dagmodel import KEY, KEY_ERROR, Dag, DagTask, NewRun, Run, manual_run_id, once_run_id, uuid7
from taskserver.errors import BadParameter, TooManyWaiters
from taskserver.jsontext import dumps, isotime
from taskserver.model import Scope, now_us
from taskserver.summaries import run_summary
from taskserver.web.context import caller, services
from taskserver.web.params import body, query

DAG, TRIGGER = DagBody(), TriggerBody()


async def put_dag(request: web.Request) -> web.StreamResponse:
    """Register a dag, or replace what was registered."""
    dag_id = request.match_info["dag_id"]
    if not KEY.fullmatch(dag_id):
        raise BadParameter(f"dag_id: {KEY_ERROR}")
    wish = await body(request, DAG)
    tasks = [DagTask(task["task_id"], task["result"], task["mapped"]) for task in wish["tasks"]]
    dag = await services(request).runs.put_dag(
        caller(request), dag_id, tasks=tasks, retries=wish["retries"], display_name=wish["display_name"]
    )
    return json_answer(_shown(dag))


async def get_dag(request: web.Request) -> web.StreamResponse:
    """One dag."""
    return json_answer(_shown(await services(request).runs.dag(caller(request), request.match_info["dag_id"])))


async def list_dags(request: web.Request) -> web.StreamResponse:
    """The caller's dags."""
    return json_answer({"dags": [_shown(dag) for dag in await services(request).runs.dags(caller(request))]})


async def trigger_run(request: web.Request) -> web.StreamResponse:
    """Queue a run."""
    return json_answer(run_summary(await _trigger(request)), status=201)


async def call_dag(request: web.Request) -> web.StreamResponse:
    """Queue a run and wait for what comes out."""
    args = query(request, RESULT_QUERY)
    caller(request).require(Scope.READ)  # before anything is queued whose result the caller may not see
    run = await _trigger(request)
    try:
        return await answer_result(request, run, args["wait"])
    except TooManyWaiters:  # the run is there: a refusal would have it triggered again
        return await answer_result(request, run, 0)


async def _trigger(request: web.Request) -> Run:
    wish = await body(request, TRIGGER)
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 0 < len(key) <= MAX_NAME_LENGTH:
        raise BadParameter(f"Idempotency-Key: must have 1 to {MAX_NAME_LENGTH} characters")
    now = now_us()
    new = NewRun(
        id=uuid7(now),
        run_id=manual_run_id(now) if key is None else once_run_id(key),
        triggered_by=caller(request).name,
        dag_id=request.match_info["dag_id"],
        conf=dumps(wish["conf"]),
        tag=wish["tag"],
        note=wish["note"],
    )
    return await services(request).runs.trigger(caller(request), new, once=key is not None)


def _shown(dag: Dag) -> dict[str, Any]:
    return {
        "dag_id": dag.dag_id,
        "config_id": str(dag.config_id),
        "display_name": dag.display_name,
        "retries": dag.retries,
        "tasks": [{"task_id": task.task_id, "result": task.result, "mapped": task.mapped} for task in dag.tasks],
        "created_at": isotime(dag.created_at),
        "updated_at": isotime(dag.updated_at),
    }
