"""What the room's requests may say. The bounds' reasons stand in ``config``."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson
from marshmallow import Schema, ValidationError, fields, post_load, pre_load, validate

from taskserver.config import (
    DEFAULT_LIST_LIMIT,
    DEFAULT_OUTPUT_LIMIT,
    DEFAULT_SEARCH_LIMIT,
    MAX_CODE,
    MAX_ERROR_LENGTH,
    MAX_KEEP_FINISHED,
    MAX_LABEL_LENGTH,
    MAX_LABELS,
    MAX_LEASE,
    MAX_LINE_NUMBER,
    MAX_LIST_LIMIT,
    MAX_NAME_LENGTH,
    MAX_OUTPUT_LIMIT,
    MAX_OUTPUT_WAIT,
    MAX_SEARCH_LENGTH,
    MAX_SEARCH_LIMIT,
    MAX_TASK_WAIT,
)
from taskserver.model import ID_PATTERN, Scope, TaskState
from taskserver.web.params import Flag, Integer, Number, QueryInteger, body_text, encodable, one_of

FORMATS = {
    "json": "application/json",
    "text": "text/plain",
    "ndjson": "application/x-ndjson",
    "sse": "text/event-stream",
}


NAME = r"[\w.@-]{1,100}\Z"
NAME_ERROR = "must be 1 to 100 of letters, digits, _ . @ -"
MAX_KEY_LIFETIME = 100 * 366 * 24 * 3600


def lease_field(**kwargs: Any) -> Number:
    """Seconds."""
    error = f"must be more than 0 and at most {MAX_LEASE} seconds"
    return Number(validate=validate.Range(0, MAX_LEASE, min_inclusive=False, error=error), **kwargs)


def _line_number(**kwargs: Any) -> QueryInteger:
    return QueryInteger(0, MAX_LINE_NUMBER, **kwargs)


class TaskQuery(Schema):
    """``GET /tasks/{id}``"""

    first = _line_number(load_default=0)
    wait = QueryInteger(0, MAX_TASK_WAIT, load_default=0)


class OutputQuery(Schema):
    """``GET /tasks/{id}/output``"""

    first = _line_number(load_default=0)
    tail = _line_number(load_default=None)
    wait = QueryInteger(0, MAX_OUTPUT_WAIT, load_default=None)
    limit = QueryInteger(
        1,
        MAX_OUTPUT_LIMIT,
        load_default=None,
        metadata={"description": f"by default {DEFAULT_OUTPUT_LIMIT} for `json`, else no bound; not of what follows"},
    )
    follow = fields.Boolean(load_default=False)
    partials = fields.Boolean(
        data_key="partial",  # `partial` is a word of marshmallow's
        load_default=False,
        metadata={"description": "`true`: `ndjson` that follows, and `sse`, tell of unfinished lines too"},
    )
    escapes = fields.Boolean(
        load_default=True, metadata={"description": "`false`: `text` without escape codes, such as colours"}
    )
    format = fields.String(
        load_default=None, validate=validate.OneOf(FORMATS, error="must be one of " + ", ".join(FORMATS))
    )

    @pre_load
    def _one_start(self, data: Any, **_: Any) -> Any:
        if "tail" in data and "first" in data:
            raise ValidationError("give either first or tail, not both", "tail")
        return data


class SearchQuery(Schema):
    """``GET /tasks/{id}/output/search``"""

    q = fields.String(
        required=True,
        validate=[
            validate.Length(1, MAX_SEARCH_LENGTH),
            validate.Regexp(r"[^\n]*\Z", error="must not contain a newline: what is searched are lines"),
        ],
    )
    first = _line_number(load_default=0)
    limit = QueryInteger(
        0,
        MAX_SEARCH_LIMIT,
        load_default=DEFAULT_SEARCH_LIMIT,
        metadata={"description": "matching lines at most; 0: only count them"},
    )
    case = fields.Boolean(load_default=False, metadata={"description": "whether the case of letters counts"})


class Cursor(fields.Field[int]):
    """Where a page of a list ends, in a form that invites nobody to calculate with it."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        try:
            number = int.from_bytes(base64.urlsafe_b64decode(value), "big")
        except (binascii.Error, ValueError, TypeError):
            number = 0
        if not 0 < number < 2**31 or cursor(number) != value:
            raise ValidationError("must be the `cursor` of an earlier answer")
        return number


