"""The room's routes and its error shape."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from taskserver import errors
from taskserver.api.executions import described
from taskserver.api.executions.answers import json_answer
from taskserver.api.executions.events import EVENTS_QUERY, get_events
from taskserver.api.executions.executions import NEW_EXECUTION, ConfigNotFound, create_execution, get_execution
from taskserver.api.executions.lineage import LINEAGE_QUERY, get_lineage
from taskserver.api.executions.schemas import EventsHeaders
from taskserver.api.executions.wait import WAIT, wait_execution
from taskserver.errors import TaskServerError
from taskserver.jsontext import isotime
from taskserver.model import Scope, now_us
from taskserver.streams import SSE
from taskserver.web import failures
from taskserver.web.auth import api_key, known_api_key
from taskserver.web.failures import Unprocessable
from taskserver.web.rooms import API_KEY_SECURITY, Answer, Room, Route

ROUTES = (
    Route(
        "POST",
        "",
        create_execution,
        Scope.WRITE,
        body=NEW_EXECUTION,
        answers=(Answer(201, described.Execution()),),
        fails=(ConfigNotFound,),
    ),
    Route(
        "GET",
        "/{id}",
        get_execution,
        Scope.READ,
        answers=(Answer(schema=described.WholeExecution()),),
        fails=(errors.RunNotFound,),
    ),
    Route(
        "POST",
        "/{id}/wait",
        wait_execution,
        Scope.READ,
        body=WAIT,
        answers=(Answer(schema=described.WaitResult()),),
        fails=(errors.RunNotFound, errors.TooManyWaiters, errors.Draining),
    ),
    Route(
        "GET",
        "/{id}/events",
        get_events,
        Scope.READ,
        query=EVENTS_QUERY,
        headers=EventsHeaders(),
        answers=(
            Answer(types=(SSE.content_type,)),
            Answer(204, about="To the reconnect of an `EventSource` that has seen the end."),
        ),
        fails=(errors.RunNotFound, errors.TooManyWaiters),
    ),
    Route(
        "GET",
        "/{id}/lineage",
        get_lineage,
        Scope.READ,
        query=LINEAGE_QUERY,
        answers=(Answer(schema=described.Lineage()),),
        fails=(errors.RunNotFound,),
    ),
)

# Where this protocol has a word of its own.
CODES: dict[type[TaskServerError], str] = {errors.RunNotFound: "execution_not_found"}


def executions_room() -> Room:
    """The room."""
    return Room(
        "executions",
        ("/api/v1/executions",),
        ROUTES,
        api_key,
        refuse,
        recall=known_api_key,
        about="Runs as executions: create them, wait for them, follow their events.",
        error=described.Failure(),
        security=API_KEY_SECURITY,
        bad_query=(Unprocessable,),
        bad_body=(Unprocessable, errors.UnsupportedMediaType, errors.TooLarge),
    )


def refuse(error: TaskServerError) -> web.Response:
    """FastAPI's list for what is not valid, and ``{"detail", "error_code", "correlation_id", "timestamp"}`` else."""
    shown: dict[str, Any] = {"detail": error.message}
    if isinstance(error, Unprocessable):
        shown["detail"] = error.faults
    else:
        shown["error_code"] = CODES.get(type(error), error.code)
        shown["correlation_id"] = error.request_id
        shown["timestamp"] = isotime(now_us())
    return json_answer(shown, status=failures.status(error))
