"""``taskserver keys create``, ``list`` and ``revoke``"""

from __future__ import annotations

import sys
from datetime import datetime, timezone

import click

from taskserver.cli.exits import tell
from taskserver.cli.options import duration, option, text
from taskserver.cli.show import moment, show
from taskserver.cli.talk import talks
from taskserver.client import KeyInfo, TaskClient
from taskserver.model import Scope


@click.group()
def keys() -> None:
    """Make, list and revoke API keys; needs an admin's key.

    \b
    Example:
      taskserver keys create ci --scope write > ci.key
    """


@keys.command()
@click.argument("name", type=text)
@option(
    "--scope", "scopes", multiple=True, type=click.Choice([scope.value for scope in Scope]),
    default=["read", "write"], envvar="TASKSERVER_KEYS_CREATE_SCOPE", help="What the key may do; may be repeated.",
)  # fmt: skip
@option("--owner", type=text, help="Whose tasks the key sees.  [default: NAME]")
@option("--expires-in", type=duration, help="Such as 12h, 30d or 2w.  [default: never]")
@talks
async def create(
    client: TaskClient, name: str, scopes: tuple[str, ...], owner: str | None, expires_in: int | None
) -> int:
    """Make an API key, and print it: the only time that anybody sees it.

    The key alone goes to standard output.

    \b
    Example:
      taskserver keys create ci --scope write --expires-in 30d > ci.key
    """
    key = await client.create_key(name, scopes, owner=owner, expires_in=expires_in)
    tell(f"made key {key.id} ({key.name}) for {', '.join(key.scopes)}; it is shown this once")
    click.echo(key.secret)
    sys.stdout.flush()
    return 0


@keys.command("list")
@talks
async def list_keys(client: TaskClient) -> int:
    """List API keys, the oldest first.

    On a terminal as a table; otherwise one key a line, its fields separated by
    tabs: id, name, owner, scopes, state, creation, expiry.

    \b
    Example:
      taskserver keys list
    """
    show(
        ("ID", "NAME", "OWNER", "SCOPES", "STATE", "CREATED", "EXPIRES"),
        [
            (
                key.id,
                key.name,
                key.owner,
                ",".join(key.scopes),
                _state(key),
                moment(key.created_at),
                moment(key.expires_at),
            )
            for key in await client.list_keys()
        ],
    )
    return 0


@keys.command()
@click.argument("key_id", metavar="ID", type=text)
@talks
async def revoke(client: TaskClient, key_id: str) -> int:
    """Revoke an API key, named by its id or its name: it is refused at once.

    \b
    Example:
      taskserver keys revoke ci
    """
    key = await client.revoke_key(key_id)
    tell(f"key {key.id} ({key.name}) is revoked")
    return 0


def _state(key: KeyInfo) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is not None and key.expires_at <= datetime.now(timezone.utc):
        return "expired"
    return "valid"
