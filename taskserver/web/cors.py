"""CORS: whose pages' scripts may read our answers in a browser (the Fetch standard, "HTTP CORS protocol").

Without allowed origins nothing of this is there: no header, no preflight, and
no code around the handlers.

Rules:

- A page of somebody else's proves who it is with an API key in
  ``Authorization``, which browsers send only where a script says so. Its scripts
  read nothing with a session's cookie: that is ``SameSite=Strict``, and
  ``Access-Control-Allow-Credentials`` is never sent. So ``*`` is harmless.
- The answer names the origin that asked, and so differs from the next one's
  (``Vary: Origin``), unless everybody is allowed.
- A preflight names every method of this server: which ones a path has, and
  what a key may do, is told by the request itself, in the room's own shape.
"""

from __future__ import annotations

from collections.abc import Collection

from aiohttp import hdrs, web

from taskserver.web.prepared import OF_ITS_OWN, Prepared
from taskserver.web.rooms import Handler

EVERYBODY = "*"
METHODS = "GET, HEAD, POST, PUT, DELETE"
REQUEST_HEADERS = "Authorization, Cache-Control, Content-Type, If-None-Match, Last-Event-ID, Prefer, X-Request-ID"
EXPOSED = "Airflow-Continuation-Token, Allow, ETag, Location, Preference-Applied, Retry-After, X-Request-ID"
PREFLIGHT_LASTS = 7200  # seconds; what Chromium remembers at most


class Cors:
    """Lets scripts of pages from ``origins`` in; ``*`` means all."""

    def __init__(self, origins: Collection[str]) -> None:
        self._everybody = EVERYBODY in origins
        self._origins = frozenset(origins)

    def around(self, handler: Handler) -> Handler:
        """The handler, with preflights answered and the headers of its prepared answers added."""

        async def answer(request: web.Request) -> web.StreamResponse:
            allowed = self._allowed(request)
            if allowed is None:
                return await handler(request)
            if request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers:
                return _preflight()
            request[OF_ITS_OWN] = True
            response = await handler(request)
            if isinstance(response, Prepared):
                lines = (f"{name}: {value}\r\n" for name, value in self._headers(allowed).items())
                response.more += "".join(lines).encode()
            return response

        return answer

    async def add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """The same for all other answers; aiohttp calls it before it sends one."""
        allowed = self._allowed(request)
        if allowed is not None:
            response.headers.extend(self._headers(allowed))
        elif not self._everybody:
            response.headers.add(hdrs.VARY, hdrs.ORIGIN)  # the next one may have an origin

    def _allowed(self, request: web.Request) -> str | None:
        """What ``Access-Control-Allow-Origin`` says to a request; None if it says nothing."""
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None:
            return None
        if self._everybody:
            return EVERYBODY
        return origin if origin in self._origins else None

    def _headers(self, allowed: str) -> dict[str, str]:
        headers: dict[str, str] = {
            hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: allowed,
            hdrs.ACCESS_CONTROL_EXPOSE_HEADERS: EXPOSED,
        }
        if not self._everybody:
            headers[hdrs.VARY] = hdrs.ORIGIN
        return headers


def _preflight() -> web.Response:
    headers = {
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: METHODS,
        hdrs.ACCESS_CONTROL_ALLOW_HEADERS: REQUEST_HEADERS,
        hdrs.ACCESS_CONTROL_MAX_AGE: str(PREFLIGHT_LASTS),
    }
    return web.Response(status=204, headers=headers)
