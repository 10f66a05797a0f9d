"""Ingest: request bodies to lines, at once or live (CONTRACTS A4).

Both line-oriented formats end a line with a newline, so a live body is cut at
its last newline, decoded and appended while the rest is still under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import orjson
from aiohttp import web

from taskserver.api.tasks.schemas import LinesBody
from taskserver.encoding import cut, encode_lines, encode_records, encode_text, parse_time, split_text
from taskserver.errors import BadBody, BadJson, Draining, OutputFull, TaskServerError, TooLarge, UnsupportedMediaType
from taskserver.model import MICROSECONDS, Chunk, Lines, Stream, now_us
from taskserver.store import Appended
from taskserver.web.bodies import LOOK, check_encoding, declared_type, read_body, read_watched
from taskserver.web.context import caller, services
from taskserver.web.params import body

TEXT, NDJSON, JSON = "text/plain", "application/x-ndjson", "application/json"
LINES_BODY = LinesBody()
STREAMS = {"stdout": Stream.STDOUT, "stderr": Stream.STDERR}
MOST_GROWTH = 3  # a byte that is not UTF-8 becomes U+FFFD, which has three
ROW_GROWTH, ROW_ROOM = 6, 1024  # an NDJSON row has up to six bytes for one (as \u0000), and what is around the text
RENEWALS = 3  # an open live body is a sign of life: so often it renews the lease in the lease's time

Append = Callable[[Lines, int | None], Awaitable[Appended]]
"""Adds lines at a number to the task in question."""

Decode = Callable[[bytes, int], Lines]
"""Whole lines of a body and their largest permitted size to encoded lines. Raises TooLarge, BadJson, BadBody."""


async def receive(request: web.Request, task_id: str, first: int | None, closing: bool) -> Appended:
    """Append the request's body to a task, live if its length is not known in advance. See ``Tasks.append``."""
    content_type = declared_type(request) or TEXT  # curl -T names no type
    limit = services(request).settings.limits.line_bytes
    append = partial(services(request).tasks.append, caller(request), task_id, closing=closing)
    if content_type == JSON:
        return await append(from_texts((await body(request, LINES_BODY))["lines"], limit), first)
    decode = _DECODERS.get(content_type)
    if decode is None:
        raise UnsupportedMediaType(f"the body must be {TEXT}, {NDJSON} or {JSON}, not {content_type}")
    if request.content_length is None and request.body_exists:
        check_encoding(request)
        return await _receive_live(request, append, task_id, first, decode, limit)
    return await append(decode(await read_body(request), limit), first)


async def _receive_live(
    request: web.Request, append: Append, task_id: str, first: int | None, decode: Decode, limit: int
) -> Appended:
    """Append lines as they arrive.

    What has been appended stays when a later line is refused; the error's
    ``payload`` says where the output ends then. A line that is cut off because
    the producer vanished is not a line and is dropped.
    """
    tasks, who = services(request).tasks, caller(request)
    # An empty append checks the task and says where it ends, before anything is read.
    begun = done = await append(Lines(0, b"", b""), first)
    lease = (await tasks.own(who, task_id)).lease_us
    renew_every = float("inf") if lease is None else lease / MICROSECONDS / RENEWALS
    rest = b""
    longest = limit if decode is from_text else limit * ROW_GROWTH + ROW_ROOM
    try:
        while True:
            data = await _next_data(request, task_id, renew_every)
            whole, rest = _cut_at_newline(rest + data) if data else (rest, b"")
            if len(rest.removesuffix(b"\r")) > longest:
                raise TooLarge(f"a line is longer than {limit} bytes")
            if whole:
                done = await _append_what_fits(append, decode(whole, limit), None if first is None else done.last)
            if not data:
                return Appended(begun.first, done.last, done.cancel_requested)
    except TaskServerError as error:
        error.payload = {"last": done.last, **(error.payload or {})}
        raise


