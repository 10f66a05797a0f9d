"""Store: the interface of what is durable. `stores/` implements it, `tests/contract/` holds every implementation to it.

Common to all methods:

- A method that changes something returns when the change is durable, and has
  reported it to the listener before (see ``listen``). If it raises, nothing of
  it was kept.
- ``now`` is the caller's clock in microseconds; a store never asks for the time.
- Any method may raise ``StoreUnavailable``, and a changing one ``StoreFull``.
- The store knows nothing of callers and their rights; ``Tasks`` does.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from taskserver.model import ApiKey, Chunk, Lines, NewTask, Outcome, Task, TaskFilter


@dataclass(frozen=True, slots=True)
class Change:
    """One committed change: the task as it now stands, and the lines that came with it.

    ``chunk`` is None where no line was added. ``deleted`` tells that the task is
    gone, and ``task`` is how it last stood.
    """

    task: Task
    chunk: Chunk | None = None
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Appended:
    """Where the lines of one append stand, ``[first, last)``, and whether the producer is asked to stop."""

    first: int
    last: int
    cancel_requested: bool = False


Listener = Callable[[Sequence[Change]], None]


class Store(abc.ABC):
    """Tasks, their output, and API keys."""

    @abc.abstractmethod
    def listen(self, listener: Listener) -> None:
        """Have each committed change of this process reported, on the event loop.

        Changes of one task come in the order in which they were committed, and
        before the call that made them returns. There is one listener.
        """

    @abc.abstractmethod
    async def ping(self) -> None:
        """Return if the store can answer a read now."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Finish what is being committed and let go of the database. A repeat does nothing."""

    # --- tasks -----------------------------------------------------------------

    @abc.abstractmethod
    async def create_task(self, new: NewTask, now: int) -> Task:
        """Create a queued task; its lease, if any, begins at ``now``.

        Raises TaskExists if the id is taken.
        """

    @abc.abstractmethod
    async def get_task(self, task_id: str) -> Task:
        """The task as committed last. Raises TaskNotFound."""

    @abc.abstractmethod
    async def list_tasks(self, where: TaskFilter, limit: int, before: int | None = None) -> list[Task]:
        """Tasks in the reverse order of their creation, without their results.

        ``before`` is the ``log`` of the last task of the page before: what was
        created meanwhile does not shift the pages.
        """

    @abc.abstractmethod
    async def append(self, task_id: str, lines: Lines, first: int | None, now: int) -> Appended:
        """Add lines to the end of a task's output; renew its lease; a queued task becomes running.

        With ``first == last`` (or without ``first``) the lines are added. If
        exactly these texts stand at ``first`` already, nothing changes and the
        answer is as it was, also on a finished task.

        Raises TaskNotFound; TaskFinished if the task has ended; AppendConflict
        with the true ``last`` if ``first`` is anywhere else.
        """

    @abc.abstractmethod
    async def finish(
        self, task_id: str, outcome: Outcome, now: int, lines: Lines | None = None, first: int | None = None
    ) -> Task:
        """End a task and, in the same commit, append the last lines.

        Finishing twice with the same outcome and lines succeeds and changes
        nothing. Raises TaskNotFound; TaskFinished if it has ended otherwise;
        AppendConflict as ``append`` does.
        """

    @abc.abstractmethod
    async def heartbeat(self, task_id: str, now: int) -> Task:
        """Renew the lease; a queued task becomes running. Raises TaskNotFound, TaskFinished."""

    @abc.abstractmethod
    async def request_cancel(self, task_id: str, now: int) -> Task:
        """Ask the producer to stop; a queued task ends as cancelled at once.

        A repeat, or asking a finished task, changes nothing. Raises TaskNotFound.
        """

    @abc.abstractmethod
    async def delete_task(self, task_id: str) -> None:
        """Remove a finished task and its output. Raises TaskNotFound, TaskNotFinished."""

    @abc.abstractmethod
    async def expire_leases(self, now: int) -> list[Task]:
        """End every live task whose lease ran out before ``now`` as interrupted; return these tasks."""

    @abc.abstractmethod
    async def renew_leases(self, now: int) -> None:
        """Begin every live task's lease anew: for a start, after a time in which no producer could be heard."""

    # --- output ----------------------------------------------------------------

    @abc.abstractmethod
    async def read(self, log: int, first: int, end: int, max_bytes: int) -> list[Chunk]:
        """Lines ``[first, end)`` of a log in order, without gaps, from ``first`` on.

        Stops early, but not before one chunk, when the payloads exceed
        ``max_bytes``: the caller goes on at the last chunk's ``end``. An empty
        list means that there is nothing at ``first`` (any more).
        """

    @abc.abstractmethod
    async def unsealed(self, limit: int) -> list[Task]:
        """Finished tasks whose output has not been sealed yet, the oldest first, without results."""

    @abc.abstractmethod
    async def seal(self, log: int) -> None:
        """Rewrite a finished task's output into few, compressed chunks.

        Numbering and content stay as they are, readers may read meanwhile, and
        a crash at any point leaves either form whole. A repeat, or a log that
        is gone, does nothing.
        """

    # --- keys ------------------------------------------------------------------

    @abc.abstractmethod
    async def add_key(self, key: ApiKey) -> None:
        """Add a key. Raises KeyExists if its name is in use by a key that is not revoked, or its id is taken."""

    @abc.abstractmethod
    async def get_key(self, key_id: str) -> ApiKey:
        """Raises KeyNotFound."""

    @abc.abstractmethod
    async def list_keys(self) -> list[ApiKey]:
        """All keys, revoked ones included, in the order of their creation."""

    @abc.abstractmethod
    async def revoke_key(self, key_id: str, now: int) -> ApiKey:
        """Revoke a key; a repeat keeps the first time. Raises KeyNotFound."""
