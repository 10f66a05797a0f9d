"""Browser sessions: sign in with an API key, see who is signed in, sign out (PROTOCOLS.md, A3)."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from taskserver.api.tasks.answers import json_answer, make_head
from taskserver.api.tasks.schemas import SessionBody
from taskserver.errors import BadCredential
from taskserver.jsontext import dumps, isotime
from taskserver.keys import Caller
from taskserver.web.auth import prove_same_origin, session_cookie
from taskserver.web.context import caller, services
from taskserver.web.params import body
from taskserver.web.prepared import Prepared
from taskserver.web.streaming import NO_STORE

SESSION = SessionBody()


async def create_session(request: web.Request) -> web.StreamResponse:
    """Sign in: a cookie for who holds an API key that may read."""
    prove_same_origin(request)
    wish = await body(request, SESSION)
    try:
        session, token = await services(request).tokens.open_session(wish["key"])
    except BadCredential as error:
        raise services(request).sign_ins.failed(request, error) from None
    seconds = max(1, int(session.seconds_left()))
    head = make_head({"Set-Cookie": session_cookie(request, token, seconds)})
    return Prepared(head, dumps(_shown(session)))


async def get_session(request: web.Request) -> web.StreamResponse:
    """Who asks, and what the key may do."""
    return json_answer(_shown(caller(request)))


async def delete_session(request: web.Request) -> web.StreamResponse:
    """Sign out. A repeat changes nothing."""
    prove_same_origin(request)
    return web.Response(status=204, headers={**NO_STORE, "Set-Cookie": session_cookie(request, "", 0)})


def _shown(who: Caller) -> dict[str, Any]:
    return {
        "id": who.key_id,
        "name": who.name,
        "owner": who.owner,
        "scopes": sorted(scope.value for scope in who.scopes),
        "expires_at": isotime(who.expires_at),
    }
