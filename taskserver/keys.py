"""Keys: issue, verify and revoke API keys.

A key is 256 random bits, so a plain SHA-256 is a safe hash for it: there is
nothing to guess that a slow hash would have to protect. Only the hash is
stored; a key cannot be shown again.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from taskserver.errors import BadCredential, BadParameter, Forbidden, KeyNotFound, SessionOver, TaskNotFound
from taskserver.jsontext import isotime
from taskserver.model import ApiKey, Scope, Task, now_us
from taskserver.store import AnyChange, KeyChange, Store
from taskserver.wakeup import Wakeup

audit = logging.getLogger("taskserver.audit")

SECRET_BYTES = 32
SECRET_PREFIX = "tsk_"  # noqa: S105 - not a secret; it lets people and secret scanners recognise a key
SECRET_PATTERN = re.compile(r"[!-~]{32,512}")  # visible ASCII; an operator's own key may have another form than ours
KEY_ID_LENGTH = 16
VERIFIED_KEYS = 10_000  # callers remembered, of each kind; a client beyond that costs one more read per request


class Caller:
    """Who asks: a verified key and its rights, shared by all requests with that key.

    ``expires_at`` is the key's, ``ends_at`` when the caller's rights end: a
    session's may end earlier. Both in microseconds, None for never.
    """

    __slots__ = ("__weakref__", "_clock", "ends_at", "expires_at", "key_id", "name", "owner", "revoked", "scopes")

    def __init__(self, key: ApiKey, clock: Callable[[], int] = now_us) -> None:
        self.key_id = key.id
        self.name = key.name
        self.owner = key.owner
        self.scopes = key.scopes
        self.expires_at = self.ends_at = key.expires_at
        self.revoked = key.revoked_at is not None
        self._clock = clock

    @property
    def topic(self) -> str:
        """The wake-up that tells open waits of this key to check it again."""
        return f"key:{self.key_id}"

    @property
    def is_admin(self) -> bool:
        """Whether the key sees and may do everything."""
        return Scope.ADMIN in self.scopes

    def check(self) -> None:
        """Raise BadCredential if the key has been revoked or has expired."""
        if self.revoked or (self.ends_at is not None and self.ends_at <= self._clock()):
            raise _bad_credential()

    def seconds_left(self) -> float:
        """How long the rights last; infinite if they do not end by themselves."""
        return float("inf") if self.ends_at is None else max(0.0, (self.ends_at - self._clock()) / 1e6)

    def require(self, scope: Scope) -> None:
        """Raise BadCredential unless the key is still valid, Forbidden unless it has the scope."""
        self.check()
        if scope not in self.scopes and not self.is_admin:
            raise Forbidden(f"this API key lacks the scope {scope.value!r}", {"scope": scope.value})

    def see(self, task: Task) -> Task:
        """The task, if it is the caller's. Raises TaskNotFound as if it did not exist (DESIGN, invariant 8)."""
        if not self.sees(task):
            raise TaskNotFound(f"there is no task {task.id!r}")
        return task

    def sees(self, task: Task) -> bool:
        """Whether the task is one of the caller's."""
        return task.owner == self.owner or self.is_admin


class SessionCaller(Caller):
    """Who asks with a browser's session: the holder of its key, until the session ends at ``ends_at``."""

    __slots__ = ("_key",)

    def __init__(self, key: Caller, ends_at: int, clock: Callable[[], int] = now_us) -> None:
        self._key = key
        self._clock = clock
        self.key_id = key.key_id
        self.name = key.name
        self.owner = key.owner
        self.scopes = key.scopes
        self.expires_at = key.expires_at
        self.ends_at = ends_at

    @property
    def revoked(self) -> bool:
        """Whether the key is: it is told of that, and tells all its sessions."""
        return self._key.revoked

    @revoked.setter
    def revoked(self, value: bool) -> None:
        self._key.revoked = value

    def check(self) -> None:
        """Raise SessionOver if the session has ended, or its key is revoked or expired."""
        if self.revoked or self.seconds_left() <= 0:
            raise SessionOver


@dataclass(frozen=True)
class Actor:
    """Who changes keys, for the audit: the name and the id of a key, and the address that it was used from."""

    name: str
    key_id: str | None = None
    address: str | None = None


SERVER = Actor("server")  # at its start: nobody has asked for it over the network


