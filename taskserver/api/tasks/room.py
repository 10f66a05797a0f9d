"""The room: its authentication and its error shape."""

from __future__ import annotations

import orjson
from aiohttp import web

from taskserver import errors
from taskserver.api.tasks import described
from taskserver.api.tasks.answers import JSON
from taskserver.api.tasks.routes import ROUTES
from taskserver.errors import TaskServerError
from taskserver.web import failures
from taskserver.web.auth import key_or_session, known_key_or_session
from taskserver.web.rooms import API_KEY_SECURITY, Room
from taskserver.web.streaming import NO_STORE

# Posit Connect's own numbers where it has one (CONTRACTS A2); ours begin at 1000.
CODES: dict[type[TaskServerError], int] = {
    failures.NoSuchEndpoint: 2,
    failures.MethodNotAllowed: 2,
    errors.TaskNotFound: 4,
    errors.KeyNotFound: 4,
    errors.DagNotFound: 4,
    errors.RunNotFound: 4,
    errors.FirstBeyondOutput: 13,
    errors.Forbidden: 22,
    errors.NoCredential: 24,
    errors.BadParameter: 25,
    errors.BadCredential: 30,
    errors.BadBody: 87,
    errors.UnsupportedMediaType: 87,
    errors.BadJson: 121,
    errors.TaskExists: 1001,
    errors.AppendConflict: 1002,
    errors.TaskFinished: 1003,
    errors.TaskNotFinished: 1004,
    errors.KeyExists: 1005,
    errors.DagExists: 1006,
    errors.RunExists: 1007,
    errors.RunFinished: 1008,
    errors.RunClaimed: 1009,
    errors.TasksRunning: 1011,
    errors.TooLarge: 1010,
    errors.OutputFull: 1012,
    errors.TooManyWaiters: 1020,
    errors.Draining: 1021,
    errors.StoreUnavailable: 1022,
    errors.StoreFull: 1023,
    errors.TooManyRequests: 1024,
    errors.TooManySignIns: 1025,
    failures.UrlTooLong: 1030,
    failures.HeadersTooLarge: 1031,
    failures.BadRequest: 1032,
    failures.InternalError: 1033,
}


def tasks_room() -> Room:
    """The room, under our own prefix and under Posit Connect's."""
    return Room(
        "tasks",
        ("/v1", "/__api__/v1"),
        ROUTES,
        key_or_session,
        refuse,
        recall=known_key_or_session,
        about="Tasks, their output, dags and runs: Posit Connect's task API and our own.",
        error=described.Failure(),
        security=API_KEY_SECURITY,
    )


def refuse(error: TaskServerError) -> web.Response:
    """``{"code", "error", "payload"}`` (CONTRACTS A2)."""
    body = orjson.dumps({"code": _code(error), "error": error.message, "payload": error.payload})
    return web.Response(body=body, status=failures.status(error), headers={**NO_STORE, "Content-Type": JSON})


def _code(error: TaskServerError) -> int:
    return next(CODES[base] for base in type(error).__mro__ if base in CODES)
