"""Create an execution, and look at it by id or tag (PROTOCOLS.md, C1 and C2)."""

from __future__ import annotations

import orjson
from aiohttp import web

from taskserver.api.executions.answers import error_info, execution, json_answer
from taskserver.api.executions.schemas import NewExecutionBody
from taskserver.config import MAX_NAME_LENGTH
from taskserver.dagmodel import NewRun, Run, parse_uuid, uuid7
from taskserver.errors import BadParameter, DagNotFound, RunNotFound
from taskserver.model import now_us
from taskserver.web.context import caller, services
from taskserver.web.validation import load_body

NEW_EXECUTION = NewExecutionBody()


class ConfigNotFound(BadParameter):
    """There is no such configuration, or the caller may not know of it."""

    code = "config_not_found"


async def create_execution(request: web.Request) -> web.StreamResponse:
    """Queue a run of the dag that a configuration stands for."""
    wish = await load_body(request, NEW_EXECUTION)
    runs = services(request).runs
    try:
        dag = await runs.dag_of_config(caller(request), wish["config_id"])
    except DagNotFound:
        raise ConfigNotFound(f"there is no configuration '{wish['config_id']}'") from None
    run_id = uuid7(now_us())
    new = NewRun(
        id=run_id,
        run_id=str(run_id),  # so that Airflow's callers find it under the same id
        triggered_by=caller(request).name,
        dag_id=dag.dag_id,
        metadata=wish["metadata"],
        tag=wish["tag"],
    )
    return json_answer(execution(await runs.trigger(caller(request), new), dag.config_id), status=201)


async def get_execution(request: web.Request) -> web.StreamResponse:
    """An execution by its id, or the newest one with a tag."""
    text = request.match_info["id"]
    run = await _tagged(request, text) if parse_uuid(text) is None else await find_execution(request)
    dag = await services(request).runs.dag(caller(request), run.dag_id)
    shown = execution(run, dag.config_id)
    shown["metadata"] = None if run.metadata is None else orjson.loads(run.metadata)
    shown["error_info"] = error_info(run)
    return json_answer(shown)


async def find_execution(request: web.Request) -> Run:
    """The run that the path names by its id. Raises RunNotFound."""
    text = request.match_info["id"]
    run_id = parse_uuid(text)
    if run_id is None:
        raise _not_found(text)
    try:
        return await services(request).runs.get(caller(request), run_id)
    except RunNotFound:
        raise _not_found(text) from None


async def _tagged(request: web.Request, tag: str) -> Run:
    if len(tag) > MAX_NAME_LENGTH or "\0" in tag:  # no tag is like that, and not every database can be asked for it
        raise _not_found(tag)
    try:
        return await services(request).runs.find_tagged(caller(request), tag)
    except RunNotFound:
        raise _not_found(tag) from None


def _not_found(text: str) -> RunNotFound:
    return RunNotFound(f"there is no execution {text!r}")