class Keys:
    """The API keys of a store. Each change is a line of the log ``taskserver.audit``."""

    def __init__(self, store: Store, wakeup: Wakeup, clock: Callable[[], int] = now_us) -> None:
        self._store = store
        self._wakeup = wakeup
        self._clock = clock
        # One caller per key, for as long as any request has it: it must be told of its key's revocation.
        self._callers: WeakValueDictionary[str, Caller] = WeakValueDictionary()
        self._by_secret: OrderedDict[str, Caller] = OrderedDict()
        self._by_id: OrderedDict[str, Caller] = OrderedDict()
        self._revoked: set[str] = set()  # since this process began

    async def issue(
        self,
        name: str,
        scopes: Iterable[Scope],
        *,
        owner: str | None = None,
        expires_at: int | None = None,
        secret: str | None = None,
        by: Actor = SERVER,
    ) -> tuple[ApiKey, str]:
        """Make a key; return what is stored and the secret, which nobody can show again.

        ``owner`` defaults to the name. ``secret`` is for keys that an operator
        brings along. Raises KeyExists, and BadParameter for a secret that is too
        short or an expiry in the past.
        """
        now = self._clock()
        if expires_at is not None and expires_at <= now:
            raise BadParameter("expires_at: must lie in the future")
        secret = secret or new_secret()
        if not SECRET_PATTERN.fullmatch(secret):
            raise BadParameter("an API key must be 32 to 512 visible ASCII characters without spaces")
        key = ApiKey(
            id=key_id(secret),
            name=name,
            owner=name if owner is None else owner,
            scopes=frozenset(scopes),
            hash=_hash(secret),
            created_at=now,
            expires_at=expires_at,
        )
        await self._store.add_key(key)
        _note("key issued", key, by)
        return key, secret

    async def verify(self, secret: str) -> Caller:
        """Who holds this key. Raises BadCredential if it is unknown, revoked or expired."""
        if self._store.behind:  # it may have been revoked through another process
            await self._store.catch_up()
        caller = self._by_secret.get(secret)
        if caller is None:
            if not SECRET_PATTERN.fullmatch(secret):
                raise _bad_credential()
            key = await self._read(key_id(secret))
            if not hmac.compare_digest(key.hash, _hash(secret)):
                raise _bad_credential()
            caller = self._remember(self._by_secret, secret, key)
        caller.check()
        return caller

    def recall(self, secret: str) -> Caller | None:
        """Who holds this key, if that is known already; it may be revoked or expired since."""
        return None if self._store.behind else self._by_secret.get(secret)

    async def verify_id(self, key_id: str) -> Caller:
        """The holder of the key with this id, for ``Tokens``, which was shown the key itself. Raises BadCredential."""
        if self._store.behind:
            await self._store.catch_up()
        caller = self._by_id.get(key_id)
        if caller is None:
            caller = self._remember(self._by_id, key_id, await self._read(key_id))
        caller.check()
        return caller

    async def _read(self, key_id: str) -> ApiKey:
        try:
            return await self._store.get_key(key_id)
        except KeyNotFound:
            raise _bad_credential() from None

    def _remember(self, known: OrderedDict[str, Caller], name: str, key: ApiKey) -> Caller:
        caller = self._callers.get(key.id)
        if caller is None:
            caller = self._callers[key.id] = Caller(key, self._clock)
            # It may have been revoked while it was being read.
            caller.revoked = caller.revoked or key.id in self._revoked
        known[name] = caller
        if len(known) > VERIFIED_KEYS:
            known.popitem(last=False)
        return caller

    async def find(self, id_or_name: str) -> ApiKey:
        """A key by its id, or the valid key of a name. Raises KeyNotFound."""
        for key in await self._store.list_keys():
            if key.id == id_or_name or (key.name == id_or_name and key.revoked_at is None):
                return key
        raise KeyNotFound(f"there is no API key {id_or_name!r}")

    async def list(self) -> list[ApiKey]:
        """All keys, revoked ones included, the oldest first."""
        return await self._store.list_keys()

    async def revoke(self, key_id: str, by: Actor = SERVER) -> ApiKey:
        """End a key at once: new requests are refused, open waits are told. A repeat does nothing.

        Raises KeyNotFound.
        """
        now = self._clock()
        key = await self._store.revoke_key(key_id, now)
        if key.revoked_at == now:  # else it was revoked before
            _note("key revoked", key, by)
        return key

    def committed(self, changes: Sequence[AnyChange]) -> None:
        """Take over which keys were revoked, then tell the waits that are open with them."""
        for change in changes:
            if not isinstance(change, KeyChange) or change.key.revoked_at is None:
                continue
            self._revoked.add(change.key.id)
            caller = self._callers.get(change.key.id)
            if caller is not None:
                caller.revoked = True
                self._wakeup.publish([caller.topic])


def _note(what: str, key: ApiKey, by: Actor) -> None:
    fields = {
        "key_id": key.id,
        "key_name": key.name,
        "owner": key.owner,
        "scopes": ",".join(sorted(scope.value for scope in key.scopes)),
        "expires_at": isotime(key.expires_at),
        "by": by.name,
        "by_key_id": by.key_id,
        "address": by.address,
    }
    audit.info(what, extra={"fields": fields})


def new_secret() -> str:
    """A new API key."""
    return SECRET_PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def key_id(secret: str) -> str:
    """The public name of a key, from its hash."""
    return _hash(secret).hex()[:KEY_ID_LENGTH]


def _bad_credential() -> BadCredential:
    return BadCredential("the API key is unknown, revoked or expired")


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