async def _append_what_fits(append: Append, lines: Lines, first: int | None) -> Appended:
    """Append lines; if the output may not have all of them, as many as it may, and then raise OutputFull."""
    try:
        return await append(lines, first)
    except OutputFull as full:
        facts = full.payload or {}
        room = facts["limit"] - facts["last"]
        if room > 0:
            part = cut(Chunk(0, lines.count, lines.payload, lines.side), 0, room)
            facts["last"] = (await append(Lines(part.count, part.payload, part.side), first)).last
        raise


async def _next_data(request: web.Request, task_id: str, renew_every: float) -> bytes:
    """What has arrived; empty at the body's end. Raises BadBody, BadCredential, Draining."""
    if data := request.content.read_nowait():
        return data
    tasks, who = services(request).tasks, caller(request)
    loop = asyncio.get_running_loop()
    renew_at = loop.time() + renew_every

    async def look() -> None:
        nonlocal renew_at
        who.check()  # a revoked key must end its body within a second
        if services(request).waits.draining:
            raise Draining("the server is shutting down; go on at `last` when it is back")
        # A heartbeat to a task that has ended is refused, and so ends the body.
        if loop.time() >= renew_at or (await tasks.own(who, task_id)).finished:
            await tasks.heartbeat(who, task_id)
            renew_at = loop.time() + renew_every

    return await read_watched(request, request.content.readany(), min(LOOK, renew_every), look)


def _cut_at_newline(data: bytes) -> tuple[bytes, bytes]:
    end = data.rfind(b"\n") + 1
    return data[:end], data[end:]


# --- formats -------------------------------------------------------------------


def from_texts(texts: list[str], limit: int) -> Lines:
    """Lines that came as JSON strings."""
    for number, text in enumerate(texts):
        _check_text(text, number, limit)
    return encode_lines(texts, now_us())


def from_text(data: bytes, limit: int) -> Lines:
    """Lines of raw output."""
    if _may_hold_longer(data, limit // MOST_GROWTH):
        for number, text in enumerate(split_text(data)):
            _check_length(text, number, limit)
    return encode_text(data, now_us())


def _may_hold_longer(data: bytes, size: int) -> bool:
    """Whether a line may be longer than ``size`` bytes: one look for so many bytes, however many lines they are."""
    start = 0
    while len(data) - start > size:
        start = data.rfind(b"\n", start, start + size + 1) + 1
        if not start:
            return True
    return False


def from_ndjson(data: bytes, limit: int) -> Lines:
    """Lines as ``{"text", "stream"?, "time"?}``, one object a line; empty lines count for nothing."""
    now = now_us()
    rows = [row for row in data.split(b"\n") if row.strip()]
    return encode_records([_record(row, number, now, limit) for number, row in enumerate(rows)])


def _record(row: bytes, number: int, now: int, limit: int) -> tuple[str, int, Stream]:
    try:
        record: Any = orjson.loads(row)
    except orjson.JSONDecodeError as error:
        raise BadJson(f"line {number} of the body is not JSON: {error}") from None
    if not isinstance(record, dict) or not record.keys() <= {"text", "stream", "time"}:
        raise BadBody(f'line {number} of the body must look like {{"text": "…", "stream": "stdout", "time": "…"}}')
    text, stream, time = record.get("text"), record.get("stream", "stdout"), record.get("time")
    if not isinstance(text, str):
        raise BadBody(f"line {number} of the body: text must be a string")
    _check_text(text, number, limit)
    if stream not in ("stdout", "stderr"):
        raise BadBody(f"line {number} of the body: stream must be one of stdout, stderr")
    try:
        time_us = now if time is None else parse_time(str(time))
    except (ValueError, TypeError) as error:
        raise BadBody(f"line {number} of the body: time {error}") from None
    return text, time_us, STREAMS[stream]


def _check_text(text: str, number: int, limit: int) -> None:
    _check_length(text, number, limit)
    if "\n" in text:
        raise BadBody(f"line {number} of the body holds a newline; send two lines")


def _check_length(text: str, number: int, limit: int) -> None:
    # Four bytes a character at most: most lines need not be encoded to know that they fit.
    if len(text) * 4 > limit and len(text.encode()) > limit:
        raise TooLarge(f"line {number} of the body is longer than {limit} bytes")


_DECODERS: dict[str, Decode] = {TEXT: from_text, NDJSON: from_ndjson}
