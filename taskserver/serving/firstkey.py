"""That somebody has an admin key when a server starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from taskserver.config import Settings
from taskserver.errors import BadParameter, KeyExists, KeyNotFound, StartupError
from taskserver.keyfile import key_file_of, read_key, write_key
from taskserver.keys import Keys, key_id, new_secret
from taskserver.model import Scope

ADMIN = "admin"
BOOTSTRAP = "bootstrap"


async def ensure_admin(settings: Settings, keys: Keys, say: Callable[[str], None]) -> None:
    """Make the key that the settings ask for, or, on a first start, one that the operator is shown."""
    if settings.bootstrap_key_file is not None:
        await _bootstrap(keys, Path(settings.bootstrap_key_file))
    else:
        await _first_key(keys, key_file_of(settings.database), say)


async def _first_key(keys: Keys, path: Path, say: Callable[[str], None]) -> None:
    """On a first start, make an admin key, show it once and leave it where the CLI finds it."""
    if await keys.list():
        return
    secret = new_secret()
    write_key(path, secret)  # first: a key that was kept and that nobody can read would lock everybody out
    await keys.issue(ADMIN, [Scope.ADMIN], secret=secret)
    say(f"created the API key {ADMIN!r}, also in {path} (shown only this once): {secret}")


async def _bootstrap(keys: Keys, path: Path) -> None:
    """Make the key in ``path`` an admin key; make the key, if there is none in it."""
    secret = read_key(path)
    if not secret:
        await _retire_bootstrap(keys)
        _, secret = await keys.issue(BOOTSTRAP, [Scope.ADMIN])
        write_key(path, secret)
        return
    try:
        known = await keys.find(key_id(secret))
    except KeyNotFound:
        await _retire_bootstrap(keys)
        try:
            await keys.issue(BOOTSTRAP, [Scope.ADMIN], secret=secret)
        except BadParameter as error:
            raise StartupError(f"cannot use the key in {path}: {error.message}") from error
        except KeyExists:  # a server that starts at the same time, on the same database, was first
            await keys.find(key_id(secret))
        return
    if known.revoked_at is not None:
        raise StartupError(f"the key in {path} has been revoked; put another one there, or remove the file")


async def _retire_bootstrap(keys: Keys) -> None:
    """The file has another key than before: the one before must not stay valid."""
    try:
        await keys.revoke((await keys.find(BOOTSTRAP)).id)
    except KeyNotFound:
        pass
