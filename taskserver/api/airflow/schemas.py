"""What the room's requests may say. What is said to a wrong value is pydantic's, since that is what clients parse."""

from __future__ import annotations

import re
from collections.abc import Sized
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

from marshmallow import ValidationError, fields, validate, validates_schema

from taskserver.jsontext import dumps
from taskserver.web.validation import Fault, Worded, WordedSchema, invalid

MAX_RUN_ID_LENGTH = 250  # Airflow's column
MAX_NOTE_LENGTH = 1000  # Airflow's bound
DEFAULT_LIMIT = 50  # Airflow's default and upper bound of a page
MAX_LIMIT = 100

SizedT = TypeVar("SizedT", bound=Sized)

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_ONE_MICROSECOND = timedelta(microseconds=1)
_FIRST = (datetime.min.replace(tzinfo=timezone.utc) - _EPOCH) // _ONE_MICROSECOND
_LAST = (datetime.max.replace(tzinfo=timezone.utc) - _EPOCH) // _ONE_MICROSECOND
_MOMENT = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(:\d\d)?(?:[.,](\d{1,9}))?\s?([Zz]|[+-]\d\d(?::?\d\d)?)?)?", re.ASCII
)


# --- fields --------------------------------------------------------------------


class Text(Worded, fields.String):
    """A string."""

    wrong_type = Fault("string_type", "Input should be a valid string")


class Number(Worded, fields.Float):
    """A number in a query."""

    wrong_type = Fault("float_parsing", "Input should be a valid number, unable to parse string as a number")


class WholeNumber(Worded, fields.Integer):
    """A whole number in a query or a path."""

    wrong_type = Fault("int_parsing", "Input should be a valid integer, unable to parse string as an integer")


class JsonObject(Worded, fields.Dict):
    """A JSON object, encoded."""

    wrong_type = Fault("dict_type", "Input should be a valid dictionary")

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        value = super()._deserialize(value, attr, data, **kwargs)  # type: ignore[no-untyped-call]
        try:
            return dumps([value])[1:-1]  # it will stand inside another value
        except TypeError:  # JSON can be nested deeper than our encoder goes
            raise _value_error("is nested too deeply") from None


class Moment(Worded, fields.DateTime):
    """A time in ISO 8601, in microseconds since 1970. Without an offset it is a mistake, or with ``utc`` UTC."""

    wrong_type = Fault("datetime_type", "Input should be a valid datetime")

    def __init__(self, utc: bool = False, **kwargs: Any) -> None:
        self._utc = utc
        super().__init__(**kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, str):
            raise self.make_error("invalid")
        try:
            moment = _parse_moment(value)
        except ValueError as error:
            why = str(error)
            raise invalid(
                "datetime_from_date_parsing", f"Input should be a valid datetime or date, {why}", error=why
            ) from None
        if moment.tzinfo is None:
            if not self._utc:
                raise invalid("timezone_aware", "Input should have timezone info")
            moment = moment.replace(tzinfo=timezone.utc)
        # Not by `astimezone`: a time near the ends of the calendar may lie beyond them in UTC.
        time_us = (moment - _EPOCH) // _ONE_MICROSECOND
        if not _FIRST <= time_us <= _LAST:
            raise invalid(
                "datetime_object_invalid", "Invalid datetime object, got out of range in UTC", error="out of range"
            )
        return time_us


def _parse_moment(text: str) -> datetime:
    match = _MOMENT.fullmatch(text)
    if match is None:
        raise ValueError("invalid character or length of the input")
    day, minute, second, fraction, offset = match.groups()
    if offset and offset not in "Zz":
        digits = offset[1:].replace(":", "").ljust(4, "0")
        offset = f"{offset[0]}{digits[:2]}:{digits[2:]}"
    elif offset:
        offset = "+00:00"
    microseconds = (fraction or "").ljust(6, "0")[:6]
    return datetime.fromisoformat(f"{day}T{minute or '00:00'}{second or ':00'}.{microseconds}{offset or ''}")


