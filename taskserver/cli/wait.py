"""``taskserver wait``"""

from __future__ import annotations

import click

from taskserver.cli.exits import ExitCode, exit_code_of, tell
from taskserver.cli.options import Number, option, task_id
from taskserver.cli.tail import PATIENCE
from taskserver.cli.talk import talks
from taskserver.client import TaskClient


@click.command()
@click.argument("task_id", metavar="ID", type=task_id)
@option("--timeout", type=Number(0), metavar="SECONDS", help="Give up after this time.  [default: never]")
@option(
    "--patience",
    default=PATIENCE,
    type=Number(0),
    metavar="SECONDS",
    help="How long to wait for a server that has gone away meanwhile.",
)
@talks
async def wait(client: TaskClient, task_id: str, timeout: float | None, patience: float) -> int:
    """Wait until a task has ended.

    Ends with the task's code (255 for an interrupted task), its error on
    standard error. If the time is over before, ends with 124 and tells the
    task's state.

    \b
    Example:
      taskserver wait --timeout 600 w3Jk0tVb5rXq9LmN && echo built
    """
    await client.output(task_id, tail=0)  # a server that is not there from the beginning is not worth any patience
    task = await client.wait(task_id, timeout=timeout, patience=patience)
    if not task.finished:
        tell(f"task {task_id} is {task.state} after {timeout:g} s")
        return ExitCode.TIMEOUT
    if task.error:
        tell(task.error)
    return exit_code_of(task.code)
