"""The room's JSON answers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from taskserver.api.tasks.prefer import preference_applied
from taskserver.jsontext import dumps
from taskserver.web.prepared import Head, Prepared
from taskserver.web.streaming import NO_STORE

JSON = "application/json; charset=utf-8"


@lru_cache
def json_head(status: int = 200) -> Head:
    """The head of JSON answers."""
    return make_head({}, status)


@lru_cache
def preferred_head(wait: int) -> Head:
    """The head of a JSON answer to ``Prefer: wait=N`` (RFC 7240)."""
    return make_head(preference_applied(wait))


def make_head(more: Mapping[str, str], status: int = 200) -> Head:
    """The head of a JSON answer with more headers than all have."""
    return Head(status, {**NO_STORE, "Content-Type": JSON, **more})


def json_answer(value: object, status: int = 200) -> Prepared:
    """A value as the room's JSON."""
    return Prepared(json_head(status), dumps(value))
