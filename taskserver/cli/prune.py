"""``taskserver prune``"""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from taskserver.cli.direct import directly
from taskserver.cli.exits import tell
from taskserver.cli.options import connection_options, duration, option
from taskserver.cli.show import counted
from taskserver.cli.talk import talk
from taskserver.client import TaskClient
from taskserver.errors import StoreInUse
from taskserver.model import MICROSECONDS, now_us
from taskserver.retention import pruned, sweep
from taskserver.store import Ended
from taskserver.stores import open_store


@click.command()
@option("--older-than", required=True, type=duration, metavar="TIME", help="How long ago it ended, such as 12h or 30d.")
@option("--dry-run", is_flag=True, help="Only count what would be removed.")
@connection_options
def prune(older_than: int, dry_run: bool, database: str, url: str, **connection: Any) -> None:
    """Remove tasks and runs that have ended long ago.

    A run goes with all its tasks. Goes to the database itself if it can: one of
    PostgreSQL, beside its servers, or a SQLite file without a server. Where a
    server has the file open, or with --url, that server does it; this needs an
    admin's key. A SQLite file does not get smaller: what is free is used again.

    \b
    Example:
      taskserver prune --older-than 30d --dry-run
    """
    source = click.get_current_context().get_parameter_source
    if source("url") is ParameterSource.COMMANDLINE:
        direct = False
    else:  # what stands on the command line beats the environment
        direct = source("url") is ParameterSource.DEFAULT or source("database") is ParameterSource.COMMANDLINE
    if direct:
        if directly(_prune(database, older_than, dry_run)):
            return
        tell(f"a server has {database} open; asking the one at {url}")
    talk(_ask, url=url, database=database, older_than=older_than, dry_run=dry_run, **connection)


async def _prune(database: str, older_than: int, dry_run: bool) -> bool:
    """Without a server, or beside those of PostgreSQL; False if a server has the file open."""
    try:
        store = await open_store(database, create=False)
    except StoreInUse:
        return False
    try:
        before = now_us() - older_than * MICROSECONDS
        removed = Ended()
        if dry_run:
            removed = await store.count_ended(before)
        else:
            async for ended in pruned(store, before):
                removed += ended
            await sweep(store)  # what servers left that were killed
        _say(removed, dry_run)
        return True
    finally:
        await store.close()


async def _ask(client: TaskClient, older_than: int, dry_run: bool) -> int:
    """A running server."""
    removed, more = Ended(), True
    while more:
        answer = await client.prune(older_than, dry_run=dry_run)
        removed += Ended(answer.tasks, answer.runs)
        more = answer.more
    _say(removed, dry_run)
    return 0


def _say(ended: Ended, dry_run: bool) -> None:
    what = "would remove" if dry_run else "removed"
    click.echo(f"{what} {counted(ended.tasks, 'tasks')} and {counted(ended.runs, 'runs')}")
