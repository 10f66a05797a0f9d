"""LivePartials: what is unfinished in tasks that run, in memory, as their producers told it last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from taskserver.config import MIB
from taskserver.model import Task
from taskserver.partial import Partial, Unfinished
from taskserver.store import AnyChange, Change, Store
from taskserver.wakeup import Wakeup

TOTAL_BYTES = 16 * MIB  # thousands of bars; what is forgotten is told again with the next movement
ENTRY_COST = 512  # of the objects around the texts
CHARACTER = 4  # bytes in memory, at most


class LivePartials:
    """The newest of each task, within TOTAL_BYTES.

    Nothing here is durable, and who asks for a task's gets one that stands behind
    its last line, or none: what was told late, or before a line, is not shown.
    """

    def __init__(self, store: Store, wakeup: Wakeup) -> None:
        self._store = store
        self._wakeup = wakeup
        self._newest: OrderedDict[int, Partial] = OrderedDict()  # by log; the one told last is the last
        self._size = 0

    def tell(self, log: int, last: int, unfinished: Unfinished) -> None:
        """Hand on what stands behind the lines of a log, of which there are ``last``, to this and all other processes.

        Also what has been told, and that nothing stands there: somebody may have missed it.
        """
        self._store.tell(Partial(log, last, unfinished))

    def find(self, task: Task) -> Partial | None:
        """What stands behind a task's last line, if something does."""
        found = self._newest.get(task.log)
        if found is None:
            return None
        if task.finished or found.last < task.last:  # for good; other nodes' tasks end without a word here
            self._take(task.log)
            return None
        return found if found.stands_in(task) and any(found.unfinished) else None

    def ahead_of(self, task: Task) -> bool:
        """Whether what was told last stands behind lines that this reading of a task does not know of as yet."""
        found = self._newest.get(task.log)
        return found is not None and found.last > task.last

    def committed(self, changes: Sequence[AnyChange]) -> None:
        """Take over what is reported: partials that were told, and tasks that have ended."""
        for change in changes:
            if isinstance(change, Partial):
                self._keep(change)
            elif isinstance(change, Change) and (change.deleted or change.task.finished):
                self._take(change.task.log)

    def _keep(self, partial: Partial) -> None:
        known = self._take(partial.log)
        if known is not None and known.last > partial.last:  # told late: lines have come since
            partial = known
        self._newest[partial.log] = partial
        self._size += _cost(partial)
        while self._size > TOTAL_BYTES:
            self._size -= _cost(self._newest.popitem(last=False)[1])
        if partial is not known:
            self._wakeup.publish_here([partial_topic(partial.log)])

    def _take(self, log: int) -> Partial | None:
        known = self._newest.pop(log, None)
        if known is not None:
            self._size -= _cost(known)
        return known


def _cost(partial: Partial) -> int:
    return CHARACTER * sum(map(len, partial.unfinished)) + ENTRY_COST


def partial_topic(log: int) -> str:
    """The wake-up of those who follow what is unfinished too."""
    return f"partial:{log}"
