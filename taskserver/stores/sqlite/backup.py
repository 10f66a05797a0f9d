"""Backup: a copy of a database file as it stood at one moment, while a server goes on writing to it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from taskserver.errors import BackupExists, StoreFull, StoreOpenError, StoreUnavailable
from taskserver.stores.sqlite.file import APPLICATION_ID, BUSY_TIMEOUT_MS, reader_uri

STEP_PAGES = 1024  # 4 MiB between two reports
COMPANIONS = ("", "-wal", "-shm", "-journal")  # files that SQLite may leave beside a database

Report = Callable[[int, int], None]
"""Is told how many pages are done, and of how many."""


def back_up(path: Path, target: Path, *, force: bool, report: Report) -> int:
    """Write a checked copy of the database at ``path`` to ``target``; its size in bytes.

    It stands under its name when it is complete and checked, not before. What is
    committed while it is made is not in it; nobody has to wait for it.

    Raises BackupExists unless ``force``, StoreOpenError if the database cannot be
    read, StoreFull, StoreUnavailable, OSError.
    """
    if target.exists():
        if path.exists() and target.samefile(path):
            raise BackupExists(f"{target} is the database itself")
        if not force:
            raise BackupExists(f"{target} exists already; --force replaces it")
    with closing(_open(path)) as source, _unfinished(target) as fresh:
        try:
            _copy(source, fresh, report)
            _check(fresh)
        except sqlite3.Error as error:
            if "full" in str(error):
                raise StoreFull(f"cannot write {target}: the disk is full") from error
            raise StoreUnavailable(f"cannot back up {path}: {error}") from error
        fresh.chmod(path.stat().st_mode & 0o777)  # it holds what the database holds
        size = fresh.stat().st_size
        _sync(fresh)
        if not force and target.exists():
            raise BackupExists(f"{target} has been made meanwhile; --force replaces it")
        fresh.replace(target)
        _sync(target.parent)
    return size


def _open(path: Path) -> sqlite3.Connection:
    """A connection that sees the database as it stands now, until it is closed. Writers do not wait for it (WAL)."""
    if not path.exists():
        raise StoreOpenError(f"cannot open database {path}: there is no such database")
    try:
        connection = sqlite3.connect(reader_uri(path), uri=True, isolation_level=None)
        try:
            connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
                raise StoreOpenError(f"cannot open database {path}: it was not made by taskserver")
            # One snapshot for all steps: a backup begins anew when somebody commits between two of them.
            connection.execute("BEGIN")
            connection.execute("SELECT version FROM schema_version").fetchone()
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise StoreOpenError(f"cannot open database {path}: {error}") from error
    return connection


@contextlib.contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """A new file beside ``target`` under another name, and gone at the end if it still has that."""
    fresh = target.with_name(f"{target.name}.{os.getpid()}.partial")
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        yield fresh
    finally:
        for companion in COMPANIONS:
            fresh.with_name(fresh.name + companion).unlink(missing_ok=True)


def _copy(source: sqlite3.Connection, fresh: Path, report: Report) -> None:
    def told(status: int, remaining: int, total: int) -> None:
        report(total - remaining, total)

    with closing(sqlite3.connect(fresh)) as target:
        source.backup(target, pages=STEP_PAGES, progress=told)


def _check(fresh: Path) -> None:
    with closing(sqlite3.connect(fresh)) as connection:
        ((verdict,), *_) = connection.execute("PRAGMA integrity_check").fetchall()
        if verdict != "ok":
            raise StoreUnavailable(f"the copy is damaged, and so may be the database: {verdict}")
        if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise StoreUnavailable("the copy is no database of taskserver's")


def _sync(path: Path) -> None:
    """Have the disk keep a file, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
