"""Retention: remove what ended long ago, for admins."""

from __future__ import annotations

from aiohttp import web

from taskserver.api.tasks.answers import json_answer
from taskserver.api.tasks.schemas import PruneBody
from taskserver.web.context import caller, services
from taskserver.web.params import body

PRUNE = PruneBody()
AT_ONCE = 500  # tasks and runs in one request: a second at most


async def prune(request: web.Request) -> web.StreamResponse:
    """Remove some of what has ended long ago, or count all of it."""
    wish = await body(request, PRUNE)
    tasks = services(request).tasks
    if wish["dry_run"]:
        ended, more = await tasks.count_ended(caller(request), wish["older_than"]), False
    else:
        ended, more = await tasks.prune(caller(request), wish["older_than"], AT_ONCE)
    return json_answer({"tasks": ended.tasks, "runs": ended.runs, "more": more})
