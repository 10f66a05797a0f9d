"""Failures on the wire: those that exist only where there is HTTP, and the status and headers of all."""

from __future__ import annotations

import math
import random
import uuid
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from taskserver import errors
from taskserver.errors import TaskServerError

RETRY_AFTER_SECONDS = 1  # a restart or a burst is over by then, as a rule
LONGEST_RETRY_AFTER = 5  # seconds: thousands who found no place to wait must not come back together


class NoSuchEndpoint(TaskServerError):
    """No route has this path."""

    code = "no_such_endpoint"


class MethodNotAllowed(TaskServerError):
    """The path exists, but not with this method."""

    code = "method_not_allowed"

    def __init__(self, method: str, path: str, allowed: Sequence[str]) -> None:
        super().__init__(f"{method} is not allowed on {path}; allowed: {', '.join(allowed)}")
        self.allowed = allowed


class UrlTooLong(TaskServerError):
    """The request's path and query are longer than the limit."""

    code = "url_too_long"


class HeadersTooLarge(TaskServerError):
    """A header of the request is longer than the limit."""

    code = "headers_too_large"


class BadRequest(TaskServerError):
    """The request breaks HTTP itself."""

    code = "bad_request"


class Unprocessable(TaskServerError):
    """A value of the request is not valid.

    ``faults`` lists what is wrong as FastAPI would (see ``web.validation``).
    """

    code = "unprocessable"

    def __init__(self, message: str, faults: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.faults = faults


class InternalError(TaskServerError):
    """A bug of ours; the log has the details.

    They stand there under ``correlation_id``.
    """

    code = "internal_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.correlation_id = str(uuid.uuid4())


_STATUS: dict[type[TaskServerError], HTTPStatus] = {
    errors.BadParameter: HTTPStatus.BAD_REQUEST,
    errors.BadJson: HTTPStatus.BAD_REQUEST,
    errors.BadBody: HTTPStatus.BAD_REQUEST,
    errors.UnsupportedMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.NoCredential: HTTPStatus.UNAUTHORIZED,
    errors.BadCredential: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.TaskNotFound: HTTPStatus.NOT_FOUND,
    errors.KeyNotFound: HTTPStatus.NOT_FOUND,
    errors.DagNotFound: HTTPStatus.NOT_FOUND,
    errors.RunNotFound: HTTPStatus.NOT_FOUND,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.TooManyWaiters: HTTPStatus.TOO_MANY_REQUESTS,
    errors.TooManyRequests: HTTPStatus.TOO_MANY_REQUESTS,
    errors.Draining: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.StoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.StoreFull: HTTPStatus.INSUFFICIENT_STORAGE,
    NoSuchEndpoint: HTTPStatus.NOT_FOUND,
    MethodNotAllowed: HTTPStatus.METHOD_NOT_ALLOWED,
    UrlTooLong: HTTPStatus.REQUEST_URI_TOO_LONG,
    HeadersTooLarge: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    BadRequest: HTTPStatus.BAD_REQUEST,
    Unprocessable: HTTPStatus.UNPROCESSABLE_ENTITY,
    InternalError: HTTPStatus.INTERNAL_SERVER_ERROR,
}


def status(error: TaskServerError) -> HTTPStatus:
    """The HTTP status of an error, by its class or the nearest one above it that has one."""
    for base in type(error).__mro__:
        if base in _STATUS:
            return _STATUS[base]
    return HTTPStatus.INTERNAL_SERVER_ERROR


def headers(error: TaskServerError) -> dict[str, str]:
    """The headers that an error's answer carries in every room."""
    if isinstance(error, MethodNotAllowed):
        return {"Allow": ", ".join(error.allowed)}
    if isinstance(error, errors.TooManyRequests):
        return {"Retry-After": str(max(1, math.ceil((error.payload or {}).get("retry_after", 0))))}
    if isinstance(error, errors.TooManyWaiters):
        return {"Retry-After": str(random.randint(1, LONGEST_RETRY_AFTER))}  # noqa: S311 - jitter is no secret
    if isinstance(error, (errors.StoreUnavailable, errors.Draining)):
        return {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return {}
