"""The words of the contract tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from taskserver.config import MAX_LINE_NUMBER
from taskserver.encoding import decode_side, decode_texts, encode_lines, quoted
from taskserver.model import Chunk, Lines, NewTask, Outcome, Stream, Task
from taskserver.partial import Partial
from taskserver.store import AnyChange, Change, KeyChange, RunChange, Store

T = TypeVar("T")
Opener = Callable[[Path], Awaitable[T]]

NOW = 1_800_000_000_000_000  # microseconds; stores never ask for the time, so any moment will do
SECOND = 1_000_000
PAGE = 64 * 1024

SUCCESS = Outcome()
FAILURE = Outcome(3, "no such file", b'{"type":"text","data":"none"}')


class Recorder:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.runs: list[RunChange] = []
        self.keys: list[KeyChange] = []
        self.partials: list[Partial] = []

    def __call__(self, changes: Sequence[AnyChange]) -> None:
        self.changes.extend(change for change in changes if isinstance(change, Change))
        self.runs.extend(change for change in changes if isinstance(change, RunChange))
        self.keys.extend(change for change in changes if isinstance(change, KeyChange))
        self.partials.extend(change for change in changes if isinstance(change, Partial))

    def of(self, task_id: str) -> list[Change]:
        return [change for change in self.changes if change.task.id == task_id]

    def take(self) -> list[Change]:
        """What was reported since the last look."""
        taken, self.changes = self.changes, []
        return taken

    def take_runs(self) -> list[RunChange]:
        """What was reported of runs since the last look."""
        taken, self.runs = self.runs, []
        return taken


def lines(*texts: str, now: int = NOW, stream: Stream = Stream.STDOUT) -> Lines:
    return encode_lines(texts, now, stream)


def numbered(first: int, end: int) -> list[str]:
    return [f"line {number}" for number in range(first, end)]


async def create(
    store: Store,
    task_id: str = "build",
    *,
    owner: str = "ann",
    name: str = "",
    lease: int | None = None,
    labels: Mapping[str, str] | None = None,
    now: int = NOW,
) -> Task:
    """A queued task; ``lease`` is in seconds."""
    lease_us = None if lease is None else lease * SECOND
    return await store.create_task(NewTask(task_id, owner, name, lease_us, labels or {}), now)


async def finished(store: Store, task_id: str = "build", *texts: str) -> Task:
    """A task with these lines that has ended well."""
    await create(store, task_id)
    return await store.finish(task_id, SUCCESS, NOW, lines(*texts))


async def chunks(
    store: Store, log: int, first: int = 0, end: int = MAX_LINE_NUMBER, max_bytes: int = PAGE
) -> list[Chunk]:
    """What a reader gets who pages on until there is no more; checks that it is dense."""
    found: list[Chunk] = []
    while page := await store.read(log, first, end, max_bytes):
        for chunk in page:
            assert chunk.first == first
            assert chunk.count == len(decode_texts(quoted(chunk))) > 0
            first = chunk.end
        found += page
    return found


async def texts(store: Store, log: int, first: int = 0, end: int = MAX_LINE_NUMBER, max_bytes: int = PAGE) -> list[str]:
    return [text for chunk in await chunks(store, log, first, end, max_bytes) for text in decode_texts(quoted(chunk))]


async def sides(store: Store, log: int, first: int = 0, end: int = MAX_LINE_NUMBER) -> list[tuple[int, Stream]]:
    return [side for chunk in await chunks(store, log, first, end) for side in decode_side(chunk.side, chunk.count)]
