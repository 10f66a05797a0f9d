"""keys: issuing, verifying and revoking, and the races between them."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from taskserver import keys as keys_module
from taskserver.errors import BadCredential, BadParameter, Forbidden, KeyExists, KeyNotFound, TaskNotFound
from taskserver.keys import Caller, Keys, key_id
from taskserver.model import ApiKey, Scope, Task, TaskState
from taskserver.store import Store
from taskserver.stores import open_store
from taskserver.wakeup import LocalWakeup

NOW = 1_800_000_000_000_000
SECOND = 1_000_000


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store(f"sqlite:///{tmp_path}/tasks.db", synchronous="normal")
    yield opened
    await opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def wakeup() -> LocalWakeup:
    return LocalWakeup()


@pytest.fixture
def keys(store: Store, wakeup: LocalWakeup, clock: Clock) -> Keys:
    found = Keys(store, wakeup, clock)
    store.listen(found.committed)
    return found


def caller(*scopes: Scope, owner: str = "ann", expires_at: int | None = None, clock: Clock | None = None) -> Caller:
    return Caller(ApiKey("id", "ci", owner, frozenset(scopes), b"", NOW, expires_at), clock or Clock())


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


class TestIssue:
    async def test_a_secret_is_256_random_bits_and_known_to_nobody(
        self, keys: Keys, store: Store, tmp_path: Path
    ) -> None:
        key, secret = await keys.issue("ci", [Scope.READ])
        assert re.fullmatch(r"tsk_[\w-]{43}", secret)
        assert key.hash == hashlib.sha256(secret.encode()).digest()
        assert key.id == key.hash.hex()[:16] == key_id(secret)
        assert await store.get_key(key.id) == key
        assert (key.owner, key.created_at, key.expires_at, key.revoked_at) == ("ci", NOW, None, None)
        assert secret.encode() not in everything_in(tmp_path)

    async def test_secrets_do_not_repeat(self, keys: Keys) -> None:
        secrets = {(await keys.issue(f"k{number}", [Scope.READ]))[1] for number in range(20)}
        assert len(secrets) == 20

    async def test_an_operator_may_bring_a_secret(self, keys: Keys) -> None:
        mine = "!" + "x" * 30 + "~"
        _, secret = await keys.issue("ci", [Scope.READ], secret=mine)
        assert secret == mine
        assert (await keys.verify(mine)).name == "ci"

    @pytest.mark.parametrize(
        "secret", ["short", "x" * 31, "x" * 513, "x" * 32 + " ", "x" * 32 + "\n", "ü" * 32, "x" * 31 + "\0"]
    )
    async def test_a_secret_that_no_header_can_carry_or_anybody_could_guess_is_refused(
        self, keys: Keys, secret: str
    ) -> None:
        with pytest.raises(BadParameter):
            await keys.issue("ci", [Scope.READ], secret=secret)
        assert await keys.list() == []

    async def test_an_expiry_in_the_past_is_refused(self, keys: Keys) -> None:
        for expires_at in (0, NOW - 1, NOW):
            with pytest.raises(BadParameter):
                await keys.issue("ci", [Scope.READ], expires_at=expires_at)

    async def test_a_name_in_use_is_refused(self, keys: Keys) -> None:
        await keys.issue("ci", [Scope.READ])
        with pytest.raises(KeyExists):
            await keys.issue("ci", [Scope.READ])


class TestVerify:
    async def test_a_key_tells_who_asks(self, keys: Keys) -> None:
        key, secret = await keys.issue("ci", [Scope.READ, Scope.WRITE], owner="team", expires_at=NOW + SECOND)
        who = await keys.verify(secret)
        assert (who.key_id, who.name, who.owner, who.expires_at) == (key.id, "ci", "team", NOW + SECOND)
        assert who.scopes == {Scope.READ, Scope.WRITE}
        assert await keys.verify(secret) is who

    async def test_anything_else_is_refused_in_the_same_words(self, keys: Keys, clock: Clock) -> None:
        key, secret = await keys.issue("ci", [Scope.READ])
        _, expired = await keys.issue("old", [Scope.READ], expires_at=NOW + 1)
        gone, revoked = await keys.issue("gone", [Scope.READ])
        await keys.revoke(gone.id)
        clock.now = NOW + 1
        words = set()
        for wrong in ("", "x", key.id, key.hash.hex(), secret[:-1], secret + "x", secret.upper(), expired, revoked):
            with pytest.raises(BadCredential) as caught:
                await keys.verify(wrong)
            words.add((caught.value.message, str(caught.value.payload)))
        assert len(words) == 1

    async def test_a_hash_that_only_begins_alike_is_refused(self, keys: Keys, store: Store) -> None:
        """The id is the start of the hash; all of it must agree."""
        secret = "x" * 40
        await store.add_key(ApiKey(key_id(secret), "twin", "ann", frozenset(Scope), b"\0" * 32, NOW))
        with pytest.raises(BadCredential):
            await keys.verify(secret)

    async def test_a_known_key_costs_no_read(self, keys: Keys, store: Store) -> None:
        _, secret = await keys.issue("ci", [Scope.READ])
        await keys.verify(secret)
        await store.close()
        assert (await keys.verify(secret)).name == "ci"

    async def test_a_known_key_expires_all_the_same(self, keys: Keys, clock: Clock) -> None:
        _, secret = await keys.issue("ci", [Scope.READ], expires_at=NOW + SECOND)
        who = await keys.verify(secret)
        clock.now += SECOND - 1
        assert await keys.verify(secret) is who
        clock.now += 1
        with pytest.raises(BadCredential):
            await keys.verify(secret)

    async def test_what_is_remembered_is_bounded(self, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(keys_module, "VERIFIED_KEYS", 3)
        secrets = [(await keys.issue(f"k{number}", [Scope.READ]))[1] for number in range(6)]
        for secret in secrets * 2:
            await keys.verify(secret)
        assert len(keys._callers) == 3

    async def test_wrong_keys_are_not_remembered(self, keys: Keys) -> None:
        for number in range(5):
            with pytest.raises(BadCredential):
                await keys.verify(f"wrong {number}")
        assert len(keys._callers) == 0


class TestRevoke:
    async def test_it_takes_effect_at_once_and_wakes_those_who_wait(self, keys: Keys, wakeup: LocalWakeup) -> None:
        key, secret = await keys.issue("ci", [Scope.READ])
        who = await keys.verify(secret)
        with wakeup.subscribe(who.topic) as subscription:
            revoked = await keys.revoke(key.id)
            assert revoked.revoked_at == NOW
            assert await subscription.wait(20)
        for _ in range(2):
            with pytest.raises(BadCredential):
                who.check()
            with pytest.raises(BadCredential):
                await keys.verify(secret)

    async def test_a_repeat_does_nothing(self, keys: Keys, clock: Clock) -> None:
        key, _ = await keys.issue("ci", [Scope.READ])
        revoked = await keys.revoke(key.id)
        clock.now += SECOND
        assert await keys.revoke(key.id) == revoked

    async def test_an_unknown_key_is_not_found(self, keys: Keys) -> None:
        with pytest.raises(KeyNotFound):
            await keys.revoke("none")

    async def test_it_reaches_every_request_of_a_key_whose_first_ones_came_at_once(self, keys: Keys) -> None:
        key, secret = await keys.issue("ci", [Scope.READ])
        callers = await asyncio.gather(*(keys.verify(secret) for _ in range(5)))
        await keys.revoke(key.id)
        for who in callers:
            with pytest.raises(BadCredential):
                who.check()

    async def test_it_reaches_those_who_are_not_remembered_any_more(
        self, keys: Keys, wakeup: LocalWakeup, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(keys_module, "VERIFIED_KEYS", 1)
        key, secret = await keys.issue("ci", [Scope.READ])
        who = await keys.verify(secret)
        await keys.verify((await keys.issue("other", [Scope.READ]))[1])
        with wakeup.subscribe(who.topic) as subscription:
            await keys.revoke(key.id)
            assert await subscription.wait(0.01)
        with pytest.raises(BadCredential):
            who.check()

    async def test_it_beats_a_look_up_that_is_under_way(
        self, keys: Keys, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, secret = await keys.issue("ci", [Scope.READ])
        get_key = store.get_key

        async def slow(key_id: str) -> ApiKey:
            found = await get_key(key_id)
            await keys.revoke(key_id)
            return found

        monkeypatch.setattr(store, "get_key", slow)
        with pytest.raises(BadCredential):
            (await keys.verify(secret)).check()
        monkeypatch.undo()
        with pytest.raises(BadCredential):
            await keys.verify(secret)


class TestFind:
    async def test_by_id_or_name(self, keys: Keys) -> None:
        key, _ = await keys.issue("ci", [Scope.READ])
        assert await keys.find(key.id) == await keys.find("ci") == key
        for unknown in ("none", "", key.id[:8]):
            with pytest.raises(KeyNotFound):
                await keys.find(unknown)

    async def test_a_name_means_the_key_that_is_not_revoked(self, keys: Keys, clock: Clock) -> None:
        old, _ = await keys.issue("ci", [Scope.READ])
        await keys.revoke(old.id)
        with pytest.raises(KeyNotFound):
            await keys.find("ci")
        clock.now += 1
        new, _ = await keys.issue("ci", [Scope.READ])
        assert (await keys.find("ci")).id == new.id
        assert (await keys.find(old.id)).revoked_at == NOW


class TestCaller:
    @pytest.mark.parametrize(
        ("scopes", "allowed"),
        [
            ([], []),
            ([Scope.READ], [Scope.READ]),
            ([Scope.WRITE], [Scope.WRITE]),
            ([Scope.READ, Scope.WRITE], [Scope.READ, Scope.WRITE]),
            ([Scope.ADMIN], list(Scope)),
        ],
    )
    def test_a_scope_allows_itself_and_admin_allows_all(self, scopes: list[Scope], allowed: list[Scope]) -> None:
        who = caller(*scopes)
        for scope in Scope:
            if scope in allowed:
                who.require(scope)
            else:
                with pytest.raises(Forbidden) as caught:
                    who.require(scope)
                assert caught.value.payload == {"scope": scope.value}

    def test_it_sees_its_owners_tasks_and_an_admin_all(self) -> None:
        hers = Task("build", 1, "ann", "", TaskState.QUEUED, 0)
        assert caller(Scope.READ, owner="ann").see(hers) is hers
        assert caller(Scope.ADMIN, owner="boss").see(hers) is hers
        with pytest.raises(TaskNotFound):
            caller(Scope.READ, Scope.WRITE, owner="Ann").see(hers)

    def test_it_knows_how_long_it_is_valid(self) -> None:
        clock = Clock()
        who = caller(Scope.READ, expires_at=NOW + 3 * SECOND // 2, clock=clock)
        assert who.seconds_left() == 1.5
        clock.now += 2 * SECOND
        assert who.seconds_left() == 0
        with pytest.raises(BadCredential):
            who.require(Scope.READ)
        assert caller().seconds_left() == float("inf")
