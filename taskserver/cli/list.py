"""``taskserver list``"""

from __future__ import annotations

import sys

import click
import orjson

from taskserver.cli.options import label, option, text
from taskserver.cli.show import moment, show
from taskserver.cli.talk import talks
from taskserver.client import TaskClient, TaskInfo
from taskserver.config import DEFAULT_LIST_LIMIT, MAX_LIST_LIMIT
from taskserver.model import TaskState

NOT_LISTED = ("output", "result")  # the server tells them of a single task only


@click.command("list")
@option("--state", type=click.Choice([state.value for state in TaskState]), help="Only tasks in this state.")
@option("--name", type=text, help="Only tasks of exactly this name.")
@option(
    "--label", "labels", multiple=True, type=label, envvar="TASKSERVER_LIST_LABEL",
    help="Only tasks with this label; may be repeated.",
)  # fmt: skip
@option("--limit", default=DEFAULT_LIST_LIMIT, type=click.IntRange(1), help="How many tasks at most.")
@option("--json", "as_json", is_flag=True, envvar="TASKSERVER_LIST_JSON", help="As a JSON array, with all fields.")
@talks
async def list_tasks(
    client: TaskClient,
    state: str | None,
    name: str | None,
    labels: tuple[tuple[str, str], ...],
    limit: int,
    as_json: bool,
) -> int:
    """List tasks, the newest first.

    On a terminal as a table; otherwise one task a line, its fields separated
    by tabs: id, state, code, lines, time of creation, name.

    \b
    Example:
      taskserver list --state running --label branch=main
    """
    tasks: list[TaskInfo] = []
    cursor: str | None = None
    while True:
        page = await client.list_tasks(
            state=state, name=name, labels=dict(labels), limit=min(limit - len(tasks), MAX_LIST_LIMIT), cursor=cursor
        )
        tasks += page.tasks
        cursor = page.cursor
        if cursor is None or len(tasks) >= limit:
            break
    if as_json:
        fields = [{key: value for key, value in vars(task).items() if key not in NOT_LISTED} for task in tasks]
        options = orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE
        sys.stdout.buffer.write(orjson.dumps(fields, option=options))
        sys.stdout.buffer.flush()
    else:
        show(
            ("ID", "STATE", "CODE", "LINES", "CREATED", "NAME"),
            [(task.id, task.state, _code(task), str(task.last), moment(task.created_at), task.name) for task in tasks],
        )
    return 0


def _code(task: TaskInfo) -> str:
    return str(task.code) if task.finished else ""
