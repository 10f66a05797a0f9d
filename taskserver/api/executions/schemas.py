"""What the room's requests may say, and its refusals in pydantic's words."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import orjson
from marshmallow import Schema, ValidationError, fields

from taskserver.config import MAX_NAME_LENGTH
from taskserver.dagmodel import parse_uuid
from taskserver.jsontext import dumps
from taskserver.web.validation import Fault, Worded, WordedSchema, invalid

MAX_WAIT = 3600  # seconds, the original's bound
DEFAULT_WAIT = 300
MAX_LINEAGE_LIMIT = 1000
DEFAULT_LINEAGE_LIMIT = 100


class Bounded(Worded):
    """Mixin of numbers that lie within bounds."""

    wrong_type = Fault("float_type", "Input should be a valid number")

    def __init__(self, low: float, high: float, **kwargs: Any) -> None:
        self.low, self.high = low, high
        super().__init__(metadata={"minimum": low, "maximum": high}, **kwargs)

    def check(self, value: float) -> float:
        """The value, if it is within the bounds."""
        if value < self.low:
            raise invalid("greater_than_equal", f"Input should be greater than or equal to {self.low:g}", ge=self.low)
        if not value <= self.high:  # NaN is nowhere within bounds
            raise invalid("less_than_equal", f"Input should be less than or equal to {self.high:g}", le=self.high)
        return value


class Number(Bounded, fields.Float):
    """A number in a body."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValidationError([self.wrong_type])
        return self.check(value)


class QueryNumber(Bounded, fields.Float):
    """A number in a query: text."""

    wrong_type = Fault("float_parsing", "Input should be a valid number, unable to parse string as a number")

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> float:
        try:
            return self.check(float(_plain(value)))
        except ValueError:
            raise ValidationError([self.wrong_type]) from None


class QueryInteger(Bounded, fields.Integer):
    """A whole number in a query: text."""

    wrong_type = Fault("int_parsing", "Input should be a valid integer, unable to parse string as an integer")

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        try:
            return int(self.check(int(_plain(value))))
        except ValueError:
            raise ValidationError([self.wrong_type]) from None


def _plain(text: str) -> str:
    """The text, unless Python would read a number from it that others would not: ``1_0``, other scripts' digits."""
    if not text.isascii() or "_" in text:
        raise ValueError(text)
    return text


class ConfigId(Worded, fields.UUID):
    """A UUID as text."""

    wrong_type = Fault("uuid_type", "UUID input should be a string, bytes or UUID object")

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> uuid.UUID:
        if not isinstance(value, str):
            raise ValidationError([self.wrong_type])
        found = parse_uuid(value)
        if found is None:
            reason = "expected 32 hexadecimal digits, as 8-4-4-4-12 or together"
            raise invalid("uuid_parsing", f"Input should be a valid UUID, {reason}", error=reason)
        return found


class Tag(Worded, fields.String):
    """A name that an execution can be asked for by, so nothing that could be an id or change a path."""

    wrong_type = Fault("string_type", "Input should be a valid string")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(metadata={"minLength": 1, "maxLength": MAX_NAME_LENGTH}, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        tag: str = super()._deserialize(value, attr, data, **kwargs)
        if not tag:
            raise invalid("string_too_short", "String should have at least 1 character", min_length=1)
        if len(tag) > MAX_NAME_LENGTH:
            words = f"String should have at most {MAX_NAME_LENGTH} characters"
            raise invalid("string_too_long", words, max_length=MAX_NAME_LENGTH)
        if parse_uuid(tag) is not None:
            raise _unusable("must not look like a UUID")
        if tag in (".", "..") or "\0" in tag:
            raise _unusable("must not be . or .. or contain NUL")
        return tag


class Metadata(Worded, fields.Dict):
    """Any JSON object; it is loaded into its encoded form."""

    wrong_type = Fault("dict_type", "Input should be a valid dictionary")

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValidationError([self.wrong_type])
        try:
            return dumps(value)
        except orjson.JSONEncodeError:
            raise _unusable("is nested too deeply") from None


def _unusable(reason: str) -> ValidationError:
    return invalid("value_error", f"Value error, {reason}", error=reason)


class NewExecutionBody(WordedSchema):
    """``POST /executions``"""

    config_id = ConfigId(required=True)
    metadata = Metadata(load_default=None, allow_none=True)
    tag = Tag(load_default=None, allow_none=True)


class WaitBody(WordedSchema):
    """``POST /executions/{id}/wait``"""

    timeout = Number(1.0, float(MAX_WAIT), load_default=float(DEFAULT_WAIT))


class EventsQuery(WordedSchema):
    """``GET /executions/{id}/events``"""

    timeout = QueryNumber(1.0, float(MAX_WAIT), load_default=float(DEFAULT_WAIT))


class EventsHeaders(Schema):
    """``GET /executions/{id}/events``"""

    last_event_id = fields.String(
        data_key="Last-Event-ID", metadata={"description": "The `id` of the last event seen.", "examples": ["4"]}
    )


class LineageQuery(WordedSchema):
    """``GET /executions/{id}/lineage``"""

    limit = QueryInteger(1, MAX_LINEAGE_LIMIT, load_default=DEFAULT_LINEAGE_LIMIT)
