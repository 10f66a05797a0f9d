"""Implementations of ``Store``. This is the only place that knows their names."""

from __future__ import annotations

from collections.abc import Callable

from taskserver.errors import StoreOpenError
from taskserver.meters import Meters
from taskserver.store import Invitation, SharedStore, Store

SQLITE = "sqlite:///"

# The imports stand in the functions, so that a backend's driver is loaded only when it is used.


async def open_store(url: str, *, synchronous: str = "full", meters: Meters | None = None) -> Store:
    """Open the database behind a URL, creating or migrating it as needed.

    ``sqlite:///tasks.db`` is a path relative to the working directory,
    ``sqlite:////var/lib/tasks.db`` an absolute one. ``synchronous`` is SQLite's
    setting, ``full`` or ``normal``. Commits and failures are counted in ``meters``.

    Raises StoreOpenError, with a message for the operator, if it cannot be used;
    the file is then as it was.
    """
    from taskserver.stores.sqlite.store import SqliteStore

    return await SqliteStore.open(sqlite_path(url), synchronous=synchronous, meters=meters)


async def open_shared_store(url: str, *, synchronous: str = "full", meters: Meters | None = None) -> SharedStore:
    """The same, for a process that lets others join."""
    from taskserver.stores.sqlite.hub import HubStore

    return await HubStore.open(sqlite_path(url), synchronous=synchronous, meters=meters)


async def join_store(invitation: Invitation, lost: Callable[[], None], meters: Meters | None = None) -> Store:
    """Join a store to which another process on this machine has invited this one.

    ``lost`` is called, once, when that process is gone: nothing can be committed
    any more. Raises StoreUnavailable.
    """
    from taskserver.stores.sqlite.remote import JoinedStore

    return await JoinedStore.join(sqlite_path(invitation.url), invitation, lost, meters)


def sqlite_path(url: str) -> str:
    """The file that a ``sqlite:///`` URL names. Raises StoreOpenError if it is another kind of URL."""
    path = url.removeprefix(SQLITE)
    if path == url or not path or path.startswith(":"):
        raise StoreOpenError(
            f"cannot open database {url!r}: it must look like sqlite:///tasks.db or sqlite:////var/lib/tasks.db"
        )
    return path
