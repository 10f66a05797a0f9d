"""What is noted of a request beside what it brings: its id, and whether its duration says anything of the server."""

from __future__ import annotations

import re
import uuid
from typing import Any

from aiohttp import web

REQUEST_ID_HEADER = "X-Request-ID"

_REQUEST_ID = web.RequestKey("request_id", str)
_SANE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}")  # nothing that could break out of a log line
UNTIMED = web.RequestKey("untimed", bool)


def request_id(request: web.BaseRequest) -> str:
    """The request's name in log lines and error answers: what a proxy calls it in ``X-Request-ID``, or a new UUID.

    Made when it is first asked for, since most requests need none.
    """
    if _REQUEST_ID not in request:
        theirs = request.headers.get(REQUEST_ID_HEADER, "")
        request[_REQUEST_ID] = theirs if _SANE.fullmatch(theirs) else str(uuid.uuid4())
    return request[_REQUEST_ID]


def fields_of(request: web.BaseRequest) -> dict[str, Any]:
    """What a log line tells of a request.

    Its path without the query, as it was sent. Neither its headers nor its body: keys and lines stand there.
    """
    return {"request_id": request_id(request), "method": request.method, "path": request.rel_url.raw_path}


def leave_untimed(request: web.BaseRequest) -> None:
    """Say that a request takes as long as its client, or a task, likes: that is no figure of the server's."""
    request[UNTIMED] = True
