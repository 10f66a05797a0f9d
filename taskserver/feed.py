"""Feed: which tasks and runs changed their state lately, for those who watch lists of them.

It numbers the changes and remembers the last ones, in memory: who has missed
more is told so, and reads again what it shows. Lines of output are no changes
here. Where nodes of their own change the same database (``Store.tells_all``),
theirs are not among them either; a wake-up still comes.
"""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from taskserver.dagmodel import Run, RunState
from taskserver.model import Task, TaskState
from taskserver.store import AnyChange, Change, RunChange, Store
from taskserver.wakeup import Wakeup

REMEMBERED = 10_000  # changes; some megabyte, and minutes of an ordinary server
KNOWN = 10_000  # live tasks and runs whose state was told; of one beyond that any commit counts as a change
PAUSE = 0.25  # seconds between two wake-ups: nobody reads faster, and what happens in between is told in one


ALL = "changes"
"""The wake-up of those who watch everybody's tasks."""


@dataclass(frozen=True, slots=True)
class Touched:
    """A task (or, without ``task_id``, a run) that changed, of an owner and perhaps of a run."""

    number: int
    owner: str
    task_id: str | None
    run: uuid.UUID | None


@dataclass(frozen=True, slots=True)
class Watched:
    """Whose changes are wanted: the tasks of an ``owner`` (None: of all), or a ``run`` of theirs and its tasks."""

    owner: str | None
    run: uuid.UUID | None = None

    @property
    def topic(self) -> str:
        """The wake-up that concerns it."""
        if self.run is not None:
            return _run_topic(self.run)
        return ALL if self.owner is None else _owner_topic(self.owner)

    def holds(self, touched: Touched) -> bool:
        """Whether the change is one of those."""
        if self.run is None and touched.task_id is None:
            return False
        return self.owner in (None, touched.owner) and self.run in (None, touched.run)


class Feed:
    """The changes of this process's store, as they are reported to ``committed``."""

    def __init__(self, store: Store, wakeup: Wakeup, pause: float = PAUSE) -> None:
        self.epoch = ""
        """Tells this feed's numbers from any other's: those of another process or of another time."""
        self.last = 0
        """The number of the last change."""
        self._store = store
        self._wakeup = wakeup
        self._pause = pause
        self._remembered: deque[Touched] = deque(maxlen=REMEMBERED)
        self._told: OrderedDict[int, tuple[TaskState | RunState, bool]] = OrderedDict()
        self._watchers = 0
        self._missed = True
        self._topics: dict[str, None] = {}
        self._free_at = 0.0  # when the next wake-up may come, by the loop's clock
        self._timer: asyncio.TimerHandle | None = None

    @property
    def whole(self) -> bool:
        """Whether all changes are told of here; if not, a wake-up may mean one of another node's."""
        return self._store.tells_all

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While somebody watches, changes are remembered; otherwise they cost next to nothing."""
        if self._missed:
            self.epoch, self._missed = secrets.token_hex(4), False
            self._remembered.clear()
            self._told.clear()
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1

    def committed(self, changes: Sequence[AnyChange]) -> None:
        """Take over what was committed, and wake those whom it concerns."""
        if not self._watchers and self.whole:
            self._missed = True
            return
        for change in changes:
            if isinstance(change, Change):
                task = change.task
                if self._is_news(task, change.deleted):
                    self._note(task.owner, task.id, None if task.place is None else task.place.run)
            elif isinstance(change, RunChange) and self._is_news(change.run, change.deleted):
                self._note(change.run.owner, None, change.run.id)
        if self._topics and self._timer is None:
            loop = asyncio.get_running_loop()
            if loop.time() >= self._free_at:
                self._wake()
            else:
                self._timer = loop.call_at(self._free_at, self._wake)

    def since(self, number: int, watched: Watched) -> list[Touched] | None:
        """What changed after a number, each task and run once; None if that is not known any more."""
        oldest = self._remembered[0].number if self._remembered else self.last + 1
        if not oldest - 1 <= number <= self.last:
            return None
        found: dict[str | uuid.UUID | None, Touched] = {}
        for touched in reversed(self._remembered):
            if touched.number <= number:
                break
            if watched.holds(touched):
                found.setdefault(touched.task_id or touched.run, touched)
        return list(found.values())[::-1]

    def close(self) -> None:
        """Wake nobody any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _is_news(self, head: Task | Run, deleted: bool) -> bool:
        """Whether more has changed than output, events or a lease."""
        if deleted or head.finished:
            self._told.pop(head.log, None)
            return True
        seen = head.state, head.cancel_requested
        if self._told.get(head.log) == seen:
            return False
        self._told[head.log] = seen
        if len(self._told) > KNOWN:
            self._told.popitem(last=False)
        return True

    def _note(self, owner: str, task_id: str | None, run: uuid.UUID | None) -> None:
        self.last += 1
        self._remembered.append(Touched(self.last, owner, task_id, run))
        if task_id is not None:
            self._topics[ALL] = self._topics[_owner_topic(owner)] = None
        if run is not None:
            self._topics[_run_topic(run)] = None

    def _wake(self) -> None:
        self._timer = None
        self._free_at = asyncio.get_running_loop().time() + self._pause
        topics, self._topics = self._topics, {}
        self._wakeup.publish(topics)


def _owner_topic(owner: str) -> str:
    return f"changes:owner:{owner}"


def _run_topic(run: uuid.UUID) -> str:
    return f"changes:run:{run}"
