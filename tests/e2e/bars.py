"""Progress bars: how they are drawn, and what is told of them to those who follow."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from typing import Any

from tests.server import EVENT_LIMIT, Server

NDJSON = {"Content-Type": "application/x-ndjson"}


def bar_row(text: str) -> bytes:
    """A bar on standard error, as its producer tells it."""
    return json.dumps({"partial": text, "stream": "stderr"}).encode() + b"\n"


def told(text: str) -> dict[str, Any]:
    """The same as a follower is told it."""
    return {"partial": {"stdout": "", "stderr": text}}


@contextlib.contextmanager
def followed(server: Server, task_id: str) -> Iterator[Iterator[dict[str, Any]]]:
    """The objects of a task's output, unfinished lines included, as they come; on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=EVENT_LIMIT)
    with contextlib.closing(connection):
        path = f"/v1/tasks/{task_id}/output?format=ndjson&follow=true&partial=true"
        connection.request("GET", path, headers=server.headers)
        response = connection.getresponse()
        assert response.status == 200
        yield (json.loads(line) for line in response)