def _value_error(message: str) -> ValidationError:
    return invalid("value_error", f"Value error, {message}", error={})


# --- validators ----------------------------------------------------------------


class GreaterThan(validate.Range):
    """More than a bound; NaN is not."""

    def __init__(self, bound: float) -> None:
        super().__init__(min=bound, min_inclusive=False)
        self.bound = bound

    def __call__(self, value: Any) -> Any:
        if not value > self.bound:
            raise invalid("greater_than", f"Input should be greater than {self.bound:g}", gt=self.bound)
        return value


class AtLeast(validate.Range):
    """No less than a bound."""

    def __init__(self, bound: int) -> None:
        super().__init__(min=bound)
        self.bound = bound

    def __call__(self, value: Any) -> Any:
        if value < self.bound:
            raise invalid("greater_than_equal", f"Input should be greater than or equal to {self.bound}", ge=self.bound)
        return value


class MaxLength(validate.Length):
    """A text of so many characters at most, and without NUL, which not every database can keep."""

    def __init__(self, bound: int) -> None:
        super().__init__(max=bound)
        self.bound = bound

    def __call__(self, value: SizedT) -> SizedT:
        if len(value) > self.bound:
            message = f"String should have at most {self.bound} characters"
            raise invalid("string_too_long", message, max_length=self.bound)
        if isinstance(value, str) and "\0" in value:
            raise _value_error("must not contain NUL")
        return value


# --- schemas -------------------------------------------------------------------


class LoginBody(WordedSchema):
    """``POST /auth/token``"""

    username = Text(required=True)
    password = Text(required=True)


class TriggerBody(WordedSchema):
    """``POST /dags/{dag_id}/dagRuns``"""

    logical_date = Moment(required=True, allow_none=True)
    dag_run_id = Text(load_default=None, allow_none=True, validate=MaxLength(MAX_RUN_ID_LENGTH))
    data_interval_start = Moment(load_default=None, allow_none=True)
    data_interval_end = Moment(load_default=None, allow_none=True)
    run_after = Moment(utc=True, load_default=None, allow_none=True)
    conf = JsonObject(load_default=None, allow_none=True)
    note = Text(load_default=None, allow_none=True, validate=MaxLength(MAX_NOTE_LENGTH))
    partition_key = Text(load_default=None, allow_none=True, validate=MaxLength(MAX_RUN_ID_LENGTH))

    @validates_schema
    def _whole_interval(self, data: dict[str, Any], **_: Any) -> None:
        if (data["data_interval_start"] is None) != (data["data_interval_end"] is None):
            raise _value_error(
                "Either both data_interval_start and data_interval_end must be provided or both must be None"
            )


class PageQuery(WordedSchema):
    """Lists. What would filter or sort is refused: ignored, it would give the wrong answer."""

    limit = WholeNumber(load_default=DEFAULT_LIMIT, validate=AtLeast(0))
    offset = WholeNumber(load_default=0, validate=AtLeast(0))


class WaitQuery(WordedSchema):
    """``GET …/wait``"""

    interval = Number(
        required=True,
        allow_nan=True,  # for the validator to refuse: infinity is a number like any other, NaN is not
        validate=GreaterThan(0.0),
        metadata={"description": "Seconds from one line to the next; below 0.05 it is 0.05."},
    )
    result = fields.List(
        fields.String(),
        load_default=None,
        metadata={"description": "Tasks whose values are wanted; without it those that the dag marks as results."},
    )


class LogQuery(WordedSchema):
    """``GET …/logs/{try_number}``"""

    map_index = WholeNumber(load_default=-1)
    token = fields.String(load_default="", metadata={"description": "The `continuation_token` of an earlier answer."})


class LogPath(WordedSchema):
    """The part of ``…/logs/{try_number}`` that is not just looked up."""

    try_number = WholeNumber(required=True, validate=AtLeast(0))
