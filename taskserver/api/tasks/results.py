"""What came out of a run, once it has ended (PROTOCOLS.md, A6)."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from taskserver.api.tasks.answers import make_head
from taskserver.api.tasks.prefer import preference_applied, preferred_wait
from taskserver.api.tasks.run_schemas import ResultQuery
from taskserver.dagmodel import Run
from taskserver.jsontext import dumps
from taskserver.summaries import run_head
from taskserver.web.context import caller, services
from taskserver.web.prepared import Prepared

RESULT_QUERY = ResultQuery()


async def answer_result(request: web.Request, run: Run, wait: int | None) -> web.StreamResponse:
    """A run's state and results when it has ended; 202 if it goes on after ``wait`` seconds (None: what is preferred).

    On failure too the status is 200: the request has succeeded, and ``state`` tells of the run.
    """
    headers = {}
    if wait is None and (preferred := preferred_wait(request)) is not None:
        wait, headers = preferred, preference_applied(preferred)
    runs = services(request).runs
    run = await runs.wait_end(caller(request), run.id, wait or 0)
    results = await runs.results(run, None) if run.finished else {}
    status = HTTPStatus.OK if run.finished else HTTPStatus.ACCEPTED
    if not run.finished:
        headers["Location"] = f"{request.path[: request.path.index('/v1/')]}/v1/runs/{run.id}/result"
    return Prepared(make_head(headers, status), dumps({**run_head(run), "results": results}))
