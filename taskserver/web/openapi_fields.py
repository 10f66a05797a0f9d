"""marshmallow fields as JSON Schema, where apispec does not know ours or says it less exactly."""

from __future__ import annotations

from typing import Any

from apispec.ext.marshmallow.openapi import OpenAPIConverter
from marshmallow import fields, validate

from taskserver.web.params import Integer

Property = dict[str, Any]


def refine(converter: OpenAPIConverter, field: fields.Field[Any], ret: Property) -> Property:
    """What the document says of a field beyond ``ret``, which apispec made of it; changes ``ret`` too."""
    if isinstance(field, fields.Dict):
        _count_properties(ret)
        if field.key_field is not None and (keys := converter.field2property(field.key_field)) != {"type": "string"}:
            ret["propertyNames"] = keys
    for validator in field.validators:
        if isinstance(validator, validate.Range):
            _exclude_bounds(validator, ret)
    if "pattern" in ret:
        ret["pattern"] = portable(ret["pattern"])
    return _bounds(field) if isinstance(field, Integer) else {}


def refine_parameter(converter: OpenAPIConverter, field: fields.Field[Any], ret: Property) -> Property:
    """The same for a parameter: marshmallow's None stands for an absent one there, and no client can send it."""
    schema = ret["schema"]
    if schema.get("default", ...) is None:
        del schema["default"]
    if isinstance(schema.get("type"), list):
        schema["type"] = next(kind for kind in schema["type"] if kind != "null")
    if None in schema.get("enum", ()):
        schema["enum"].remove(None)
    return {}


def portable(pattern: str) -> str:
    """A pattern of Python that is matched from the start, as one that JSON Schema searches for (ECMA-262).

    The letters and digits of ``\\w`` are then those of ASCII: less than the server takes, never more.
    """
    pattern = pattern.replace(r"\Z", "$").replace("(?s)", "").removesuffix(".*")
    return f"^(?:{pattern})" if "|" in pattern else "^" + pattern


def _bounds(field: Integer) -> Property:
    kind = ["integer", "null"] if field.allow_none else "integer"
    return {"type": kind, "minimum": field.low, "maximum": field.high}


def _exclude_bounds(validator: validate.Range, ret: Property) -> None:
    if not validator.min_inclusive and "minimum" in ret:
        ret["exclusiveMinimum"] = ret.pop("minimum")
    if not validator.max_inclusive and "maximum" in ret:
        ret["exclusiveMaximum"] = ret.pop("maximum")


def _count_properties(ret: Property) -> None:
    for bound in ("min", "max"):
        if f"{bound}Length" in ret:
            ret[f"{bound}Properties"] = ret.pop(f"{bound}Length")
