"""API keys in requests, for the rooms that take them as they are (PROTOCOLS.md, A3)."""

from __future__ import annotations

from aiohttp import web

from taskserver.errors import NoCredential
from taskserver.keys import Caller
from taskserver.web.context import services

SCHEMES = ("key ", "bearer ")  # Posit Connect's, and the one that most HTTP libraries know


async def api_key(request: web.Request) -> Caller:
    """Whose key stands in ``Authorization: Key XXXX`` (or ``Bearer``).

    The scheme's case does not matter (RFC 9110, 11.1). Raises NoCredential, BadCredential.
    """
    secret = _secret(request)
    if secret is None:
        raise NoCredential("send an API key: Authorization: Key XXXX")
    return await services(request).keys.verify(secret)


def known_api_key(request: web.Request) -> Caller | None:
    """The same if the key is in memory. It may be revoked or expired: ``Caller.require`` tells."""
    secret = _secret(request)
    return None if secret is None else services(request).keys.recall(secret)


def _secret(request: web.Request) -> str | None:
    header = request.headers.get("Authorization", "")
    for scheme in SCHEMES:
        if header[: len(scheme)].lower() == scheme:
            return header[len(scheme) :].strip()
    return None
