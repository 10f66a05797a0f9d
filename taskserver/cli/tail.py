"""``taskserver tail``"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from taskserver.cli.exits import WrongUsage, exit_code_of, tell
from taskserver.cli.options import Number, option, task_id
from taskserver.cli.talk import talks
from taskserver.client import TaskClient
from taskserver.config import MAX_LINE_NUMBER, MAX_OUTPUT_LIMIT

PATIENCE = 300.0  # seconds; longer than a server's restart takes on a slow machine


@click.command()
@click.argument("task_id", metavar="ID", type=task_id)
@option("--first", type=click.IntRange(0, MAX_LINE_NUMBER), help="Begin at this line; the first is 0.  [default: 0]")
@option("--tail", type=click.IntRange(0, MAX_LINE_NUMBER), help="Begin this many lines before the end.")
@option("--follow/--no-follow", default=True, help="Go on until the task ends, or print what is there.")
@option(
    "--patience",
    default=PATIENCE,
    type=Number(0),
    metavar="SECONDS",
    help="How long to wait for a server that has gone away meanwhile.",
)
@talks
async def tail(
    client: TaskClient, task_id: str, first: int | None, tail: int | None, follow: bool, patience: float
) -> int:
    """Print a task's output as it comes.

    Goes on where it was when the server is restarted. Ends with the task's
    code (255 for an interrupted task), its error on standard error. With
    --no-follow it ends with 0.

    \b
    Example:
      taskserver tail --tail 100 w3Jk0tVb5rXq9LmN
    """
    if first is not None and tail is not None:
        raise WrongUsage("give either --first or --tail, not both")
    end = await client.output(task_id, tail=tail or 0, limit=1)
    start = end.first if tail is not None else first or 0
    if not follow:
        await _print_existing(client, task_id, start, tail)
        return 0
    async for page in client.follow(task_id, first=start, patience=patience):
        _print(page.lines)
    task = await client.wait(task_id, patience=patience)
    if task.error:
        tell(task.error)
    return exit_code_of(task.code)


async def _print_existing(client: TaskClient, task_id: str, first: int, tail: int | None) -> None:
    end = (await client.output(task_id, tail=0)).last if tail is None else first + tail
    while True:
        page = await client.output(task_id, first=first, limit=max(1, min(MAX_OUTPUT_LIMIT, end - first)))
        _print(page.lines)
        first = page.last
        if first >= end or not page.lines:
            return


def _print(lines: Sequence[str]) -> None:
    """At once, and as UTF-8 whatever the locale says: it is what the task printed."""
    if lines:
        sys.stdout.buffer.write(("\n".join(lines) + "\n").encode())
        sys.stdout.buffer.flush()
