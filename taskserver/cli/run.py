"""``taskserver run``"""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path

import click

from taskserver.cli.exits import printable
from taskserver.cli.options import Number, label, option, task_id, text
from taskserver.cli.talk import talks
from taskserver.client import TaskClient
from taskserver.config import MAX_LEASE, MAX_NAME_LENGTH, MIB
from taskserver.producer import Options, run_task

STDERR = 2


# Whatever stands behind the command's name belongs to the command, with or without `--`.
@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@option("--name", type=text, help="The task's name.  [default: the command]")
@option("--label", "labels", multiple=True, type=label, envvar="TASKSERVER_RUN_LABEL", help="A label; may be repeated.")
@option("--id", "task_id", type=task_id, envvar="TASKSERVER_RUN_ID", help="The task's id.  [default: a new one]")
@option(
    "--lease",
    default=Options.lease,
    type=Number(1, MAX_LEASE),
    metavar="SECONDS",
    help="When the server hears nothing for this long, the command counts as lost.",
)
@option(
    "--kill-after",
    default=Options.kill_after,
    type=Number(0),
    metavar="SECONDS",
    help="A cancelled command gets a SIGTERM, and after this time a SIGKILL.",
)
@option(
    "--grace",
    default=Options.grace,
    type=Number(0),
    metavar="SECONDS",
    help="How long to go on reading what the command left behind writes when the command itself has ended.",
)
@option(
    "--patience",
    default=Options.patience,
    type=Number(0),
    metavar="SECONDS",
    help="How long to wait at the end for a server that is away, before the rest is left in the spool file.",
)
@option(
    "--spool-folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where lines are kept that the server has not got yet.  [default: the system's temporary directory]",
)
@option(
    "--spool-limit",
    default=Options.spool_limit // MIB,
    type=click.IntRange(1),
    metavar="MIB",
    help="The size at which the command is held up until the server has caught up.",
)
@option("--pty", is_flag=True, help="Give the command a terminal; then all its output is one stream.")
@option("--quiet", "-q", is_flag=True, help="Do not print the task's URL.")
@talks
async def run(
    client: TaskClient,
    command: tuple[str, ...],
    name: str | None,
    labels: tuple[tuple[str, str], ...],
    spool_limit: int,
    **options: object,
) -> int:
    """Run a command as a task.

    Its output goes where it would go anyway, and line by line to the server.
    Signals are passed on to it. Ends with the command's exit code: 128 + n if
    signal n ended it, 127 if there is no such command.

    While the server is away the command goes on; its lines are kept in a file
    and sent when the server is back.

    \b
    Example:
      taskserver run --name nightly --label branch=main -- make -j8 test
    """
    if name is None:
        name = text(shlex.join(command)).replace("\0", "")[:MAX_NAME_LENGTH]
    wishes = Options(name=name, labels=dict(labels), spool_limit=spool_limit * MIB, **options)  # type: ignore[arg-type]
    return await run_task(client, command, wishes, say)


def say(message: str) -> None:
    """One line on standard error, in one piece from any thread, whatever has become of standard error."""
    ending = "\r\n" if message.endswith("\r") else "\n"  # a raw terminal needs both
    with contextlib.suppress(OSError):
        os.write(STDERR, f"taskserver: {printable(message.rstrip())}{ending}".encode())
