"""The room's JSON answers, and its answers to failures: ``{"detail": …}``, as FastAPI gives them."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from taskserver import errors
from taskserver.errors import TaskServerError
from taskserver.jsontext import dumps
from taskserver.web import failures
from taskserver.web.failures import Unprocessable
from taskserver.web.streaming import NO_STORE

JSON = "application/json"
NDJSON = "application/x-ndjson"
FORM = "application/x-www-form-urlencoded"


class NotAcceptable(TaskServerError):
    """There is no answer in a format that the client accepts."""

    code = "not_acceptable"


# What Airflow says, where it is not the error's own message.
_DETAILS: dict[type[TaskServerError], str] = {
    errors.NoCredential: "Not authenticated",
    errors.TokenExpired: "Token Expired",
    errors.BadCredential: "Invalid JWT token",
    errors.Forbidden: "Forbidden",
    failures.NoSuchEndpoint: "Not Found",
    failures.MethodNotAllowed: "Method Not Allowed",
    failures.InternalError: "Internal Server Error",
}
# Its statuses, where they differ from everybody else's.
_STATUSES: dict[type[TaskServerError], int] = {
    errors.TokenExpired: 401,
    errors.BadCredential: 403,
    NotAcceptable: 406,
}

_LOGIN_DETAILS: dict[type[TaskServerError], str] = {
    errors.BadCredential: "Invalid credentials",
    errors.BadParameter: "Username and password must be provided",
    errors.UnsupportedMediaType: f"Only {JSON} or {FORM} is supported",
    failures.NoSuchEndpoint: _DETAILS[failures.NoSuchEndpoint],
    failures.MethodNotAllowed: _DETAILS[failures.MethodNotAllowed],
    failures.InternalError: _DETAILS[failures.InternalError],
}


def json_answer(value: object, status: int = 200) -> web.Response:
    """A value as the room's JSON."""
    return web.Response(body=dumps(value), status=status, headers={**NO_STORE, "Content-Type": JSON})


def refuse(error: TaskServerError) -> web.Response:
    """The answer to a failure under ``/api/v2``."""
    status = _nearest(_STATUSES, error, failures.status(error))
    return json_answer({"detail": _detail(error)}, status)


def refuse_login(error: TaskServerError) -> web.Response:
    """The answer to a failure under ``/auth``."""
    detail = _nearest(_LOGIN_DETAILS, error, error.message)
    if isinstance(error, Unprocessable):
        detail = _as_text(error)
    return json_answer({"detail": detail}, failures.status(error))


def _detail(error: TaskServerError) -> Any:
    if isinstance(error, Unprocessable):
        return list(error.faults)
    if isinstance(error, errors.RunExists):
        # Airflow tells the statement that failed only where its operator wants that.
        hidden = {"statement": "hidden", "orig_error": "hidden"}
        return {"reason": "Unique constraint violation", **hidden, "message": error.message}
    return _nearest(_DETAILS, error, error.message)


def _as_text(error: Unprocessable) -> str:
    """The list as the text that pydantic prints; without the inputs, since one of them may be a key."""
    count = len(error.faults)
    lines = [f"{count} validation error{'' if count == 1 else 's'} for LoginBody"]
    for fault in error.faults:
        lines.append(".".join(str(part) for part in fault["loc"][1:]))
        lines.append(f"  {fault['msg']} [type={fault['type']}]")
    return "\n".join(lines)


def _nearest(table: dict[type[TaskServerError], Any], error: TaskServerError, default: Any) -> Any:
    """What a table says of an error's class or the nearest one above it."""
    return next((table[base] for base in type(error).__mro__ if base in table), default)
