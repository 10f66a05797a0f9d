"""Answers that browsers keep and ask for again each time."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

# Asked for again each time, and answered with 304 as long as it is the same: an upgrade shows at once.
REVALIDATE = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}


def revalidated(request: web.Request, body: bytes, etag: str, headers: Mapping[str, str]) -> web.Response:
    """The body, or 304 for a client that has what bears this tag already (RFC 9110, 13.1.2)."""
    response = web.Response(body=body, headers={**REVALIDATE, **headers})
    response.etag = etag
    if any(tag.value in (etag, "*") for tag in request.if_none_match or ()):
        response.set_status(304)
        response.body = None
    return response
