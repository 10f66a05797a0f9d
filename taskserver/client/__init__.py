"""Clients of the tasks room (PROTOCOLS.md, section A): TaskClient for tasks, RunClient for dags and runs.

    async with TaskClient("http://127.0.0.1:8080", key) as client:
        task = await client.create("nightly build", lease=30)
        await client.append(task.id, ["compiling", "linking"])
        await client.finish(task.id)

        async for page in client.follow(task.id):
            print("\\n".join(page.lines))

    async with RunClient("http://127.0.0.1:8080", key) as client:
        run = await client.trigger("my_dag", {"n": 21})
        print(await client.result(run.id))

``SyncClient`` is for callers of dags whose code is not asynchronous.

Two exceptions tell of everything that goes wrong: ``ApiError`` is an answer of
the server's, ``Unreachable`` is the lack of one. ``follow``,
``wait``, ``result`` and ``tail`` live through restarts of the server; every other
method asks once, or for as long as it is told to.
"""

from __future__ import annotations

from taskserver.client.answers import (
    ApiError,
    Appended,
    KeyInfo,
    OutputPage,
    Pruned,
    RunFailed,
    RunInfo,
    TailLine,
    TaskInfo,
    TaskPage,
    Unreachable,
)
from taskserver.client.client import TaskClient
from taskserver.client.connection import Connection
from taskserver.client.retry import Backoff, insist, is_away, is_transient
from taskserver.client.runs import RunClient
from taskserver.client.sync import SyncClient

__all__ = [
    "ApiError",
    "Appended",
    "Backoff",
    "Connection",
    "KeyInfo",
    "OutputPage",
    "Pruned",
    "RunClient",
    "RunFailed",
    "RunInfo",
    "SyncClient",
    "TailLine",
    "TaskClient",
    "TaskInfo",
    "TaskPage",
    "Unreachable",
    "insist",
    "is_away",
    "is_transient",
]
