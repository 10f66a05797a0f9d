"""Queries and bodies of the rooms whose validation errors look like FastAPI's: 422 and a list of what is wrong.

A schema's fields raise ``invalid(...)`` in the place of a text, and so say what
pydantic would say: the wording is part of those protocols.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web
from marshmallow import Schema, ValidationError, fields

from taskserver.errors import UnsupportedMediaType
from taskserver.jsontext import dumps
from taskserver.web.bodies import declared_type, read_body
from taskserver.web.failures import Unprocessable

MAX_ECHO = 1024  # bytes of JSON; a larger input is not sent back to whom it came from

Location = tuple[str | int, ...]


@dataclass(frozen=True)
class Fault:
    """What is wrong with one value, in pydantic's words."""

    type: str
    msg: str
    ctx: Mapping[str, Any] = field(default_factory=dict)


MISSING = Fault("missing", "Field required")
EXTRA = Fault("extra_forbidden", "Extra inputs are not permitted")
NOT_AN_OBJECT = Fault("model_attributes_type", "Input should be a valid dictionary or object to extract fields from")


def invalid(kind: str, msg: str, **ctx: Any) -> ValidationError:
    """What a field raises."""
    return ValidationError([Fault(kind, msg, ctx)])


class Worded(fields.Field[Any]):
    """Mixin of fields whose failures are faults; ``wrong_type`` is what is said to a value of another type."""

    wrong_type: Fault

    def make_error(self, key: str, **kwargs: Any) -> ValidationError:
        return ValidationError([MISSING if key == "required" else self.wrong_type])


class WordedSchema(Schema):
    """A schema whose own complaints are faults."""

    error_messages = {"unknown": EXTRA, "type": NOT_AN_OBJECT}  # type: ignore[dict-item] # noqa: RUF012


def load_query(request: web.Request, schema: Schema, *, strict: bool = False) -> dict[str, Any]:
    """The validated query; of a repeated parameter the last counts, unless it is a list, as in FastAPI.

    An unknown one is a mistake only if ``strict``. Raises Unprocessable.
    """
    sent = request.query
    raw: dict[str, Any] = dict(sent.items())
    lists = (name for name, field in schema.fields.items() if isinstance(field, fields.List) and name in sent)
    raw.update((name, sent.getall(name)) for name in lists)
    return load(schema, raw, "query", strict=strict)


async def load_body(request: web.Request, schema: Schema) -> dict[str, Any]:
    """The validated JSON body; an absent one counts as ``{}``, and an unknown field is a mistake.

    Raises Unprocessable, TooLarge, UnsupportedMediaType.
    """
    data = await read_body(request)
    if not data.strip():
        return load(schema, {}, "body")  # whatever type was named: HTTP libraries name one for no body too
    content_type = declared_type(request)
    if content_type is not None and content_type != "application/json" and not content_type.endswith("+json"):
        raise UnsupportedMediaType(f"the body must be application/json, not {content_type}")
    try:
        raw = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise unprocessable(
            ("body", error.pos), Fault("json_invalid", "JSON decode error", {"error": error.msg}), {}
        ) from None
    return load(schema, raw, "body")


def load(schema: Schema, raw: Any, place: str, *, strict: bool = True) -> dict[str, Any]:
    """Any values, validated; ``place`` is what their locations begin with. Raises Unprocessable."""
    try:
        loaded: dict[str, Any] = schema.load(raw, unknown="raise" if strict else "exclude")
    except ValidationError as error:
        raise _refusal(list(_entries(error.messages, (place,), raw))) from None
    return loaded


def unprocessable(location: Location, fault: Fault, value: Any) -> Unprocessable:
    """The failure for one value that no schema looks at, such as a header's."""
    return _refusal([_entry(location, fault, value)])


def _refusal(faults: list[dict[str, Any]]) -> Unprocessable:
    said = (f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in faults)
    return Unprocessable("; ".join(said), faults)


def _entries(messages: Any, location: Location, value: Any) -> Iterator[dict[str, Any]]:
    """marshmallow's tree of messages as pydantic's list. ``value`` is what stands at ``location``."""
    if not isinstance(messages, Mapping):
        yield from (_entry(location, fault, value) for fault in messages)
        return
    for name, inner in _in_order(messages, value):
        if name == "_schema":
            yield from _entries(inner, location, value)
        else:
            # Where a field is missing, FastAPI shows the whole object; of a query it shows nothing.
            absent = None if location == ("query",) else value
            here = value[name] if isinstance(value, list) or name in value else absent
            yield from _entries(inner, (*location, name), here)


def _in_order(messages: Mapping[Any, Any], value: Any) -> list[tuple[Any, Any]]:
    """The messages in pydantic's order: unknown fields last, and as they were sent; marshmallow has them in any."""
    sent = {name: number for number, name in enumerate(value)} if isinstance(value, Mapping) else {}
    return sorted(messages.items(), key=lambda item: sent[item[0]] if item[1] == [EXTRA] else -1)


def _entry(location: Location, fault: Fault, value: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": fault.type, "loc": list(location), "msg": fault.msg}
    if _fits(value):
        entry["input"] = value
    if fault.ctx:
        entry["ctx"] = dict(fault.ctx)
    return entry


def _fits(value: Any) -> bool:
    """Whether a value can be shown to its sender: neither long, nor nested deeper than the encoder goes."""
    try:
        return len(dumps(value)) <= MAX_ECHO
    except TypeError:
        return False
