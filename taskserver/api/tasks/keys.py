"""Keys: create, list and revoke API keys, for admins."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from taskserver.api.tasks.answers import json_answer
from taskserver.api.tasks.schemas import NewKeyBody
from taskserver.jsontext import isotime
from taskserver.model import MICROSECONDS, ApiKey, Scope, now_us
from taskserver.web.context import actor, services
from taskserver.web.params import body

NEW_KEY = NewKeyBody()


async def create_key(request: web.Request) -> web.StreamResponse:
    """Make a key. The answer is the only one that ever shows it."""
    wish = await body(request, NEW_KEY)
    lifetime = wish["expires_in"]
    key, secret = await services(request).keys.issue(
        wish["name"],
        [Scope(scope) for scope in wish["scopes"]],
        owner=wish["owner"],
        expires_at=None if lifetime is None else now_us() + lifetime * MICROSECONDS,
        by=actor(request),
    )
    return json_answer({**_shown(key), "key": secret}, status=201)


async def list_keys(request: web.Request) -> web.StreamResponse:
    """All keys, revoked and expired ones included."""
    return json_answer({"keys": [_shown(key) for key in await services(request).keys.list()]})


async def revoke_key(request: web.Request) -> web.StreamResponse:
    """Revoke a key, named by its id or its name. A repeat by id changes nothing."""
    keys = services(request).keys
    key = await keys.find(request.match_info["id"])
    return json_answer(_shown(await keys.revoke(key.id, actor(request))))


def _shown(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "owner": key.owner,
        "scopes": sorted(scope.value for scope in key.scopes),
        "created_at": isotime(key.created_at),
        "expires_at": isotime(key.expires_at),
        "revoked_at": isotime(key.revoked_at),
    }
