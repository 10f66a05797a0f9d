"""Values: what tasks return is kept as JSON, and what the next task gets is that JSON decoded.

Always, also where both run in one process: a value is then the same whether it
comes from this worker or from another one that began the run.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterable
from typing import Any

import orjson

from taskserver.config import MIB, Limits
from taskserver.worker.errors import BadValue

MAX_VALUE_BYTES = Limits().result_bytes - 64  # beside it stand its type and the braces
_AROUND = 3  # brackets: a value stands within others on its way, and the encoder's depth is bounded


def encode_value(value: Any) -> bytes:
    """A task's value as JSON. Raises BadValue."""
    try:
        encoded = orjson.dumps([[[value]]])[_AROUND:-_AROUND]
    except TypeError as error:  # JSONEncodeError is one
        raise BadValue(_reason(value, error)) from None
    if b"null" in encoded and (bad := _not_a_number(value)) is not None:
        raise BadValue(f"the task has returned {bad!r}, which JSON has no word for: return None or a text in its place")
    if len(encoded) > MAX_VALUE_BYTES:
        raise BadValue(
            f"the task has returned {len(encoded):,} bytes of JSON, and a value may have {MAX_VALUE_BYTES:,}"
            f" ({MAX_VALUE_BYTES / MIB:.0f} MiB): keep it in a file or a database and return where it is"
        )
    return encoded


def decode_value(encoded: bytes) -> Any:
    """The value that tasks behind it get."""
    return orjson.loads(encoded)


def _not_a_number(value: Any) -> float | None:
    """A float within the value that the encoder makes null of."""
    if isinstance(value, float):
        return None if math.isfinite(value) else value
    if isinstance(value, enum.Enum):
        return _not_a_number(value.value)
    parts: Iterable[Any] = ()
    if isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, (list, tuple)):
        parts = value
    elif dataclasses.is_dataclass(value):
        parts = (getattr(value, field.name) for field in dataclasses.fields(value))
    return next((bad for part in parts if (bad := _not_a_number(part)) is not None), None)


def _reason(value: Any, error: TypeError) -> str:
    kind = type(value).__name__
    if hasattr(value, "__next__") or hasattr(value, "__anext__"):
        return f"the task has returned a {kind}, which is not a value yet: return list(...) of it"
    return f"the task has returned a {kind} that cannot be JSON: {error}"
