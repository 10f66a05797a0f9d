"""The room's routes, its authentication and its error shape."""

from __future__ import annotations

import orjson
from aiohttp import web

from taskserver import errors
from taskserver.api.tasks import dags, keys, output, producing, reading, runs
from taskserver.api.tasks.answers import JSON
from taskserver.errors import TaskServerError
from taskserver.keys import Caller
from taskserver.model import Scope
from taskserver.web import failures
from taskserver.web.context import services
from taskserver.web.rooms import Room, Route
from taskserver.web.streaming import NO_STORE

SCHEMES = ("Key ", "Bearer ")  # Posit Connect's, and the one that most HTTP libraries know

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
    errors.TooManyWaiters: 1020,
    errors.Draining: 1021,
    errors.StoreUnavailable: 1022,
    errors.StoreFull: 1023,
    failures.UrlTooLong: 1030,
    failures.HeadersTooLarge: 1031,
    failures.BadRequest: 1032,
    failures.InternalError: 1033,
}

ROUTES = (
    Route("GET", "/experimental/tasks/{id}", reading.get_task, Scope.READ),
    Route("GET", "/tasks/{id}", reading.get_task, Scope.READ),
    Route("GET", "/tasks/{id}/output", output.get_output, Scope.READ),
    Route("GET", "/tasks", reading.list_tasks, Scope.READ),
    Route("POST", "/tasks", producing.create_task, Scope.WRITE),
    Route("POST", "/tasks/{id}/output", producing.append_output, Scope.WRITE),
    Route("PUT", "/tasks/{id}/output", producing.append_output, Scope.WRITE),
    Route("POST", "/tasks/{id}/finish", producing.finish_task, Scope.WRITE),
    Route("POST", "/tasks/{id}/heartbeat", producing.heartbeat, Scope.WRITE),
    Route("POST", "/tasks/{id}/cancel", producing.cancel_task, Scope.WRITE),
    Route("DELETE", "/tasks/{id}", producing.delete_task, Scope.WRITE),
    Route("GET", "/dags", dags.list_dags, Scope.READ),
    Route("GET", "/dags/{dag_id}", dags.get_dag, Scope.READ),
    Route("PUT", "/dags/{dag_id}", dags.put_dag, Scope.WRITE),
    Route("POST", "/dags/{dag_id}/runs", dags.trigger_run, Scope.WRITE),
    Route("POST", "/runs/claim", runs.claim_run, Scope.WRITE),
    Route("GET", "/runs/{id}", runs.get_run, Scope.READ),
    Route("POST", "/runs/{id}/tasks", runs.create_task, Scope.WRITE),
    Route("POST", "/runs/{id}/heartbeat", runs.heartbeat, Scope.WRITE),
    Route("POST", "/runs/{id}/finish", runs.finish_run, Scope.WRITE),
    Route("POST", "/runs/{id}/cancel", runs.cancel_run, Scope.WRITE),
    Route("DELETE", "/runs/{id}", runs.delete_run, Scope.WRITE),
    Route("GET", "/keys", keys.list_keys, Scope.ADMIN),
    Route("POST", "/keys", keys.create_key, Scope.ADMIN),
    Route("DELETE", "/keys/{id}", keys.revoke_key, Scope.ADMIN),
)


def tasks_room() -> Room:
    """The room, under our own prefix and under Posit Connect's."""
    return Room("tasks", ("/v1", "/__api__/v1"), ROUTES, authenticate, refuse)


async def authenticate(request: web.Request) -> Caller:
    """``Authorization: Key XXXX`` (or ``Bearer``); the scheme's case does not matter (RFC 9110, 11.1)."""
    header = request.headers.get("Authorization", "")
    for scheme in SCHEMES:
        if header[: len(scheme)].lower() == scheme.lower():
            return await services(request).keys.verify(header[len(scheme) :].strip())
    raise errors.NoCredential("send an API key: Authorization: Key XXXX")


def refuse(error: TaskServerError) -> web.Response:
    """``{"code", "error", "payload"}`` (CONTRACTS A2)."""
    body = orjson.dumps({"code": _code(error), "error": error.message, "payload": error.payload})
    return web.Response(body=body, status=failures.status(error), headers={**NO_STORE, "Content-Type": JSON})


def _code(error: TaskServerError) -> int:
    return next(CODES[base] for base in type(error).__mro__ if base in CODES)
