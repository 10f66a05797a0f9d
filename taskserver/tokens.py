"""Tokens: proofs for a limited time that their bearer was shown an API key (JSON Web Tokens, RFC 7519).

A token names its key and is signed with a secret of the server's. It is worth
what its key is worth: it has no rights of its own and dies with the key. There
are two kinds, neither of which passes for the other: Airflow's, and browser
sessions, which say so in their audience.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import jwt

from taskserver.errors import BadCredential, SessionOver, TokenExpired
from taskserver.keys import VERIFIED_KEYS, Caller, Keys, SessionCaller
from taskserver.model import MICROSECONDS, Scope, now_us
from taskserver.store import Store

TOKEN_LIFETIME = 24 * 3600  # seconds; Airflow's default
SESSION_LIFETIME = 7 * 24 * 3600  # seconds; a wall display is signed in to once a week
SESSION_AUDIENCE = "session"
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
        self._lifetime = lifetime
        self._signing_secret: bytes | None = None
        self._sessions: OrderedDict[str, SessionCaller] = OrderedDict()

    async def issue(self, name: str, secret: str) -> str:
        """A token for who holds the API key ``secret``, whose name is ``name``.

        It ends with the key if that expires earlier. Raises BadCredential if
        there is no such valid key.
        """
        caller = await self._keys.verify(secret)
        if caller.name != name:
            raise BadCredential("there is no valid API key of this name")
        return await self._sign(caller, self._ends(caller, self._lifetime))

    async def verify(self, token: str) -> Caller:
        """Who holds the key that a token was issued for; an API key counts as a token for itself.

        Raises TokenExpired, and BadCredential if it is no token of ours or its
        key is revoked or expired.
        """
        if not token.isascii() or token.count(".") != 2:
            return await self._keys.verify(token)
        try:
            claims = await self._claims(token)
        except (jwt.InvalidTokenError, RecursionError):
            return await self._keys.verify(token)  # an operator's own key may have dots too
        if claims["exp"] * MICROSECONDS <= self._clock():
            raise TokenExpired("the token has expired; get another one")
        return await self._keys.verify_id(claims["sub"])

    # --- sessions ------------------------------------------------------------------

    async def open_session(self, secret: str) -> tuple[SessionCaller, str]:
        """A browser's session for who holds the API key ``secret``, and its token.

        It ends with the key if that expires earlier. Raises BadCredential, and
        Forbidden if the key may not read: there would be nothing to see.
        """
        caller = await self._keys.verify(secret)
        caller.require(Scope.READ)
        ends = self._ends(caller, SESSION_LIFETIME)
        token = await self._sign(caller, ends, aud=SESSION_AUDIENCE)
        return SessionCaller(caller, ends * MICROSECONDS, self._clock), token

    async def verify_session(self, token: str) -> Caller:
        """Who a session belongs to. Raises SessionOver if it is none of ours, is over, or its key is no good."""
        known = self._sessions.get(token)
        if known is None:
            try:
                claims = await self._claims(token, SESSION_AUDIENCE)
                key = await self._keys.verify_id(claims["sub"])
            except (jwt.InvalidTokenError, BadCredential, RecursionError, UnicodeError):
                raise SessionOver from None
            known = self._sessions[token] = SessionCaller(key, claims["exp"] * MICROSECONDS, self._clock)
            if len(self._sessions) > VERIFIED_KEYS:
                self._sessions.popitem(last=False)
        elif self._store.behind:  # its key may have been revoked through another process
            await self._store.catch_up()
        known.check()
        return known

    def recall_session(self, token: str) -> Caller | None:
        """The same if the session is in memory; it may be over since."""
        return None if self._store.behind else self._sessions.get(token)

    # --- plumbing ------------------------------------------------------------------

    def _ends(self, caller: Caller, lifetime: float) -> int:
        """When a new token of a key ends, in whole seconds since 1970."""
        ends = self._clock() + round(lifetime * MICROSECONDS)
        return (ends if caller.expires_at is None else min(ends, caller.expires_at)) // MICROSECONDS

    async def _sign(self, caller: Caller, ends: int, **more: str) -> str:
        return jwt.encode({"sub": caller.key_id, "exp": ends, **more}, await self._secret(), ALGORITHM)

    async def _claims(self, token: str, audience: str | None = None) -> Mapping[str, Any]:
        """What a token of ours for this audience says. Raises jwt.InvalidTokenError if it is none."""
        # The time is looked at by the clock that everything else here goes by.
        options: Any = {"require": ["sub", "exp"], "verify_exp": False}
        return jwt.decode(token, await self._secret(), [ALGORITHM], options=options, audience=audience)

    async def _secret(self) -> bytes:
        if self._signing_secret is None:
            fresh = secrets.token_bytes(SIGNING_SECRET_BYTES)
            self._signing_secret = await self._store.keep_secret(SIGNING_SECRET, fresh)
        return self._signing_secret
