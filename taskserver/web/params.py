"""Query strings and JSON bodies, validated by marshmallow schemas through webargs.

A validation error becomes one sentence that names the field and its bounds.
Query strings are remembered by their raw text: the many clients that ask the
same question pay for its validation once.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import orjson
from aiohttp import web
from marshmallow import EXCLUDE, RAISE, Schema, ValidationError, fields, validate
from webargs.aiohttpparser import AIOHTTPParser

from taskserver.errors import BadBody, BadJson, BadParameter, UnsupportedMediaType
from taskserver.web.bodies import declared_type, read_body

QUERIES_REMEMBERED = 4096
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


class Integer(fields.Field[int]):
    """A JSON number without a fraction, within bounds."""

    def __init__(self, low: int, high: int, **kwargs: Any) -> None:
        self.low, self.high = low, high
        super().__init__(**kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            raise ValidationError(f"must be an integer from {self.low} to {self.high}")
        return value


class QueryInteger(Integer):
    """The same in a query, as text: plain digits only, since ``int()`` takes ``1_0`` and other scripts' digits too."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        number = int(value) if isinstance(value, str) and _INTEGER.fullmatch(value) else value
        return super()._deserialize(number, attr, data, **kwargs)


class Flag(fields.Boolean):
    """``true`` or ``false`` in a body; a number or a text that might mean one of them is a mistake there."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise ValidationError("must be true or false")
        return value


class Number(fields.Float):
    """A JSON number; neither a text that looks like one nor ``true``."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValidationError("must be a number")
        return super()._deserialize(value, attr, data, **kwargs)


def body_text(max_length: int, min_length: int | None = None, **kwargs: Any) -> fields.String:
    """A text for the database: bounded, and without NUL, which not every one can keep."""
    return fields.String(validate=[validate.Length(min_length, max_length), _no_nul], **kwargs)


def _no_nul(value: str) -> None:
    if "\0" in value:
        raise ValidationError("must not contain NUL")


def encodable(value: Any) -> None:
    """A validator for any JSON: the decoder takes what is nested four times deeper than the encoder gives back."""
    try:
        orjson.dumps([value])  # it will stand inside another value
    except TypeError:
        raise ValidationError("is nested too deeply") from None


def describe(messages: Any, path: str = "") -> str:
    """marshmallow's error messages as one line: ``wait: must be …; first: must be …``."""
    if isinstance(messages, Mapping):
        parts = []
        for name, inner in messages.items():
            # _schema and _nested are marshmallow's names for "the whole thing".
            here = path if name in ("_schema", "_nested") else f"{path}.{name}" if path else str(name)
            parts.append(describe(inner, here))
        return "; ".join(parts)
    text = " ".join(str(message) for message in messages)
    text = text[:1].lower() + text[1:].rstrip(".")
    return f"{path}: {text}" if path else text


class _Parser(AIOHTTPParser):
    """webargs, with our errors in the place of its HTTP exceptions and orjson in the place of json."""

    # A misspelt field of a body would silently do nothing.
    DEFAULT_UNKNOWN_BY_LOCATION = {"json": RAISE}  # noqa: RUF012 - webargs declares it so

    async def load_json(self, req: web.Request, schema: Schema) -> Any:
        return await read_json(req)

    def handle_error(self, error: ValidationError, req: web.Request, schema: Schema, **_: Any) -> NoReturn:
        messages: Any = error.messages  # by location
        raise BadBody(describe(messages["json"]))


_parser = _Parser()
_queries: OrderedDict[tuple[int, str], dict[str, Any]] = OrderedDict()


def query(request: web.Request, schema: Schema) -> dict[str, Any]:
    """The validated query parameters; do not change them. Raises BadParameter."""
    # Schemas are made once, at import, so their identity is as good as their name.
    key = (id(schema), request.raw_path.partition("?")[2])
    known = _queries.get(key)
    if known is None:
        try:
            # Clients send parameters that older and newer servers know; nothing may break over one.
            known = schema.load(_parser.load_querystring(request, schema), unknown=EXCLUDE)
        except ValidationError as error:
            raise BadParameter(describe(error.messages)) from None
        _queries[key] = known
        if len(_queries) > QUERIES_REMEMBERED:
            _queries.popitem(last=False)
    return known


async def body(request: web.Request, schema: Schema) -> dict[str, Any]:
    """The validated JSON body; an absent one counts as ``{}``.

    Raises BadJson, BadBody, TooLarge, UnsupportedMediaType.
    """
    validated: dict[str, Any] = await _parser.parse(schema, request, location="json")
    return validated


async def read_json(request: web.Request) -> Any:
    """The JSON body, whatever it holds; ``{}`` if there is none."""
    content_type = declared_type(request) if request.body_exists else None
    if content_type is not None and content_type != "application/json" and not content_type.endswith("+json"):
        raise UnsupportedMediaType(f"the body must be application/json, not {content_type}")
    data = await read_body(request)
    if not data.strip():
        return {}
    try:
        # orjson makes floats of integers that it has no room for; json keeps them, so that they can be refused.
        return json.loads(data, parse_constant=_no_constant) if _LONG_NUMBER.search(data) else orjson.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadJson(f"the body is not JSON: {error}") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def one_of(values: type[Any]) -> Callable[[Any], None]:
    """A validator for an enumeration's values that names them."""
    names = [member.value for member in values]
    return validate.OneOf(names, error="must be one of " + ", ".join(names))
