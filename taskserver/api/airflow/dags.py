"""Dags, as they were registered (PROTOCOLS.md, B2)."""

from __future__ import annotations

from aiohttp import web

from taskserver.api.airflow.answers import json_answer
from taskserver.api.airflow.schemas import MAX_LIMIT, PageQuery
from taskserver.api.airflow.shapes import dag_shape
from taskserver.errors import DagNotFound
from taskserver.web.context import caller, services
from taskserver.web.validation import load_query

DAGS_QUERY = PageQuery()


async def list_dags(request: web.Request) -> web.StreamResponse:
    """The caller's dags in order of their ids."""
    page = load_query(request, DAGS_QUERY, strict=True)
    dags = await services(request).runs.dags(caller(request))
    shown = dags[page["offset"] :][: min(page["limit"], MAX_LIMIT)]
    return json_answer({"dags": [dag_shape(dag) for dag in shown], "total_entries": len(dags)})


async def get_dag(request: web.Request) -> web.StreamResponse:
    """One dag."""
    dag_id = request.match_info["dag_id"]
    try:
        return json_answer(dag_shape(await services(request).runs.dag(caller(request), dag_id)))
    except DagNotFound:
        raise DagNotFound(f"Dag with id {dag_id} was not found") from None
