"""JSON texts, and the times in them. Pure functions."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

import orjson

from taskserver.model import MICROSECONDS

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def isotime(time_us: int | None) -> str | None:
    """RFC 3339 in UTC with microseconds, such as ``2026-11-20T19:41:59.830168Z``."""
    if time_us is None:
        return None
    seconds, microseconds = divmod(time_us, MICROSECONDS)
    return f"{_isosecond(seconds)}.{microseconds:06d}Z"


@lru_cache(maxsize=1024)  # lines of a second have all but the fraction in common, which is nine tenths of the work
def _isosecond(seconds: int) -> str:
    # Not strftime: it writes the year 374 with three digits.
    return (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()


@lru_cache(1024)  # lines that were printed together often have one time
def parse_time(text: str) -> int:
    """The microseconds of an RFC 3339 time with an offset, later than 1970. Raises ValueError."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError("not an RFC 3339 time with an offset, such as 2026-11-20T19:41:59.83Z")
    fraction = ((match[2] or "") + "000000")[:6]
    offset = "+00:00" if match[3] in "Zz" else match[3]
    moment = datetime.fromisoformat(f"{match[1]}.{fraction}{offset}")
    time_us = (moment - _EPOCH) // timedelta(microseconds=1)
    if time_us < 0:
        raise ValueError("lies before 1970")
    return time_us


def dumps(value: Any) -> bytes:
    """JSON as UTF-8 bytes. NaN and infinities become null, as JSON has no word for them."""
    return orjson.dumps(value)
