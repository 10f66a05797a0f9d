"""The key part of a transaction. Methods raise before they change anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskserver.errors import KeyExists, KeyNotFound
from taskserver.model import ApiKey
from taskserver.store import KeyChange
from taskserver.stores.postgres.rows import KEY_COLUMNS, key_from_row, key_to_row, marks

if TYPE_CHECKING:
    from taskserver.stores.postgres.transaction import PostgresTransaction

_ADD = f"INSERT INTO api_key ({KEY_COLUMNS}) VALUES ({marks(8)}) ON CONFLICT DO NOTHING RETURNING id"
# One after the other, so that the numbers of revocations become visible in their order.
_LOCK_REVOCATIONS = "SELECT pg_advisory_xact_lock(hashtextextended('taskserver revocations', 0))"
_REVOKE = (
    "UPDATE api_key SET revoked_at = $2, revocation = (SELECT coalesce(max(revocation), 0) + 1 FROM api_key)"
    " WHERE id = $1 AND revoked_at IS NULL"
)


class KeyWrites:
    """Changes to API keys within one transaction."""

    def __init__(self, tx: PostgresTransaction) -> None:
        self._tx = tx

    async def add(self, key: ApiKey) -> None:
        if await self._tx.db.fetchrow(_ADD, *key_to_row(key)) is None:
            raise KeyExists(f"there is a key named {key.name!r} already; revoke it first or choose another name")

    async def revoke(self, key_id: str, now: int) -> ApiKey:
        await self._tx.db.execute(_LOCK_REVOCATIONS)
        await self._tx.db.execute(_REVOKE, key_id, now)
        row = await self._tx.db.fetchrow(f"SELECT {KEY_COLUMNS} FROM api_key WHERE id = $1", key_id)
        if row is None:
            raise KeyNotFound(f"there is no key with id {key_id!r}")
        key = key_from_row(row)
        self._tx.changes.append(KeyChange(key))
        return key

    async def keep_secret(self, name: str, value: bytes) -> bytes:
        """Keep a secret of the server's under a name, unless there is one; return the one that is kept."""
        await self._tx.db.execute(
            "INSERT INTO secret (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING", name, value
        )
        kept: bytes = await self._tx.db.fetchval("SELECT value FROM secret WHERE name = $1", name)
        return kept
