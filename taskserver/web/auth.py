"""API keys in requests, for the rooms that take them as they are (PROTOCOLS.md, A3), and browser sessions."""

from __future__ import annotations

from aiohttp import web

from taskserver.errors import Forbidden, NoCredential
from taskserver.keys import Caller
from taskserver.web.context import services

SCHEMES = ("key ", "bearer ")  # Posit Connect's, and the one that most HTTP libraries know
SAFE_METHODS = frozenset({"GET", "HEAD"})
COOKIE = "taskserver_session"


async def api_key(request: web.Request) -> Caller:
    """Whose key stands in ``Authorization: Key XXXX`` (or ``Bearer``).

    The scheme's case does not matter (RFC 9110, 11.1). Raises NoCredential, BadCredential.
    """
    secret = _secret(request)
    if secret is None:
        raise _no_credential()
    return await services(request).keys.verify(secret)


def known_api_key(request: web.Request) -> Caller | None:
    """The same if the key is in memory. It may be revoked or expired: ``Caller.require`` tells."""
    secret = _secret(request)
    return None if secret is None else services(request).keys.recall(secret)


async def key_or_session(request: web.Request) -> Caller:
    """As ``api_key``; a browser may send a session's cookie instead. Raises Forbidden too: ``prove_same_origin``."""
    secret = _secret(request)
    if secret is not None:
        return await services(request).keys.verify(secret)
    token = session_token(request)
    if token is None:
        raise _no_credential()
    prove_same_origin(request)
    return await services(request).tokens.verify_session(token)


def known_key_or_session(request: web.Request) -> Caller | None:
    """The same if the key or session is in memory. It may be revoked or expired: ``Caller.require`` tells."""
    secret = _secret(request)
    if secret is not None:
        return services(request).keys.recall(secret)
    token = session_token(request)
    if token is None:
        return None
    prove_same_origin(request)
    return services(request).tokens.recall_session(token)


def prove_same_origin(request: web.Request) -> None:
    """Raise Forbidden if a page of somebody else's may have had a browser send a request that changes something.

    Browsers say where a request comes from, in headers that no page can set
    (Fetch Metadata; over plain HTTP only ``Origin``, RFC 6454). Who sends none of
    them is no browser, or one that cannot be trusted with a cookie.
    """
    if request.method in SAFE_METHODS:
        return
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        proved = site == "same-origin"
    else:
        origin = request.headers.get("Origin", "").partition("://")[2]
        # A proxy may send its own Host; that of the browser is then here. Another site's page cannot set this header.
        forwarded = (host.strip() for host in request.headers.get("X-Forwarded-Host", "").split(","))
        proved = origin != "" and origin in {request.host, *forwarded}
    if not proved:
        raise Forbidden("a request with a session that changes something must come from a page of this server")


def session_token(request: web.Request) -> str | None:
    """The session in the request's cookies, if there is one."""
    header = request.headers.get("Cookie")
    if header is None:
        return None
    name = _cookie_name(request)
    pairs = (pair.strip().partition("=") for pair in header.split(";"))
    return next((value for found, _, value in pairs if found == name), None)


def session_cookie(request: web.Request, token: str, max_age: int) -> str:
    """The ``Set-Cookie`` that keeps a session for ``max_age`` seconds, or with 0 ends it.

    It names no path: the browser takes the folder of the URL that it asked, which
    is right behind a proxy's path prefix too (RFC 6265, 5.1.4).
    """
    secure = request.secure or request.headers.get("Origin", "").startswith("https://")
    attributes = f"Max-Age={max_age}; HttpOnly; SameSite=Strict{'; Secure' if secure else ''}"
    return f"{_cookie_name(request)}={token}; {attributes}"


def _cookie_name(request: web.Request) -> str:
    # Cookies do not know of ports: two servers of one machine would end each other's sessions.
    port = request.host.rpartition(":")[2]
    return f"{COOKIE}_{port}" if port.isascii() and port.isdigit() else COOKIE


def _no_credential() -> NoCredential:
    return NoCredential("send an API key: Authorization: Key XXXX")


def _secret(request: web.Request) -> str | None:
    header = request.headers.get("Authorization", "")
    for scheme in SCHEMES:
        if header[: len(scheme)].lower() == scheme:
            return header[len(scheme) :].strip()
    return None
