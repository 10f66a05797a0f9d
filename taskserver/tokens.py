"""Tokens: proofs for a limited time that their bearer was shown an API key (JSON Web Tokens, RFC 7519).

A token names its key and is signed with a secret of the server's. It is worth
what its key is worth: it has no rights of its own and dies with the key.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

import jwt

from taskserver.errors import BadCredential, TokenExpired
from taskserver.keys import Caller, Keys
from taskserver.model import MICROSECONDS, now_us
from taskserver.store import Store

TOKEN_LIFETIME = 24 * 3600  # seconds; Airflow's default
ALGORITHM = "HS256"
SIGNING_SECRET = "token"  # noqa: S105 - the name under which the store keeps it
SIGNING_SECRET_BYTES = 32  # RFC 7518, 3.2: as many as the hash has


class Tokens:
    """The tokens of a store. All servers on it accept each other's."""

    def __init__(
        self, store: Store, keys: Keys, clock: Callable[[], int] = now_us, lifetime: float = TOKEN_LIFETIME
    ) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._lifetime_us = round(lifetime * MICROSECONDS)
        self._signing_secret: bytes | None = None

    async def issue(self, name: str, secret: str) -> str:
        """A token for who holds the API key ``secret``, whose name is ``name``.

        It ends with the key if that expires earlier. Raises BadCredential if
        there is no such valid key.
        """
        caller = await self._keys.verify(secret)
        if caller.name != name:
            raise BadCredential("there is no valid API key of this name")
        ends = self._clock() + self._lifetime_us
        if caller.expires_at is not None:
            ends = min(ends, caller.expires_at)
        claims = {"sub": caller.key_id, "exp": ends // MICROSECONDS}
        return jwt.encode(claims, await self._secret(), ALGORITHM)

    async def verify(self, token: str) -> Caller:
        """Who holds the key that a token was issued for; an API key counts as a token for itself.

        Raises TokenExpired, and BadCredential if it is no token of ours or its
        key is revoked or expired.
        """
        if not token.isascii() or token.count(".") != 2:
            return await self._keys.verify(token)
        try:
            # The time is looked at below, by the clock that everything else here goes by.
            claims = jwt.decode(
                token, await self._secret(), [ALGORITHM], options={"require": ["sub", "exp"], "verify_exp": False}
            )
        except (jwt.InvalidTokenError, RecursionError):
            return await self._keys.verify(token)  # an operator's own key may have dots too
        if claims["exp"] * MICROSECONDS <= self._clock():
            raise TokenExpired("the token has expired; get another one")
        return await self._keys.verify_id(claims["sub"])

    async def _secret(self) -> bytes:
        if self._signing_secret is None:
            fresh = secrets.token_bytes(SIGNING_SECRET_BYTES)
            self._signing_secret = await self._store.keep_secret(SIGNING_SECRET, fresh)
        return self._signing_secret
