"""Key files: an API key in a file that only its owner can read."""

from __future__ import annotations

import os
from pathlib import Path

from taskserver.errors import StartupError
from taskserver.stores import local_name


def key_file_of(database: str) -> Path:
    """Where the first admin key of a database is written. Raises StoreOpenError for a bad URL."""
    return Path(f"{local_name(database)}.key")


def write_key(path: Path, secret: str) -> None:
    """Write a key, readable by this user only; what stood there is replaced. Raises StartupError."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, 0o600)
            file.write(secret + "\n")
        fresh.replace(path)
    except OSError as error:
        raise StartupError(f"cannot write the key file {path}: {error.strerror}") from error


def read_key(path: Path) -> str | None:
    """The key in a file, or None if there is no such file. Raises StartupError if it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StartupError(f"cannot read the key file {path}: {error.strerror}") from error
