"""PROTOCOLS.md, A3: keys, as an admin deals with them."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.api.conversation import JSON, V1, Api, refused

FIELDS = ["id", "name", "owner", "scopes", "created_at", "expires_at", "revoked_at"]


async def make(admin: Api, **wish: Any) -> tuple[dict[str, Any], Api]:
    """A key as it is shown, and a client with it."""
    answer = await admin.ask("POST", "/keys", body=wish)
    assert (answer.status, answer.headers["Content-Type"], answer.headers["Cache-Control"]) == (201, JSON, "no-store")
    shown = answer.json
    secret = shown.pop("key")
    return shown, Api(admin.client, admin.services, secret, shown["id"], V1)


async def listed(admin: Api) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await admin.json("GET", "/keys"))["keys"]
    return found


async def test_a_key_is_shown_once_and_works(admin: Api) -> None:
    shown, ci = await make(admin, name="ci")
    assert list(shown) == FIELDS
    assert (shown["name"], shown["owner"], shown["scopes"]) == ("ci", "ci", ["read", "write"])
    assert (shown["expires_at"], shown["revoked_at"]) == (None, None)
    assert len(ci.key) >= 43
    assert await ci.lines(await ci.create("a")) == ["a"]
    assert shown in await listed(admin)
    assert ci.key not in (await admin.ask("GET", "/keys")).text


async def test_owner_and_scopes_can_be_chosen(admin: Api) -> None:
    shown, reader = await make(admin, name="dash", owner="team", scopes=["read"])
    assert (shown["owner"], shown["scopes"]) == ("team", ["read"])
    refused(await reader.ask("POST", "/tasks"), 403, 22)
    _, writer = await make(admin, name="w", owner="team", scopes=["write", "write"])
    assert (await reader.task(await writer.create()))["state"] == "queued"
    _, second = await make(admin, name="boss", scopes=["admin"])
    assert len(await listed(second)) == 4


async def test_a_key_can_expire(admin: Api) -> None:
    shown, ci = await make(admin, name="ci", expires_in=1)
    created, expires = (datetime.fromisoformat(shown[name].removesuffix("Z")) for name in ("created_at", "expires_at"))
    assert timedelta(0) < expires - created <= timedelta(seconds=1.1)
    answer = await ci.ask("GET", "/tasks")
    while answer.status == 200:  # for a second
        answer = await ci.ask("GET", "/tasks")
    refused(answer, 401, 30)
    refused(await admin.ask("POST", "/keys", body={"name": "ci"}), 409, 1005, "ci")


@pytest.mark.parametrize("by", ["id", "name"])
async def test_a_revoked_key_is_refused_at_once_and_its_name_is_free(admin: Api, by: str) -> None:
    shown, ci = await make(admin, name="ci")
    await ci.create()
    answer = await admin.json("DELETE", f"/keys/{shown[by]}")
    assert answer["revoked_at"] is not None
    assert {**answer, "revoked_at": None} == shown
    refused(await ci.ask("GET", "/tasks"), 401, 30)
    assert answer in await listed(admin)
    again, _ = await make(admin, name="ci")
    assert again["id"] != shown["id"]


async def test_revoking_again_by_id_changes_nothing(admin: Api) -> None:
    shown, _ = await make(admin, name="ci")
    first = await admin.json("DELETE", f"/keys/{shown['id']}")
    assert await admin.json("DELETE", f"/keys/{shown['id']}") == first
    refused(await admin.ask("DELETE", "/keys/ci"), 404, 4)


async def test_an_unknown_key_is_not_found(admin: Api) -> None:
    for name in ("none", "%00", "%FF", "x" * 1000):
        refused(await admin.ask("DELETE", f"/keys/{name}"), 404, 4)


async def test_an_admin_may_revoke_its_own_key(admin: Api) -> None:
    await admin.json("DELETE", f"/keys/{admin.key_id}")
    refused(await admin.ask("GET", "/keys"), 401, 30)


async def test_a_name_in_use_is_refused(admin: Api) -> None:
    await make(admin, name="ci")
    refused(await admin.ask("POST", "/keys", body={"name": "ci"}), 409, 1005, "ci")
    assert len(await listed(admin)) == 2


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({}, ["name: "]),
        ({"name": None}, ["name: "]),
        ({"name": ""}, ["name: "]),
        ({"name": "a b"}, ["name: "]),
        ({"name": "a/b"}, ["name: "]),
        ({"name": "a\n"}, ["name: "]),
        ({"name": "x" * 101}, ["name: ", "100"]),
        ({"name": 5}, ["name: "]),
        ({"name": "ci", "owner": "a b"}, ["owner: "]),
        ({"name": "ci", "owner": ""}, ["owner: "]),
        ({"name": "ci", "scopes": []}, ["scopes: ", "read"]),
        ({"name": "ci", "scopes": ["root"]}, ["scopes.0: ", "read, write, admin"]),
        ({"name": "ci", "scopes": "read"}, ["scopes: "]),
        ({"name": "ci", "scopes": None}, ["scopes: "]),
        ({"name": "ci", "scopes": [["read"]]}, ["scopes.0: "]),
        ({"name": "ci", "expires_in": 0}, ["expires_in: ", " 1 "]),
        ({"name": "ci", "expires_in": -5}, ["expires_in: "]),
        ({"name": "ci", "expires_in": 1.5}, ["expires_in: "]),
        ({"name": "ci", "expires_in": 10**30}, ["expires_in: "]),
        ({"name": "ci", "expires_in": True}, ["expires_in: "]),
        ({"name": "ci", "key": "mine" * 10}, ["key: "]),
    ],
)
async def test_a_wish_that_cannot_be_met_is_refused_by_name(admin: Api, wish: Any, words: list[str]) -> None:
    refused(await admin.ask("POST", "/keys", body=wish), 400, 87, *words)
    assert len(await listed(admin)) == 1


async def test_the_bounds_themselves_are_taken(admin: Api) -> None:
    await make(admin, name="x" * 100, owner="y" * 100, scopes=["read", "write", "admin"], expires_in=1)
    await make(admin, name="Ünï_1.a@b-c", expires_in=100 * 366 * 24 * 3600)
    await make(admin, name="n", owner=None, expires_in=None)


async def test_keys_are_never_logged(admin: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    _, ci = await make(admin, name="ci")
    await ci.done("a")
    await ci.ask("GET", "/tasks/none")
    await admin.json("DELETE", "/keys/ci")
    await ci.ask("GET", "/tasks")
    assert ci.key not in caplog.text
    assert admin.key not in caplog.text
