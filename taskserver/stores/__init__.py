"""Implementations of ``Store``. This is the only place that knows their names."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from taskserver.errors import StoreOpenError
from taskserver.store import Invitation, SharedStore, Store
from taskserver.wakeup import LocalWakeup, Wakeup

SQLITE = "sqlite:///"
POSTGRES = ("postgresql://", "postgres://")

# The imports stand in the functions, so that a backend's driver is loaded only when it is used.


async def open_store(url: str, *, synchronous: str = "full") -> Store:
    """Open the database behind a URL, creating or migrating it as needed.

    ``sqlite:///tasks.db`` is a path relative to the working directory,
    ``sqlite:////var/lib/tasks.db`` an absolute one. ``synchronous`` is SQLite's
    setting, ``full`` or ``normal``. ``postgresql://user@host/name`` is a database
    that any number of servers may share.

    Raises StoreOpenError, with a message for the operator, if it cannot be used;
    the database is then as it was.
    """
    if url.startswith(POSTGRES):
        return await _open_postgres(url)
    from taskserver.stores.sqlite.store import SqliteStore

    return await SqliteStore.open(sqlite_path(url), synchronous=synchronous)


async def open_wakeup(store: Store, listen_url: str | None = None) -> Wakeup:
    """Wake-ups among all processes that share a store that ``open_store`` gave. To be closed before the store.

    ``listen_url`` is the same PostgreSQL database, reached without a pooler: one
    connection of each process listens, for as long as that lives.
    """
    open_own = getattr(store, "open_wakeup", None)
    if open_own is None:
        return LocalWakeup()
    wakeup: Wakeup = await open_own(listen_url)
    return wakeup


async def _open_postgres(url: str) -> Store:
    try:
        from taskserver.stores.postgres.store import PostgresStore
    except ModuleNotFoundError as error:
        raise StoreOpenError("PostgreSQL needs a driver: pip install 'taskserver[postgres]'") from error
    return await PostgresStore.open(url)


async def open_shared_store(url: str, *, synchronous: str = "full") -> SharedStore:
    """The same, for a process that lets others join; SQLite only."""
    if url.startswith(POSTGRES):
        raise StoreOpenError(
            "--workers lets processes share a SQLite file; on PostgreSQL start as many servers as you like instead"
        )
    from taskserver.stores.sqlite.hub import HubStore

    return await HubStore.open(sqlite_path(url), synchronous=synchronous)


async def join_store(invitation: Invitation, lost: Callable[[], None]) -> Store:
    """Join a store to which another process on this machine has invited this one.

    ``lost`` is called, once, when that process is gone: nothing can be committed
    any more. Raises StoreUnavailable.
    """
    from taskserver.stores.sqlite.remote import JoinedStore

    return await JoinedStore.join(sqlite_path(invitation.url), invitation, lost)


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
