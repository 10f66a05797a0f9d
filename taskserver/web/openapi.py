"""The OpenAPI document: made once from the rooms' route tables, the schemas that validate and the errors' answers.

Nothing is written down twice: a summary is the first paragraph of the handler's docstring, a failure's status,
content type and headers are those of the answer that its room would give.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import web
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema

from taskserver import __version__, errors
from taskserver.errors import TaskServerError
from taskserver.model import Scope
from taskserver.web import failures
from taskserver.web.openapi_fields import refine, refine_parameter
from taskserver.web.rooms import Answer, Failure, Room, Route

OPENAPI_VERSION = "3.1.0"
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
EVENTS = "text/event-stream"
ETAG_LENGTH = 32  # 128 bits


@dataclass(frozen=True)
class Document:
    """An encoded document, and what tells it from others."""

    body: bytes
    etag: str


DOCUMENT = web.AppKey("openapi", Document)
"""The document of a server."""

ABOUT = """Keeps the output, state and result of long-running tasks, and tells everyone who waits.

Every `GET` answers `HEAD` too. What the endpoints mean is written in PROTOCOLS.md."""

_VARIABLE = re.compile(r"{(\w+)(:[^{}]*)?}")
_ANY_ROUTE = (failures.UrlTooLong, failures.HeadersTooLarge, failures.InternalError)
_BOUNDED = (errors.TooManyRequests,)
_WITH_KEY = (
    errors.NoCredential,
    errors.BadCredential,
    errors.TooManySignIns,
    errors.Forbidden,
    errors.StoreUnavailable,
)


def encode_document(rooms: Sequence[Room]) -> Document:
    """The document of these rooms, as it is served."""
    body = orjson.dumps(make_document(rooms))
    return Document(body, hashlib.sha256(body).hexdigest()[:ETAG_LENGTH])


def make_document(rooms: Sequence[Room]) -> dict[str, Any]:
    """The document of these rooms: each route once, under the first prefix of its room."""
    plugin = MarshmallowPlugin(schema_name_resolver=_schema_name)
    spec = APISpec(
        "taskserver",
        __version__,
        OPENAPI_VERSION,
        plugins=[plugin],
        info={"description": ABOUT},
        # Relative to the document, so that it is true behind a proxy's path prefix too.
        servers=[{"url": "."}],
        tags=[{"name": room.name, "description": _about(room)} for room in rooms],
    )
    assert plugin.converter is not None  # APISpec has set it up
    plugin.converter.add_attribute_function(refine)  # type: ignore[no-untyped-call]
    plugin.converter.add_parameter_attribute_function(refine_parameter)
    schemes = {name: dict(scheme) for room in rooms for name, scheme in room.security.items()}
    for name, scheme in schemes.items():
        spec.components.security_scheme(name, scheme)
    for room in rooms:
        for route in room.routes:
            path = _VARIABLE.sub(r"{\1}", room.prefixes[0] + route.path)
            spec.path(path=path, operations={route.method.lower(): _operation(room, route, path)})
    document: dict[str, Any] = spec.to_dict()
    return document


def _about(room: Room) -> str:
    main, *others = room.prefixes
    same = [f"What is under `{main}` is under `{other}` too, and the same." for other in others]
    return " ".join([room.about, *same])


def _operation(room: Room, route: Route, path: str) -> dict[str, Any]:
    summary, _, description = _docstring(route.handler).partition("\n\n")
    operation: dict[str, Any] = {
        "tags": [room.name],
        "operationId": re.sub(r"\W+", "_", f"{route.method.lower()}{path}").strip("_"),
        "summary": " ".join(summary.split()).removesuffix("."),
        "parameters": list(_parameters(route, path)),
        "responses": dict(sorted({**_failures(room, route), **_answers(route)}.items())),
    }
    if description:
        operation["description"] = description
    if route.scope is not None:
        # A role name, as OpenAPI 3.1 allows it for every kind of scheme.
        operation["security"] = [{name: [route.scope.value]} for name in room.security]
    if route.body is not None or route.body_types:
        operation["requestBody"] = _body(route)
    return operation


def _parameters(route: Route, path: str) -> Iterable[dict[str, Any]]:
    known = {} if route.path_fields is None else route.path_fields.fields
    for name, _ in _VARIABLE.findall(path):
        if name not in known:
            yield {"in": "path", "name": name, "required": True, "schema": {"type": "string", "minLength": 1}}
    if route.path_fields is not None:
        yield {"in": "path", "schema": route.path_fields}
    if route.query is not None:
        yield {"in": "query", "schema": route.query}
    if route.headers is not None:
        yield {"in": "header", "schema": route.headers}


def _body(route: Route) -> dict[str, Any]:
    kinds = ([JSON] if route.body is not None else []) + list(route.body_types)
    needed = route.body is not None and any(field.required for field in route.body.fields.values())
    return {
        # An absent body is an empty one, of either kind.
        "required": needed and all(kind in (JSON, FORM) for kind in kinds),
        "content": {kind: _content(route.body, kind) for kind in kinds},
    }


def _answers(route: Route) -> dict[str, Any]:
    # A route without a word about its answers can still answer.
    return {str(answer.status): _answer(answer) for answer in route.answers or (Answer(),)}


def _answer(answer: Answer) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.about or HTTPStatus(answer.status).phrase}
    kinds = ([JSON] if answer.schema is not None else []) + list(answer.types)
    if kinds:
        described["content"] = {kind: _content(answer.schema, kind) for kind in kinds}
    if answer.headers:
        described["headers"] = _headers(answer.headers)
    return described


def _content(schema: Schema | None, kind: str) -> dict[str, Any]:
    if kind in (JSON, FORM):
        return {"schema": {"type": "object"} if schema is None else schema}
    # OpenAPI 3.1 cannot say of a stream whether a schema means one event or all of them.
    return {} if kind == EVENTS else {"schema": {"type": "string"}}


def _failures(room: Room, route: Route) -> dict[str, Any]:
    """The answers to what can fail, by status, as the room gives them."""
    described: dict[str, Any] = {}
    for failure in _ways_to_fail(room, route):
        example = failure("") if isinstance(failure, type) else failure
        refusal = room.refuse(example)
        known = described.setdefault(
            str(refusal.status),
            {"description": "", "content": {refusal.content_type: _content(room.error, refusal.content_type)}},
        )
        known["description"] = "\n\n".join(filter(None, [known["description"], _meaning(type(example))]))
        if headers := failures.headers(example):
            known["headers"] = _headers(dict.fromkeys(headers, ""))
    return described


def _ways_to_fail(room: Room, route: Route) -> list[Failure]:
    ways: list[Failure] = [*route.fails, *_ANY_ROUTE, *(() if room.unbounded else _BOUNDED)]
    if route.scope is not None:
        ways += _WITH_KEY
        if route.method != "GET" and route.scope is not Scope.READ:
            ways.append(errors.StoreFull)
    if any(schema is not None for schema in (route.path_fields, route.query, route.headers)):
        ways += room.bad_query
    if route.body is not None or route.body_types:
        ways += room.bad_body
    return list(dict.fromkeys(ways))


def _meaning(error: type[TaskServerError]) -> str:
    """The first paragraph of an error's docstring."""
    return " ".join(_docstring(error).partition("\n\n")[0].split())


def _docstring(of: object) -> str:
    """A docstring as Markdown."""
    return (inspect.getdoc(of) or "").replace("``", "`")


def _headers(headers: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: {"schema": {"type": "string"}, **({"description": about} if about else {})}
        for name, about in headers.items()
    }


def _schema_name(schema: Schema | type[Schema]) -> str:
    """``tasks.NewTaskBody``: rooms need not agree on names."""
    kind = schema if isinstance(schema, type) else type(schema)
    package = kind.__module__.split(".")
    return f"{package[2]}.{kind.__name__}" if package[:2] == ["taskserver", "api"] else kind.__name__
