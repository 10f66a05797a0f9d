"""An execution's events on the wire: pure functions over the stored lines (PROTOCOLS.md, C4).

A stored line is the JSON object of one task's transition. The event's name
follows from its ``status``; ``id`` is the cursor after it, and the ``end``
event has one of its own, as in ``streams``.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from taskserver.encoding import SEPARATOR
from taskserver.model import Chunk, TaskState
from taskserver.streams import END_SUFFIX

NAMES = {
    TaskState.QUEUED: b"initiated",
    TaskState.RUNNING: b"processing",
    TaskState.SUCCESS: b"completed",
    TaskState.FAILED: b"failed",
    TaskState.CANCELLED: b"failed",
    TaskState.INTERRUPTED: b"failed",
}


def encode_events(chunks: Sequence[Chunk]) -> bytes:
    """One event for each line; a line holds no newline, so its data is one field."""
    return b"".join(
        b"id: %d\nevent: %b\ndata: %b\n\n" % (cursor, NAMES[TaskState(orjson.loads(line)["status"])], line)
        for chunk in chunks
        for cursor, line in enumerate(chunk.payload.split(SEPARATOR), chunk.first + 1)
    )


def encode_end(last: int, state: bytes) -> bytes:
    """``event: end``: the execution is over and all its events have been told."""
    return b"id: %d%b\nevent: end\ndata: %b\n\n" % (last, END_SUFFIX.encode(), state)


def encode_timeout(state: bytes) -> bytes:
    """``event: timeout``: the time is up; it has no id, so the cursor stays that of the event before."""
    return b"event: timeout\ndata: %b\n\n" % state
