"""LivePartials: the unfinished lines of tasks that run, in memory, as their producers told them last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from taskserver.config import MIB
from taskserver.model import Task
from taskserver.partial import Partial
from taskserver.store import AnyChange, Change, Store
from taskserver.wakeup import Wakeup

TOTAL_BYTES = 16 * MIB  # thousands of bars; what is forgotten is told again with the next movement
ENTRY_COST = 512  # of the objects around the text


class LivePartials:
    """The latest of each task, within TOTAL_BYTES.

    Nothing here is durable, and who asks for a task's gets one that stands behind
    its last line, or none: what was told late, or before a line, is not shown.
    """

    def __init__(self, store: Store, wakeup: Wakeup) -> None:
        self._store = store
        self._wakeup = wakeup
        self._latest: OrderedDict[int, Partial] = OrderedDict()  # by log; the one told last is the last
        self._size = 0

    def tell(self, task: Task, last: int, stdout: str, stderr: str) -> None:
        """Hand on what stands behind line ``last`` of a task, to this and all other processes.

        What has been told is told again: somebody may have missed it.
        """
        known = self._latest.get(task.log)
        if stdout or stderr or (known is not None and known.last == last):  # else nothing stands there anyway
            self._store.tell(Partial(task.log, last, stdout, stderr))

    def find(self, task: Task) -> Partial | None:
        """What stands behind a task's last line, if something does."""
        found = self._latest.get(task.log)
        if found is None or not found.stands_in(task) or not (found.stdout or found.stderr):
            return None
        return found

    def committed(self, changes: Sequence[AnyChange]) -> None:
        """Take over what is reported: partials that were told, and tasks that have ended."""
        for change in changes:
            if isinstance(change, Partial):
                self._take(change.log)
                self._latest[change.log] = change
                self._size += _cost(change)
                while self._size > TOTAL_BYTES:
                    self._size -= _cost(self._latest.popitem(last=False)[1])
                self._wakeup.publish_here([partial_topic(change.log)])
            elif isinstance(change, Change) and (change.deleted or change.task.finished):
                self._take(change.task.log)

    def _take(self, log: int) -> None:
        known = self._latest.pop(log, None)
        if known is not None:
            self._size -= _cost(known)


def _cost(partial: Partial) -> int:
    return 2 * (len(partial.stdout) + len(partial.stderr)) + ENTRY_COST


def partial_topic(log: int) -> str:
    """The wake-up of those who follow a task's unfinished lines too."""
    return f"partial:{log}"
