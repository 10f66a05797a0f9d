"""TaskClient: an async client of the tasks room (PROTOCOLS.md, section A).

    async with TaskClient("http://127.0.0.1:8080", key) as client:
        task = await client.create("nightly build", lease=30)
        await client.append(task.id, ["compiling", "linking"])
        await client.finish(task.id)

        async for page in client.follow(task.id):
            print("\\n".join(page.lines))

Two exceptions tell of everything that goes wrong: ``ApiError`` is an answer of
the server's, ``Unreachable`` is the lack of one. ``follow`` and ``wait`` live
through restarts of the server; every other method asks once.
"""

from __future__ import annotations

from taskserver.client.answers import ApiError, Appended, KeyInfo, OutputPage, Pruned, TaskInfo, TaskPage, Unreachable
from taskserver.client.client import TaskClient
from taskserver.client.retry import Backoff, insist, is_transient

__all__ = [
    "ApiError",
    "Appended",
    "Backoff",
    "KeyInfo",
    "OutputPage",
    "Pruned",
    "TaskClient",
    "TaskInfo",
    "TaskPage",
    "Unreachable",
    "insist",
    "is_transient",
]
