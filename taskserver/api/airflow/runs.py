"""Dag runs: trigger, show and list them (PROTOCOLS.md, B2)."""

from __future__ import annotations

import re

from aiohttp import web

from taskserver.api.airflow.answers import json_answer
from taskserver.api.airflow.schemas import MAX_LIMIT, PageQuery, TriggerBody
from taskserver.api.airflow.shapes import run_shape
from taskserver.dagmodel import NewRun, Run, manual_run_id, uuid7
from taskserver.errors import BadParameter, DagNotFound, RunNotFound
from taskserver.model import now_us
from taskserver.web.context import caller, services
from taskserver.web.validation import load_body, load_query

TRIGGER, RUNS_QUERY = TriggerBody(), PageQuery()

RUN_ID = re.compile(r"[A-Za-z0-9_.~:+-]+")  # Airflow's default for `allowed_run_id_pattern`
SCHEDULED = "scheduled__"  # Airflow's scheduler names its runs so
MAX_OFFSET = 2**31  # no dag has that many runs, and every database can count so far


async def trigger_run(request: web.Request) -> web.StreamResponse:
    """Queue a run of a dag."""
    dag_id = request.match_info["dag_id"]
    wish = await load_body(request, TRIGGER)
    now = now_us()
    logical_date, start, end = wish["logical_date"], wish["data_interval_start"], wish["data_interval_end"]
    run_after = wish["run_after"]
    if logical_date is not None and start is None:
        # What Airflow infers for a dag without a schedule: the interval is a moment, and the run is due then.
        start = end = logical_date
        run_after = logical_date if run_after is None else run_after
    new = NewRun(
        id=uuid7(now),
        run_id=_checked(wish["dag_run_id"]) or manual_run_id(now),
        triggered_by=caller(request).name,
        dag_id=dag_id,
        conf=wish["conf"] or b"{}",
        note=wish["note"],
        partition_key=wish["partition_key"],
        logical_date=logical_date,
        data_interval_start=start,
        data_interval_end=end,
        run_after=run_after,
    )
    try:
        return json_answer(run_shape(await services(request).runs.trigger(caller(request), new)))
    except DagNotFound:
        raise DagNotFound(f"Dag with dag_id: '{dag_id}' not found") from None


async def get_run(request: web.Request) -> web.StreamResponse:
    """One run."""
    return json_answer(run_shape(await find_run(request)))


async def list_runs(request: web.Request) -> web.StreamResponse:
    """The runs of a dag, in the order in which they were triggered."""
    dag_id = request.match_info["dag_id"]
    page = load_query(request, RUNS_QUERY, strict=True)
    limit, offset = min(page["limit"], MAX_LIMIT), min(page["offset"], MAX_OFFSET)
    try:
        runs, total = await services(request).runs.list_runs(caller(request), dag_id, limit, offset)
    except DagNotFound:
        raise DagNotFound(f"The Dag with ID: `{dag_id}` was not found") from None
    return json_answer({"dag_runs": [run_shape(run) for run in runs], "total_entries": total})


async def find_run(request: web.Request) -> Run:
    """The run that the path names. Raises RunNotFound, in Airflow's words."""
    dag_id, run_id = request.match_info["dag_id"], request.match_info["dag_run_id"]
    try:
        return await services(request).runs.find(caller(request), dag_id, run_id)
    except RunNotFound:
        raise RunNotFound(f"The DagRun with dag_id: `{dag_id}` and run_id: `{run_id}` was not found") from None


def _checked(run_id: str | None) -> str | None:
    """A run id that the caller chose. Raises BadParameter."""
    if not run_id:
        return None
    if not RUN_ID.fullmatch(run_id):
        raise BadParameter(f"The run_id provided '{run_id}' does not match regex pattern '^{RUN_ID.pattern}$'")
    if ".." in run_id:
        raise BadParameter(f"The run_id provided '{run_id}' must not contain '..'")
    if run_id.startswith(SCHEDULED):
        raise BadParameter(f"A manual DAG run cannot use ID {run_id!r} since it is reserved for scheduled runs")
    return run_id
