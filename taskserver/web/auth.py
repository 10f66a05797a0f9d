"""API keys in requests, for the rooms that take them as they are (PROTOCOLS.md, A3)."""

from __future__ import annotations

from aiohttp import web

from taskserver.errors import NoCredential
from taskserver.keys import Caller
from taskserver.web.context import services

SCHEMES = ("Key ", "Bearer ")  # Posit Connect's, and the one that most HTTP libraries know


async def api_key(request: web.Request) -> Caller:
    """Whose key stands in ``Authorization: Key XXXX`` (or ``Bearer``).

    The scheme's case does not matter (RFC 9110, 11.1). Raises NoCredential, BadCredential.
    """
    header = request.headers.get("Authorization", "")
    for scheme in SCHEMES:
        if header[: len(scheme)].lower() == scheme.lower():
            return await services(request).keys.verify(header[len(scheme) :].strip())
    raise NoCredential("send an API key: Authorization: Key XXXX")