def cursor(log: int) -> str:
    """The cursor behind a task."""
    return base64.urlsafe_b64encode(log.to_bytes(6, "big")).decode()


class ListQuery(Schema):
    """``GET /tasks``"""

    state = fields.String(load_default=None, validate=one_of(TaskState))
    name = fields.String(load_default=None)
    label = fields.List(
        fields.String(validate=validate.Regexp(r"(?s)[^=]+=.*", error="must look like key=value")), load_default=list
    )
    text = body_text(MAX_LABEL_LENGTH, load_default=None)
    limit = QueryInteger(1, MAX_LIST_LIMIT, load_default=DEFAULT_LIST_LIMIT)
    cursor = Cursor(load_default=None, metadata={"type": "string", "description": "the `cursor` of an earlier answer"})


class ChangesQuery(Schema):
    """``GET /changes``"""

    run = fields.UUID(load_default=None, metadata={"description": "only this run and its tasks"})
    since = fields.String(load_default="", metadata={"description": "as `Last-Event-ID`, which counts more"})


class AppendQuery(Schema):
    """``POST /tasks/{id}/output``"""

    first = _line_number(load_default=None)
    closing = fields.Boolean(load_default=False)


class NewTaskBody(Schema):
    """``POST /tasks``"""

    id = fields.String(
        load_default=None,
        validate=validate.Regexp(ID_PATTERN, error="must be 1 to 64 of A-Z a-z 0-9 _ . ~ -"),
    )
    name = body_text(MAX_NAME_LENGTH, load_default="")
    lease = lease_field(load_default=None)
    labels = fields.Dict(
        keys=body_text(MAX_LABEL_LENGTH),
        values=body_text(MAX_LABEL_LENGTH),
        load_default=dict,
        validate=validate.Length(max=MAX_LABELS, error=f"must be at most {MAX_LABELS} labels"),
    )


class ResultBody(Schema):
    """A task's result: ``data`` may be any JSON, or absent."""

    type = body_text(MAX_NAME_LENGTH, required=True)
    data = fields.Raw(load_default=None, allow_none=True, validate=encodable)

    @post_load
    def _encode(self, data: dict[str, Any], **_: Any) -> bytes:
        return orjson.dumps({"type": data["type"], "data": data["data"]})


class OutcomeBody(Schema):
    """How a task has ended."""

    code = Integer(-MAX_CODE - 1, MAX_CODE, load_default=0)
    error = body_text(MAX_ERROR_LENGTH, load_default="")
    result = fields.Nested(ResultBody, load_default=None, allow_none=True)


class FinishBody(OutcomeBody):
    """``POST /tasks/{id}/finish``"""

    output = fields.List(fields.String(), load_default=None, allow_none=True)
    first = Integer(0, MAX_LINE_NUMBER, load_default=None, allow_none=True)


class LinesBody(Schema):
    """``POST /tasks/{id}/output`` as application/json"""

    lines = fields.List(fields.String(), required=True)


class SessionBody(Schema):
    """``POST /session``"""

    key = fields.String(required=True, metadata={"description": "an API key"})


class NewKeyBody(Schema):
    """``POST /keys``"""

    name = fields.String(required=True, validate=validate.Regexp(NAME, error=NAME_ERROR))
    owner = fields.String(load_default=None, allow_none=True, validate=validate.Regexp(NAME, error=NAME_ERROR))
    scopes = fields.List(
        fields.String(validate=one_of(Scope)),
        load_default=lambda: ["read", "write"],
        validate=validate.Length(min=1, error="must name at least one of read, write, admin"),
    )
    expires_in = Integer(1, MAX_KEY_LIFETIME, load_default=None, allow_none=True)


class PruneBody(Schema):
    """``POST /prune``"""

    older_than = Integer(0, MAX_KEEP_FINISHED, required=True, metadata={"description": "seconds since the end"})
    dry_run = Flag(load_default=False)
