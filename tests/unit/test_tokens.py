"""tokens: what they are worth, and for how long."""

from __future__ import annotations

import asyncio

import jwt
import pytest

from taskserver.errors import BadCredential, Forbidden, SessionOver, TokenExpired
from taskserver.keys import Keys
from taskserver.model import MICROSECONDS, Scope
from taskserver.store import Store
from taskserver.tokens import SESSION_LIFETIME, TOKEN_LIFETIME, Tokens
from taskserver.wakeup import LocalWakeup
from tests.unit.clock import NOW, Clock


@pytest.fixture
def keys(store: Store, clock: Clock) -> Keys:
    found = Keys(store, LocalWakeup(), clock)
    store.listen(found.committed)
    return found


@pytest.fixture
def tokens(store: Store, keys: Keys, clock: Clock) -> Tokens:
    return Tokens(store, keys, clock)


async def test_a_token_is_worth_what_its_key_is_worth(keys: Keys, tokens: Tokens) -> None:
    key, secret = await keys.issue("ci", [Scope.READ], owner="ann")
    caller = await tokens.verify(await tokens.issue("ci", secret))
    assert (caller.key_id, caller.name, caller.owner, set(caller.scopes)) == (key.id, "ci", "ann", {Scope.READ})
    assert caller is await keys.verify(secret), "one caller, so that both are told of a revocation"


async def test_it_lasts_a_day_by_the_servers_clock(keys: Keys, tokens: Tokens, clock: Clock) -> None:
    _, secret = await keys.issue("ci", [Scope.READ])
    token = await tokens.issue("ci", secret)
    clock.pass_seconds(TOKEN_LIFETIME - 1)
    assert await tokens.verify(token)
    clock.pass_seconds(1)
    with pytest.raises(TokenExpired):
        await tokens.verify(token)
    assert await tokens.verify(await tokens.issue("ci", secret))


async def test_it_ends_with_its_key(keys: Keys, tokens: Tokens, clock: Clock) -> None:
    _, secret = await keys.issue("ci", [Scope.READ], expires_at=NOW + 10 * MICROSECONDS + 999_999)
    token = await tokens.issue("ci", secret)
    clock.pass_seconds(9)
    assert await tokens.verify(token)
    clock.pass_seconds(1)
    with pytest.raises(TokenExpired):
        await tokens.verify(token)


async def test_it_dies_with_its_key(keys: Keys, tokens: Tokens) -> None:
    key, secret = await keys.issue("ci", [Scope.READ])
    token = await tokens.issue("ci", secret)
    caller = await tokens.verify(token)
    await keys.revoke(key.id)
    for _ in range(2):
        with pytest.raises(BadCredential):
            await tokens.verify(token)
    with pytest.raises(BadCredential):
        caller.check()


async def test_the_name_must_be_the_keys(keys: Keys, tokens: Tokens) -> None:
    _, secret = await keys.issue("ci", [Scope.READ])
    for name, password in (("other", secret), ("ci", secret[:-1]), ("ci", "\udcff" * 40)):
        with pytest.raises(BadCredential):
            await tokens.issue(name, password)


async def test_a_key_counts_as_a_token_for_itself(keys: Keys, tokens: Tokens) -> None:
    for secret in (None, "x." + "y" * 40 + ".z", "é" * 40):
        if secret is not None and not secret.isascii():
            with pytest.raises(BadCredential):
                await tokens.verify(secret)
            continue
        key, made = await keys.issue(f"ci-{secret is None}", [Scope.READ], secret=secret)
        assert (await tokens.verify(made)).key_id == key.id


async def test_the_same_secret_signs_in_every_process(store: Store, keys: Keys, clock: Clock) -> None:
    _, secret = await keys.issue("ci", [Scope.READ])
    servers = [Tokens(store, keys, clock) for _ in range(5)]
    made = await asyncio.gather(*(server.issue("ci", secret) for server in servers))
    assert len(set(made)) == 1
    for server in servers:
        assert await server.verify(made[0])


@pytest.mark.parametrize(
    "claims", [{}, {"sub": 5, "exp": 2**40}, {"sub": "x"}, {"exp": 2**40}, {"sub": "x", "exp": 2**40}]
)
async def test_claims_that_we_did_not_make(store: Store, tokens: Tokens, claims: dict[str, object]) -> None:
    secret = await store.keep_secret("token", b"s" * 32)
    with pytest.raises(BadCredential):
        await tokens.verify(jwt.encode(claims, secret, "HS256"))


async def test_a_session_is_worth_what_its_key_is_worth(keys: Keys, tokens: Tokens) -> None:
    _, secret = await keys.issue("ci", [Scope.READ])
    _, token = await tokens.open_session(secret)
    assert tokens.recall_session(token) is None, "not known before it was shown"
    caller, key = await tokens.verify_session(token), await keys.verify(secret)
    assert (caller.key_id, caller.name, caller.owner, caller.scopes) == (key.key_id, "ci", "ci", key.scopes)
    assert caller.topic == key.topic, "both are told of a revocation"
    assert caller.expires_at is None
    assert tokens.recall_session(token) is caller
    assert await tokens.verify_session(token) is caller


async def test_a_session_lasts_a_week_known_or_not(store: Store, keys: Keys, tokens: Tokens, clock: Clock) -> None:
    _, secret = await keys.issue("ci", [Scope.READ])
    session, token = await tokens.open_session(secret)
    clock.pass_seconds(SESSION_LIFETIME - 1)
    caller = await tokens.verify_session(token)
    caller.check()
    assert caller.seconds_left() == 1
    clock.pass_seconds(1)
    assert session.ends_at == clock()
    with pytest.raises(SessionOver):
        caller.check()  # whoever waits with it finds out
    for server in (tokens, Tokens(store, keys, clock)):
        with pytest.raises(SessionOver):
            await server.verify_session(token)


async def test_a_session_ends_with_its_key_and_dies_with_it(
    store: Store, keys: Keys, tokens: Tokens, clock: Clock
) -> None:
    key, secret = await keys.issue("ci", [Scope.READ], expires_at=NOW + 10 * MICROSECONDS)
    session, token = await tokens.open_session(secret)
    assert session.ends_at == NOW + 10 * MICROSECONDS
    caller = await tokens.verify_session(token)
    await keys.revoke(key.id)
    with pytest.raises(SessionOver):
        caller.check()
    for server in (tokens, Tokens(store, keys, clock)):
        with pytest.raises(SessionOver):
            await server.verify_session(token)


async def test_a_session_survives_a_restart(store: Store, keys: Keys, tokens: Tokens, clock: Clock) -> None:
    _, secret = await keys.issue("ci", [Scope.READ])
    _, token = await tokens.open_session(secret)
    after = Tokens(store, Keys(store, LocalWakeup(), clock), clock)
    assert (await after.verify_session(token)).name == "ci"


async def test_a_session_and_a_token_do_not_pass_for_each_other(keys: Keys, tokens: Tokens) -> None:
    _, secret = await keys.issue("ci", [Scope.READ])
    _, session = await tokens.open_session(secret)
    with pytest.raises(BadCredential):
        await tokens.verify(session)
    for token in (await tokens.issue("ci", secret), secret, "", "é", "a.b.c"):
        with pytest.raises(SessionOver):
            await tokens.verify_session(token)


async def test_who_may_not_read_gets_no_session(keys: Keys, tokens: Tokens) -> None:
    _, secret = await keys.issue("ci", [Scope.WRITE])
    with pytest.raises(Forbidden):
        await tokens.open_session(secret)
