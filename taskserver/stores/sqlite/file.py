"""The database file itself: who may open it, what it must be, and how it is set up."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import IO
from urllib.parse import quote

from taskserver.errors import StoreInUse, StoreOpenError
from taskserver.stores.migrations import Migration, migrations, statements

APPLICATION_ID = 0x7461736B  # "task" in ASCII: tells our files from other programs' (PRAGMA application_id)
OLDEST_SQLITE = (3, 35, 0)  # the first with RETURNING
BUSY_TIMEOUT_MS = 5000  # backups and sqlite3 shells hold the lock for moments
WAL_LIMIT = 64 * 1024 * 1024  # the log shrinks back to this after a burst
CACHE_KIB = 16 * 1024


class DatabaseFile:
    """A SQLite file that is ours and that nobody else serves.

    Args:
        path: the file; its folder must exist.
        synchronous: ``full`` waits for the disk at each commit; ``normal`` does
            so at checkpoints only, so that a power failure (not a crash of the
            process) can take back the last commits.
        create: whether to make the file if there is none.
        unfinished: whether to take one that ``taskserver copy`` has not finished.
    """

    def __init__(self, path: str, synchronous: str, *, create: bool = True, unfinished: bool = False) -> None:
        self.path = Path(path)
        self._synchronous = synchronous
        self._create = create
        self._unfinished = unfinished
        self._lock: IO[bytes] | None = None

    def open(self) -> sqlite3.Connection:
        """Lock, check, create or migrate the file and return the writing connection.

        Raises StoreOpenError and leaves the file as it was if that cannot be done.
        """
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise StoreOpenError(f"SQLite {sqlite3.sqlite_version} is too old; 3.35 or newer is needed")
        steps = migrations("sqlite")
        if not self._create:
            self._check_existence()
        self._take_lock()
        try:
            self._check(steps)
            return self._connect(steps)
        except sqlite3.Error as error:
            self.unlock()
            raise StoreOpenError(f"cannot open database {self.path}: {error}") from error
        except BaseException:
            self.unlock()
            raise

    def unlock(self) -> None:
        """Let another server have the file."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _check_existence(self) -> None:
        if not self.path.exists() or self.path.stat().st_size == 0:
            raise StoreOpenError(f"cannot open database {self.path}: there is no such database")

    def _take_lock(self) -> None:
        """Hold ``<file>.lock``: the kernel lets go of it when this process ends, however it ends."""
        try:
            self._lock = self.path.with_name(f"{self.path.name}.lock").open("ab")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.unlock()
            raise StoreInUse(
                f"cannot open database {self.path}: another taskserver is serving it; stop that one or use another file"
            ) from None
        except OSError as error:
            raise StoreOpenError(f"cannot open database {self.path}: {error.strerror} ({error.filename})") from error

    def _check(self, steps: list[Migration]) -> None:
        """Look at an existing file without writing to it."""
        if not self.path.exists() or self.path.stat().st_size == 0:
            return
        if not os.access(self.path, os.W_OK):
            raise StoreOpenError(f"cannot open database {self.path}: the file is read-only")
        connection = sqlite3.connect(reader_uri(self.path), uri=True)
        try:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            if application != APPLICATION_ID:
                raise StoreOpenError(f"cannot open database {self.path}: it was not made by taskserver")
            version = _version(connection)
        finally:
            connection.close()
        if version > len(steps):
            raise StoreOpenError(
                f"cannot open database {self.path}: its schema is version {version} and this taskserver knows only"
                f" up to {len(steps)}; use a newer taskserver"
            )

    def _connect(self, steps: list[Migration]) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            _migrate(connection, steps)
            if not self._unfinished and connection.execute("SELECT 1 FROM copying").fetchone():
                raise StoreOpenError(
                    f"cannot open database {self.path}: a copy into it is not finished; run `taskserver copy` again"
                )
        except BaseException:
            connection.close()
            raise
        return connection


def reader_uri(path: Path) -> str:
    """A URI for connections that only read. Whoever is handed the writer's work needs no lock to open one."""
    return f"file:{quote(str(path.absolute()))}?mode=ro"


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("SELECT version FROM schema_version").fetchone()[0]
    return version


def _migrate(connection: sqlite3.Connection, steps: list[Migration]) -> None:
    """Bring the schema up to date in one transaction, or leave it as it was."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)")
        if connection.execute("SELECT count(*) FROM schema_version").fetchone()[0] == 0:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute("INSERT INTO schema_version VALUES (0)")
        for step in steps[_version(connection) :]:
            for statement in statements(step.sql):
                connection.execute(statement)
            connection.execute("UPDATE schema_version SET version = ?", (step.version,))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
