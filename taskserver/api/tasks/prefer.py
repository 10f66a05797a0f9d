"""``Prefer: wait=N`` (RFC 7240), which counts where the query names no ``wait``."""

from __future__ import annotations

import re

from aiohttp import web

from taskserver.config import MAX_OUTPUT_WAIT

_WAIT = re.compile(r"(?:^|,)\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?:$|[,;])", re.IGNORECASE | re.ASCII)


def preferred_wait(request: web.Request) -> int | None:
    """The seconds that the request prefers, at most MAX_OUTPUT_WAIT; None if it does not say."""
    match = _WAIT.search(",".join(request.headers.getall("Prefer", ())))
    return None if match is None else min(int(match[1]), MAX_OUTPUT_WAIT)


def preference_applied(wait: int) -> dict[str, str]:
    """What the answer to such a request says."""
    return {"Preference-Applied": f"wait={wait}", "Vary": "Prefer"}
