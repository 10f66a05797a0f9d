"""A task's log: its output lines as events (PROTOCOLS.md, B4)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiohttp import web

from taskserver.api.airflow.answers import JSON, NDJSON, NotAcceptable
from taskserver.api.airflow.runs import find_run
from taskserver.api.airflow.schemas import LogPath, LogQuery
from taskserver.api.airflow.shapes import log_events
from taskserver.errors import BadParameter, RunNotFound, TaskNotFound
from taskserver.jsontext import dumps
from taskserver.meters import Waiter
from taskserver.model import Place, Task
from taskserver.tasks import Page
from taskserver.web.context import caller, services
from taskserver.web.streaming import LIVE, stream
from taskserver.web.validation import load, load_query

LOG_QUERY, LOG_PATH = LogQuery(), LogPath()
CONTINUATION = "Airflow-Continuation-Token"

_MEDIA_TYPES = {JSON: JSON, NDJSON: NDJSON, "*/*": JSON, "application/*": JSON, "": JSON}
_CURSOR = re.compile(r"(\d{1,10}) (\S+)", re.ASCII)
_BEGIN = b'{"content":['


async def get_log(request: web.Request) -> web.StreamResponse:
    """The log of one try of a task, from the beginning or from a token on.

    JSON is what there is now; NDJSON goes on until the task has ended.
    """
    media_type = _media_type(request)
    args = load_query(request, LOG_QUERY)
    path = load(LOG_PATH, {"try_number": request.match_info["try_number"]}, "path")
    place = (request.match_info["task_id"], args["map_index"], path["try_number"])
    if args["token"]:
        task, first = await _resume(request, place, args["token"])
    else:
        task, first = await _find_task(request, place), 0
    if media_type == NDJSON:
        return await _follow(request, task, first)
    return await _answer(request, task, first)


async def _answer(request: web.Request, task: Task, first: int) -> web.StreamResponse:
    """All events from ``first`` on, in one object; the token says where the next ones will begin."""
    pages = services(request).tasks.pages(task, first, task.last)
    token = None if task.finished else _token(task, task.last)
    async with aclosing(pages), aclosing(_object(pages, token)) as parts:
        return await stream(request, parts, JSON)


async def _object(pages: AsyncGenerator[Page, None], token: str | None) -> AsyncGenerator[bytes, None]:
    begun = False
    async for page in pages:
        yield (b"," if begun else _BEGIN) + b",".join(log_events(page.chunks))
        begun = True
    yield (b"" if begun else _BEGIN) + b'],"continuation_token":' + dumps(token) + b"}"


async def _follow(request: web.Request, task: Task, first: int) -> web.StreamResponse:
    core = services(request)
    pages = core.tasks.follow(caller(request), task.id, first, core.settings.timing.heartbeat, Waiter.LOG)
    headers = LIVE if task.finished else {**LIVE, CONTINUATION: _token(task, first)}
    async with aclosing(pages), aclosing(_lines(request, pages)) as parts:
        return await stream(request, parts, NDJSON, headers)


async def _lines(request: web.Request, pages: AsyncGenerator[Page, None]) -> AsyncGenerator[bytes, None]:
    complete = False
    async for page in pages:
        caller(request).check()  # a long catch-up never waits: a revoked key must end it all the same
        # An empty part too: the headers go out with the first one.
        yield b"".join(event + b"\n" for event in log_events(page.chunks))
        complete = page.complete
    if not complete:
        raise ConnectionResetError("the server is shutting down")  # this must not look like the log's end


# --- which log, and from where -------------------------------------------------


def _media_type(request: web.Request) -> str:
    """The first of the types in ``Accept`` that there is. Raises NotAcceptable."""
    for item in ",".join(request.headers.getall("Accept", ("",))).split(","):
        chosen = _MEDIA_TYPES.get(item.partition(";")[0].strip().lower())
        if chosen is not None:
            return chosen
    raise NotAcceptable(f"Only {JSON} or {NDJSON} is supported")


async def _find_task(request: web.Request, place: tuple[str, int, int]) -> Task:
    try:
        run = await find_run(request)
    except RunNotFound:
        raise _not_found() from None
    for task in await services(request).runs.tasks(caller(request), run):
        if task.place == Place(run.id, *place):
            return task
    raise _not_found()


async def _resume(request: web.Request, place: tuple[str, int, int], token: str) -> tuple[Task, int]:
    """The task and the line that a token stands for: both are in memory while the task runs, nothing is read.

    Raises BadParameter if it is no token of ours, or one for another log.
    """
    core, who = services(request), caller(request)
    try:
        text = base64.b64decode(token, b"-_", validate=True).decode("ascii")
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise ValueError(text)
    except (binascii.Error, ValueError):
        raise _bad_token() from None
    first = int(match[1])
    try:
        task = await core.tasks.get(who, match[2])
        if task.place is None or first > task.last:
            raise _bad_token()
        run = await core.runs.get(who, task.place.run)
    except (TaskNotFound, RunNotFound):
        raise _not_found() from None
    named = (request.match_info["dag_id"], request.match_info["dag_run_id"])
    if (run.dag_id, run.run_id) != named or task.place != Place(run.id, *place):
        raise _bad_token()
    return task, first


def _token(task: Task, first: int) -> str:
    """Line ``first`` of a task's log, in a form that invites nobody to calculate with it."""
    return base64.urlsafe_b64encode(f"{first} {task.id}".encode()).decode()


def _bad_token() -> BadParameter:
    return BadParameter("Bad Signature. Please use only the tokens provided by the API.")


def _not_found() -> TaskNotFound:
    return TaskNotFound("TaskInstance not found")
