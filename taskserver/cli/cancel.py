"""``taskserver cancel``"""

from __future__ import annotations

import click

from taskserver.cli.exits import tell
from taskserver.cli.options import task_id
from taskserver.cli.talk import talks
from taskserver.client import TaskClient


@click.command()
@click.argument("task_id", metavar="ID", type=task_id)
@talks
async def cancel(client: TaskClient, task_id: str) -> int:
    """Ask a task to stop.

    Its producer learns it with its next lines, or its next sign of life. A
    task that has not begun is cancelled at once. To see it end, use `wait`.

    \b
    Example:
      taskserver cancel w3Jk0tVb5rXq9LmN
    """
    task = await client.cancel(task_id)
    tell(f"task {task_id} is {task.state}" if task.finished else f"task {task_id} is asked to stop")
    return 0
