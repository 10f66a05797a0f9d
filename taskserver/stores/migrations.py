"""Numbered SQL migrations: ``sql/<backend>/NNN_name.sql``, applied in order, each once."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from importlib import resources

_NAME = re.compile(r"(\d{3})_\w+\.sql")


@dataclass(frozen=True)
class Migration:
    """One step of the schema: ``version`` is what the database is after it."""

    version: int
    sql: str


def migrations(backend: str) -> list[Migration]:
    """The migrations of a backend in order. They are numbered 1, 2, 3 … without gaps."""
    folder = resources.files("taskserver.stores") / "sql" / backend
    found = [
        Migration(int(match[1]), entry.read_text(encoding="utf-8"))
        for entry in folder.iterdir()
        if (match := _NAME.fullmatch(entry.name))
    ]
    found.sort(key=lambda migration: migration.version)
    assert [migration.version for migration in found] == list(range(1, len(found) + 1)), "a migration is missing"
    return found


def statements(sql: str) -> list[str]:
    """Split a script into statements, so that they can run inside a transaction of ours."""
    found, pending = [], ""
    for line in sql.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending.strip())
            pending = ""
    assert not pending.strip(), "the last statement of a migration is not ended"
    return found
