"""Implementations of ``Store``. This is the only place that knows their names."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from taskserver.errors import StoreOpenError
from taskserver.meters import Meters
from taskserver.store import Invitation, SharedStore, Store

if TYPE_CHECKING:
    from taskserver.stores.archive import Archive
    from taskserver.stores.copying import Report, Summary

SQLITE = "sqlite:///"
POSTGRES = ("postgresql://", "postgres://")

# The imports stand in the functions, so that a backend's driver, and what packs output, is loaded only when it is used.


async def open_store(
    url: str, *, synchronous: str = "full", create: bool = True, meters: Meters | None = None
) -> Store:
    """Open the database behind a URL, migrating it as needed; one that is not there is made if ``create`` says so.

    ``sqlite:///tasks.db`` is a path relative to the working directory,
    ``sqlite:////var/lib/tasks.db`` an absolute one. ``synchronous`` is SQLite's
    setting, ``full`` or ``normal``. ``postgresql://user@host/name`` is a database
    that any number of servers may share. Commits and failures are counted in ``meters``.

    Raises StoreOpenError, with a message for the operator, if it cannot be used;
    the database is then as it was. StoreInUse: another process has the file.
    """
    if url.startswith(POSTGRES):
        return await _open_postgres(url, create, meters)
    from taskserver.stores.sqlite.store import SqliteStore

    return await SqliteStore.open(sqlite_path(url), synchronous=synchronous, create=create, meters=meters)


async def _open_postgres(url: str, create: bool, meters: Meters | None) -> Store:
    _need_driver()
    from taskserver.stores.postgres.store import PostgresStore

    return await PostgresStore.open(url, create=create, meters=meters)


def _need_driver() -> None:
    if importlib.util.find_spec("asyncpg") is None:
        raise StoreOpenError("PostgreSQL needs a driver: pip install 'taskserver[postgres]'")


async def open_shared_store(url: str, *, synchronous: str = "full", meters: Meters | None = None) -> SharedStore:
    """The same, for a process that lets others join; SQLite only."""
    if url.startswith(POSTGRES):
        raise StoreOpenError(
            "--workers lets processes share a SQLite file; on PostgreSQL start as many servers as you like instead"
        )
    from taskserver.stores.sqlite.hub import HubStore

    return await HubStore.open(sqlite_path(url), synchronous=synchronous, meters=meters)


async def join_store(invitation: Invitation, lost: Callable[[], None], meters: Meters | None = None) -> Store:
    """Join a store to which another process on this machine has invited this one.

    ``lost`` is called, once, when that process is gone: nothing can be committed
    any more. Raises StoreUnavailable.
    """
    from taskserver.stores.sqlite.remote import JoinedStore

    return await JoinedStore.join(sqlite_path(invitation.url), invitation, lost, meters)


def backup_advice(url: str, target: Path) -> str | None:
    """What to use in the place of ``back_up``, for a database that it cannot back up; None for others."""
    if not url.startswith(POSTGRES):
        return None
    from taskserver.stores.postgres.advice import backup_advice as advice

    return advice(url, target)


def back_up(url: str, target: Path, *, force: bool, report: Callable[[int, int], None]) -> int:
    """Write a checked copy of a SQLite database to a file, while a server uses it; the file's size in bytes.

    ``report`` is told, in between, how much of how much is done. Raises
    BackupExists, StoreOpenError, StoreFull, StoreUnavailable, OSError.
    """
    from taskserver.stores.sqlite.backup import back_up as write

    return write(Path(sqlite_path(url)), target, force=force, report=report)


async def copy_database(
    source: str, target: str, report: Report, *, verify_only: bool = False, restart: bool = False
) -> Summary:
    """Copy everything from one database to another, or go on with it, and compare both; see ``copying``.

    ``verify_only``: compare them. Both must be without servers. Raises
    StoreOpenError, StoreInUse, CannotCopy, Differs, StoreUnavailable.
    """
    from taskserver.stores import copying

    one = await _open_archive(source, create=False)
    try:
        other = await _open_archive(target, create=not verify_only)
        try:
            if verify_only:
                return await copying.compare(one, other, report)
            return await copying.copy(one, other, report, restart=restart)
        finally:
            await other.close()
    finally:
        await one.close()


async def _open_archive(url: str, *, create: bool) -> Archive:
    if url.startswith(POSTGRES):
        _need_driver()
        from taskserver.stores.postgres.archive import PostgresArchive

        return await PostgresArchive.open(url, create=create)
    from taskserver.stores.sqlite.archive import SqliteArchive

    return await SqliteArchive.open(sqlite_path(url), create=create)


def local_name(url: str) -> str:
    """The path beside which files that belong to a database lie: that of SQLite's file, or PostgreSQL's name here.

    Raises StoreOpenError if the URL is none.
    """
    if url.startswith(POSTGRES):
        return urlsplit(url).path.strip("/").replace("/", "_") or "postgresql"
    return sqlite_path(url)


def sqlite_path(url: str) -> str:
    """The file that a ``sqlite:///`` URL names. Raises StoreOpenError if it is another kind of URL."""
    path = url.removeprefix(SQLITE)
    if path == url or not path or path.startswith(":"):
        raise StoreOpenError(
            f"cannot open database {url!r}: it must look like sqlite:///tasks.db, sqlite:////var/lib/tasks.db"
            " or postgresql://host/name"
        )
    return path
