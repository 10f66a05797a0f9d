"""migrations: numbered SQL, split into statements."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from taskserver.errors import StoreOpenError
from taskserver.stores import open_store, sqlite_path
from taskserver.stores.migrations import migrations, statements


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
def test_the_backends_migrations_are_numbered_from_one_without_gaps(backend: str) -> None:
    found = migrations(backend)
    assert [migration.version for migration in found] == list(range(1, len(found) + 1))
    assert len(found) >= 1


def test_every_statement_of_them_runs_inside_one_transaction() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("BEGIN")
    for migration in migrations("sqlite"):
        for statement in statements(migration.sql):
            connection.execute(statement)
    connection.execute("ROLLBACK")
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    connection.close()


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("", []),
        ("\n\n", []),
        ("SELECT 1;", ["SELECT 1;"]),
        ("SELECT 1;\nSELECT 2;\n", ["SELECT 1;", "SELECT 2;"]),
        ("SELECT\n  1,\n  2;\n", ["SELECT\n  1,\n  2;"]),
        ("SELECT ';\n';", ["SELECT ';\n';"]),
        ("-- a; b\nSELECT 1; -- c;\n", ["-- a; b\nSELECT 1; -- c;"]),
        (
            "CREATE TRIGGER t AFTER INSERT ON a BEGIN\n  DELETE FROM b;\nEND;\nSELECT 1;",
            ["CREATE TRIGGER t AFTER INSERT ON a BEGIN\n  DELETE FROM b;\nEND;", "SELECT 1;"],
        ),
    ],
)
def test_a_script_is_split_where_its_statements_end(sql: str, expected: list[str]) -> None:
    assert statements(sql) == expected


@pytest.mark.parametrize("sql", ["SELECT 1", "SELECT 1;\nSELECT", "SELECT '"])
def test_a_script_without_an_end_is_a_mistake(sql: str) -> None:
    with pytest.raises(AssertionError):
        statements(sql)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///tasks.db", "tasks.db"),
        ("sqlite:////var/lib/tasks.db", "/var/lib/tasks.db"),
        ("sqlite:///a folder/ü%20?.db", "a folder/ü%20?.db"),
    ],
)
def test_a_url_names_a_file(url: str, path: str) -> None:
    assert sqlite_path(url) == path


@pytest.mark.parametrize(
    "url", ["", "tasks.db", "sqlite://tasks.db", "sqlite:///", "sqlite:///:memory:", "mysql://host/db"]
)
async def test_another_url_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(StoreOpenError, match=r"sqlite:///tasks\.db"):
        await open_store(url)


async def test_a_database_keeps_its_version_and_is_ours(tmp_path: Path) -> None:
    for _ in range(2):  # the second time there is nothing to do
        store = await open_store(f"sqlite:///{tmp_path}/tasks.db")
        await store.close()
        connection = sqlite3.connect(tmp_path / "tasks.db")
        assert connection.execute("SELECT version FROM schema_version").fetchall() == [(len(migrations("sqlite")),)]
        assert connection.execute("PRAGMA application_id").fetchone() == (0x7461736B,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.close()
