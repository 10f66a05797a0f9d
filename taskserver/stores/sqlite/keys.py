"""The key part of a transaction. Methods raise before they change anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskserver.errors import KeyExists, KeyNotFound
from taskserver.model import ApiKey
from taskserver.store import KeyChange
from taskserver.stores.rows import KEY_COLUMNS, key_from_row, key_to_row

if TYPE_CHECKING:
    from taskserver.stores.sqlite.transaction import SqliteTransaction


class KeyWrites:
    """Changes to API keys within one transaction."""

    def __init__(self, transaction: SqliteTransaction) -> None:
        self._tx = transaction
        self._db = transaction.db

    def add(self, key: ApiKey) -> None:
        taken = "SELECT 1 FROM api_key WHERE id = ? OR (name = ? AND revoked_at IS NULL)"
        if self._db.execute(taken, (key.id, key.name)).fetchone():
            raise KeyExists(f"there is a key named {key.name!r} already; revoke it first or choose another name")
        marks = ", ".join("?" * len(key_to_row(key)))
        self._db.execute(f"INSERT INTO api_key ({KEY_COLUMNS}) VALUES ({marks})", key_to_row(key))

    def revoke(self, key_id: str, now: int) -> ApiKey:
        self._db.execute("UPDATE api_key SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?", (now, key_id))
        row = self._db.execute(f"SELECT {KEY_COLUMNS} FROM api_key WHERE id = ?", (key_id,)).fetchone()
        if row is None:
            raise KeyNotFound(f"there is no key with id {key_id!r}")
        key = key_from_row(row)
        self._tx.changes.append(KeyChange(key))
        return key

    def keep_secret(self, name: str, value: bytes) -> bytes:
        """Keep a secret of the server's under a name, unless there is one; return the one that is kept."""
        self._db.execute("INSERT INTO secret (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING", (name, value))
        kept: bytes = self._db.execute("SELECT value FROM secret WHERE name = ?", (name,)).fetchone()[0]
        return kept
