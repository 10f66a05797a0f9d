"""The formats in which lines come, decoded (PROTOCOLS.md, A4): raw text, NDJSON, and texts of JSON. Pure functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from taskserver.encoding import encode_lines, encode_records, encode_text, split_text
from taskserver.errors import BadBody, BadJson, TooLarge
from taskserver.jsontext import parse_time
from taskserver.model import Lines, Stream, now_us
from taskserver.partial import Unfinished, unfinished_text

TEXT, NDJSON, JSON = "text/plain", "application/x-ndjson", "application/json"
LINE_KEYS, PARTIAL_KEYS = {"text", "stream", "time"}, {"partial", "stream"}
STREAMS = {"stdout": Stream.STDOUT, "stderr": Stream.STDERR}
MOST_GROWTH = 3  # a byte that is not UTF-8 becomes U+FFFD, which has three
ROW_GROWTH, ROW_ROOM = 6, 1024  # an NDJSON row has up to six bytes for one (as \u0000), and what is around the text


@dataclass(frozen=True, slots=True)
class Decoded:
    """Lines, encoded, and what is said to be unfinished behind them; None where nothing is said."""

    lines: Lines
    unfinished: Unfinished | None = None


Decode = Callable[[bytes, int], Decoded]
"""Whole lines of a body and their largest permitted size, decoded. Raises TooLarge, BadJson, BadBody."""


def from_texts(texts: list[str], limit: int) -> Lines:
    """Lines that came as JSON strings."""
    for number, text in enumerate(texts):
        _check_length(text, number, limit)
        if "\n" in text:
            raise BadBody(f"line {number} of the body holds a newline; send two lines")
    return encode_lines(texts, now_us())


def from_text(data: bytes, limit: int) -> Decoded:
    """Lines of raw output."""
    if _may_hold_longer(data, limit // MOST_GROWTH):
        for number, text in enumerate(split_text(data)):
            _check_length(text, number, limit)
    return Decoded(encode_text(data, now_us()))


def _may_hold_longer(data: bytes, size: int) -> bool:
    """Whether a line may be longer than ``size`` bytes: one look for so many bytes, however many lines they are."""
    start = 0
    while len(data) - start > size:
        start = data.rfind(b"\n", start, start + size + 1) + 1
        if not start:
            return True
    return False


def from_ndjson(data: bytes, limit: int) -> Decoded:
    """Rows: lines as ``{"text", "stream"?, "time"?}``, and ``{"partial", "stream"?}``; empty rows count for nothing."""
    now = now_us()
    records: list[tuple[str, int, Stream]] = []
    unfinished: dict[str, str] = {}
    partials = False
    for number, row in enumerate(row for row in data.split(b"\n") if row.strip()):
        record = _object(row, number)
        if "partial" in record:
            text, _, stream = _checked(record, "partial", number, now, limit)
            unfinished[stream.name.lower()] = unfinished_text(text.encode())
            partials = True
        else:
            records.append(_checked(record, "text", number, now, limit))
            unfinished.clear()
    return Decoded(encode_records(records), Unfinished(**unfinished) if partials else None)


def longest_row(decode: Decode, limit: int) -> int:
    """How many bytes a body may have without a newline, if a line may have ``limit``."""
    return limit if decode is from_text else limit * ROW_GROWTH + ROW_ROOM


def _object(row: bytes, number: int) -> dict[str, Any]:
    try:
        record: Any = orjson.loads(row)
    except orjson.JSONDecodeError as error:
        raise BadJson(f"line {number} of the body is not JSON: {error}") from None
    if not isinstance(record, dict) or not (record.keys() <= LINE_KEYS or record.keys() <= PARTIAL_KEYS):
        raise BadBody(
            f'line {number} of the body must look like {{"text": "…", "stream": "stdout", "time": "…"}}'
            ' or {"partial": "…", "stream": "stdout"}'
        )
    return record


def _checked(record: dict[str, Any], key: str, number: int, now: int, limit: int) -> tuple[str, int, Stream]:
    """The text under ``key``, its time and its stream."""
    text, stream, time = record.get(key), record.get("stream", "stdout"), record.get("time")
    if not isinstance(text, str):
        raise BadBody(f"line {number} of the body: {key} must be a string")
    _check_length(text, number, limit)
    if "\n" in text:
        raise BadBody(f"line {number} of the body: {key} holds a newline" + ("; send two lines" * (key == "text")))
    if stream not in ("stdout", "stderr"):
        raise BadBody(f"line {number} of the body: stream must be one of stdout, stderr")
    try:
        time_us = now if time is None else parse_time(str(time))
    except (ValueError, TypeError) as error:
        raise BadBody(f"line {number} of the body: time {error}") from None
    return text, time_us, STREAMS[stream]


def _check_length(text: str, number: int, limit: int) -> None:
    # Four bytes a character at most: most lines need not be encoded to know that they fit.
    if len(text) * 4 > limit and len(text.encode()) > limit:
        raise TooLarge(f"line {number} of the body is longer than {limit} bytes")


DECODERS: dict[str, Decode] = {TEXT: from_text, NDJSON: from_ndjson}
