"""Store: API keys."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from taskserver.errors import KeyExists, KeyNotFound
from taskserver.model import ApiKey, Scope
from taskserver.store import Store
from tests.contract.helpers import NOW, SECOND, Opener, Recorder


def key(name: str = "ci", key_id: str | None = None, created_at: int = NOW) -> ApiKey:
    scopes = frozenset({Scope.READ, Scope.WRITE})
    return ApiKey(key_id or f"id-{name}", name, f"owner of {name}", scopes, f"hash {name}".encode(), created_at)


async def test_a_key_is_kept_as_it_is(store: Store) -> None:
    full = ApiKey("id", "ünï", "ann", frozenset(Scope), b"\x00\xff", NOW, NOW + SECOND, NOW + 1)
    plain = ApiKey("id2", "ci", "ann", frozenset({Scope.READ}), b"hash", NOW)
    for wanted in (full, plain):
        await store.add_key(wanted)
        assert await store.get_key(wanted.id) == wanted


async def test_a_revocation_is_reported_and_a_new_key_is_not(store: Store, changes: Recorder) -> None:
    await store.add_key(key())
    assert changes.keys == []
    revoked = await store.revoke_key("id-ci", NOW + 1)
    assert [change.key for change in changes.keys] == [revoked]
    assert await store.revoke_key("id-ci", NOW + 2) == revoked
    with pytest.raises(KeyNotFound):
        await store.revoke_key("none", NOW)
    assert {change.key.id for change in changes.keys} == {"id-ci"}


async def test_keys_stand_after_a_restart(opener: Opener[Store], tmp_path: Path) -> None:
    before = await opener(tmp_path)
    await before.add_key(key())
    revoked = await before.revoke_key("id-ci", NOW + 1)
    await before.close()
    after = await opener(tmp_path)
    assert await after.list_keys() == [revoked]
    await after.close()


async def test_a_name_in_use_is_refused(store: Store) -> None:
    await store.add_key(key("ci"))
    with pytest.raises(KeyExists):
        await store.add_key(key("ci", key_id="other"))
    assert await store.list_keys() == [key("ci")]


async def test_an_expired_keys_name_is_in_use_until_it_is_revoked(store: Store) -> None:
    await store.add_key(replace(key("ci"), expires_at=NOW + 1))
    with pytest.raises(KeyExists):
        await store.add_key(key("ci", key_id="other", created_at=NOW + SECOND))


async def test_a_revoked_keys_name_is_free(store: Store) -> None:
    await store.add_key(key("ci"))
    await store.revoke_key("id-ci", NOW)
    await store.add_key(key("ci", key_id="other", created_at=NOW + 1))
    await store.revoke_key("other", NOW)
    await store.add_key(key("ci", key_id="third", created_at=NOW + 2))
    assert [found.id for found in await store.list_keys()] == ["id-ci", "other", "third"]


async def test_an_id_is_taken_for_ever(store: Store) -> None:
    await store.add_key(key("ci"))
    with pytest.raises(KeyExists):
        await store.add_key(key("other", key_id="id-ci"))
    await store.revoke_key("id-ci", NOW)
    with pytest.raises(KeyExists):
        await store.add_key(key("other", key_id="id-ci"))


async def test_names_differ_by_case(store: Store) -> None:
    await store.add_key(key("ci"))
    await store.add_key(key("CI"))
    assert len(await store.list_keys()) == 2


async def test_an_unknown_key_is_not_found(store: Store) -> None:
    with pytest.raises(KeyNotFound):
        await store.get_key("id-ci")
    with pytest.raises(KeyNotFound):
        await store.revoke_key("id-ci", NOW)


async def test_a_list_is_in_the_order_of_creation_with_revoked_keys(store: Store) -> None:
    assert await store.list_keys() == []
    for number, name in enumerate(["zoe", "ann", "bob"]):
        await store.add_key(key(name, created_at=NOW + number))
    await store.revoke_key("id-ann", NOW)
    assert [found.name for found in await store.list_keys()] == ["zoe", "ann", "bob"]


async def test_revoking_twice_keeps_the_first_time(store: Store) -> None:
    await store.add_key(key("ci"))
    await store.add_key(key("other", created_at=NOW + 1))
    revoked = await store.revoke_key("id-ci", NOW + 5)
    assert revoked == replace(key("ci"), revoked_at=NOW + 5)
    assert await store.revoke_key("id-ci", NOW + 9) == revoked
    assert await store.get_key("id-ci") == revoked
    assert (await store.get_key("id-other")).revoked_at is None
