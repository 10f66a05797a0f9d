"""Logs: what lines look like, and what must not stand in them.

A line is what happened and fields that programs can read: loggers get them as
``extra={"fields": {…}}``. No line holds an API key or a line of output:

- Of a request the fields are its id, method and path (``web.requests.fields_of``).
- Of an exception its type and where it came from are shown, without its words:
  a ``KeyError`` or ``ValueError`` tells the value that it met, which can be
  anything that a client has sent. The words of the operating system and of
  SQLite hold no such values, and are needed.
- Whatever looks like a key of ours is cut out of the finished line: a path may
  hold one, by mistake.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sqlite3
import sys
import traceback
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from taskserver.jsontext import isotime
from taskserver.keys import SECRET_PREFIX
from taskserver.model import MICROSECONDS
from taskserver.web.addresses import Network, address_behind
from taskserver.web.context import CALLER
from taskserver.web.requests import fields_of

TALKATIVE = (OSError, sqlite3.Error)
"""Exceptions whose words are shown."""

_KEY = re.compile(re.escape(SECRET_PREFIX) + r"[\w-]{32,}")
_PLAIN = re.compile(r"[!#-<>-\[\]-~]+")  # a value that needs no quotes: visible, without spaces, " = and \\

log = logging.getLogger(__name__)


def log_to_stderr(log_format: str) -> None:
    """Write the log to standard error, as ``text`` or ``json``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else TextLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class TextLines(logging.Formatter):
    """``2026-11-21 07:54:53,113 INFO taskserver.access: request method=GET status=200``"""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return trace(ei[1])

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return super().formatMessage(record) + "".join(f" {name}={_quoted(value)}" for name, value in _fields(record))

    def format(self, record: logging.LogRecord) -> str:
        record.exc_text = None  # another handler may have left its own there
        return without_keys(super().format(record))


class JsonLines(logging.Formatter):
    """``{"time": …, "level": "info", "logger": …, "message": …, "process": …}`` and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": isotime(int(record.created * MICROSECONDS)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
            **dict(_fields(record)),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = type(record.exc_info[1]).__name__
            line["trace"] = trace(record.exc_info[1])
        return without_keys(json.dumps(line, default=str))  # not orjson, which fails where text is no Unicode


def _fields(record: logging.LogRecord) -> list[tuple[str, Any]]:
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return [(name, value) for name, value in fields.items() if value is not None]


def _quoted(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def without_keys(line: str) -> str:
    """A line without what looks like an API key of ours."""
    return _KEY.sub(f"{SECRET_PREFIX}…", line)


def trace(error: BaseException | None) -> str:
    """Where an exception comes from, and those that led to it, the first one first; without their words."""
    found: list[str] = []
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        found.append(_one_trace(error, error.__traceback__))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(reversed(found))


def _one_trace(error: BaseException, frames: TracebackType | None) -> str:
    kind = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    words = f": {error}" if isinstance(error, TALKATIVE) else ""
    return "".join(["Traceback (most recent call last):\n", *traceback.format_tb(frames), kind, words])


class AccessLog(AbstractAccessLogger):
    """One line for each request that was answered."""

    trusted_proxies: Sequence[Network] = ()
    """aiohttp makes the loggers, so what they need to know is told to a class of their own (``behind``)."""

    @classmethod
    def behind(cls, trusted_proxies: Sequence[Network]) -> type[AccessLog]:
        """The same, for a server whose clients come through these proxies."""
        return type(cls.__name__, (cls,), {"trusted_proxies": trusted_proxies})

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        who = request.get(CALLER)
        fields = {
            **fields_of(request),
            "status": response.status,
            "seconds": round(time, 3),
            "bytes": response.body_length,
            "key": None if who is None else who.name,
            "address": address_behind(request, self.trusted_proxies) or None,
        }
        self.logger.info("request", extra={"fields": fields})


def watch_loop() -> None:
    """Have failures that nobody waited for logged like others: asyncio prints what exceptions and callbacks hold."""
    asyncio.get_running_loop().set_exception_handler(_log_failure)


def _log_failure(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    message = context["message"].partition("(")[0]  # behind which the arguments of a callback stand
    log.error("%s", message, exc_info=context.get("exception"))
