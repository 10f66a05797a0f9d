"""Key files: an API key in a file that only its owner can read."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from taskserver.errors import StartupError
from taskserver.stores import local_name


def key_file_of(database: str) -> Path:
    """Where the first admin key of a database is written. Raises StoreOpenError for a bad URL."""
    return Path(f"{local_name(database)}.key")


def write_key(path: Path, secret: str) -> None:
    """Write a key, readable by this user only; what stood there is replaced. Raises StartupError."""
    move_key(write_key_beside(path, secret), path)


def write_key_beside(path: Path, secret: str) -> Path:
    """Write a key to a file that ``move_key`` can give the name ``path``; return what it is called until then.

    Raises StartupError.
    """
    fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, 0o600)
            file.write(secret + "\n")
    except OSError as error:
        raise StartupError(f"cannot write the key file {path}: {error.strerror}") from error
    return fresh


def move_key(fresh: Path, path: Path) -> None:
    """Put a key file in its place; what stood there is replaced. Raises StartupError."""
    try:
        fresh.replace(path)
    except OSError as error:
        raise StartupError(f"cannot write the key file {path}: {error.strerror}; the key is in {fresh}") from error


def read_key(path: Path) -> str | None:
    """The key in a file, or None if there is no such file. Raises StartupError if it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StartupError(f"cannot read the key file {path}: {error.strerror}") from error
