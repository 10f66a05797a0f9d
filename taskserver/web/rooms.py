"""Room: what a protocol tells the shared web layer about itself, and what the OpenAPI document says of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from marshmallow import EXCLUDE, Schema

from taskserver.errors import BadBody, BadJson, BadParameter, TaskServerError, TooLarge, UnsupportedMediaType
from taskserver.keys import Caller
from taskserver.model import Scope

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Authenticate = Callable[[web.Request], Awaitable[Caller]]
Failure = type[TaskServerError] | TaskServerError
"""A way to fail: a class of errors, or an example of it where the class needs more than a message."""

API_KEY_SECURITY: Mapping[str, Mapping[str, Any]] = {
    "key": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "An API key: `Authorization: Key XXXX`. The value begins with the word `Key` and a space.",
    },
    "bearer": {"type": "http", "scheme": "bearer", "description": "The same API key: `Authorization: Bearer XXXX`."},
}
"""The security schemes of a room that takes API keys as they are."""


class AnswerSchema(Schema):
    """Base of the schemas that describe answers: a later version may add fields, so a client must ignore those."""

    class Meta:  # noqa: D106 - marshmallow's place for options
        unknown = EXCLUDE


@dataclass(frozen=True)
class Answer:
    """One way in which a route answers when nothing went wrong.

    Attributes:
        status: its HTTP status.
        schema: the fields of its JSON body.
        types: the media types of further bodies, which are text. Without these and a schema there is no body
            that could be described.
        about: what it means, if the status' own phrase does not say it.
        headers: names of headers that matter, and what they say.
    """

    status: int = 200
    schema: Schema | None = None
    types: tuple[str, ...] = ()
    about: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


NOT_MODIFIED = Answer(304, about="The client has this version already.")


@dataclass(frozen=True)
class Route:
    """One endpoint.

    ``method``, ``path``, ``handler`` and ``scope`` are what it does; the others say the same to those who read the
    OpenAPI document.

    Attributes:
        scope: what a key needs for it; None if it needs no key.
        path_fields: the schema of those variables of its path that are not only looked up.
        query: the schema that validates its query.
        headers: the request headers that matter.
        body: the schema that validates its JSON body.
        body_types: the media types of other bodies that it takes; a form has the fields of ``body``, the others are
            text.
        answers: what it answers when nothing went wrong.
        fails: its own ways to fail, beside those that follow from its scope, query and body.
    """

    method: str
    path: str
    handler: Handler
    scope: Scope | None
    path_fields: Schema | None = None
    query: Schema | None = None
    headers: Schema | None = None
    body: Schema | None = None
    body_types: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()
    fails: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class Room:
    """One protocol.

    Attributes:
        name: for logs and metrics.
        prefixes: what the paths of the room begin with; every route is served under each.
        routes: its endpoints, relative to a prefix.
        authenticate: who asks; raises NoCredential or BadCredential.
        recall: the same for who is known already, without waiting; None if that is not certain.
        refuse: the answer to a failure, in the room's own shape; the status comes from ``failures.status``.
        about: one sentence for the OpenAPI document.
        error: the fields of what ``refuse`` answers.
        security: OpenAPI's security scheme objects by name; any one of them is enough.
        bad_query: what a query that is not valid raises.
        bad_body: what a body that is not valid raises.
        unbounded: its routes are answered however often they are asked.
    """

    name: str
    prefixes: tuple[str, ...]
    routes: tuple[Route, ...]
    authenticate: Authenticate
    refuse: Callable[[TaskServerError], web.Response]
    recall: Callable[[web.Request], Caller | None] = lambda _: None
    about: str = ""
    error: Schema | None = None
    security: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    bad_query: tuple[Failure, ...] = (BadParameter,)
    bad_body: tuple[Failure, ...] = (BadJson, BadBody, UnsupportedMediaType, TooLarge)
    unbounded: bool = False
