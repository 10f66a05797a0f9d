"""Ingest: request bodies to lines (CONTRACTS A4)."""

from __future__ import annotations

from functools import partial

from aiohttp import web

from taskserver.api.tasks.lineformats import DECODERS, JSON, NDJSON, TEXT, from_texts
from taskserver.api.tasks.livebody import LiveBody
from taskserver.api.tasks.schemas import LinesBody
from taskserver.errors import UnsupportedMediaType
from taskserver.store import Appended
from taskserver.web.bodies import check_encoding, declared_type, read_body
from taskserver.web.context import caller, services
from taskserver.web.params import body

LINES_BODY = LinesBody()


async def receive(request: web.Request, task_id: str, first: int | None, closing: bool) -> Appended:
    """Append the request's body to a task, live if its length is not known in advance. See ``Tasks.append``."""
    content_type = declared_type(request) or TEXT  # curl -T names no type
    tasks, who = services(request).tasks, caller(request)
    limit = services(request).settings.limits.line_bytes
    append = partial(tasks.append, who, task_id, closing=closing)
    if content_type == JSON:
        return await append(from_texts((await body(request, LINES_BODY))["lines"], limit), first)
    decode = DECODERS.get(content_type)
    if decode is None:
        raise UnsupportedMediaType(f"the body must be {TEXT}, {NDJSON} or {JSON}, not {content_type}")
    if request.content_length is None and request.body_exists:
        check_encoding(request)
        return await LiveBody(request, task_id, append, decode).receive(first)
    decoded = decode(await read_body(request), limit)
    if decoded.unfinished is not None and first is None and not decoded.lines.count:
        return await tasks.tell_unfinished(who, task_id, decoded.unfinished)
    return await append(decoded.lines, first, unfinished=decoded.unfinished)
