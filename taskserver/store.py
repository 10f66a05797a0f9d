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
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from taskserver.config import MAX_LINE_NUMBER
from taskserver.dagmodel import Dag, NewDag, NewRun, Run, RunState
from taskserver.model import ApiKey, Chunk, Lines, NewTask, Outcome, Task, TaskFilter, TaskState
from taskserver.partial import Partial
from taskserver.wakeup import LocalWakeup, Wakeup


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


@dataclass(frozen=True, slots=True)
class RunChange:
    """One committed change of a run: the run as it now stands, and the events that came with it."""

    run: Run
    chunk: Chunk | None = None
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """How many tasks (outside of runs) and runs."""

    tasks: int = 0
    runs: int = 0

    def __add__(self, other: Ended) -> Ended:
        return Ended(self.tasks + other.tasks, self.runs + other.runs)

    def __bool__(self) -> bool:
        return bool(self.tasks or self.runs)


@dataclass(frozen=True, slots=True)
class KeyChange:
    """One committed change of an API key, as it now stands. New keys are not reported: nobody knows an older state."""

    key: ApiKey


AnyChange = Change | RunChange | KeyChange | Partial

MAX_REMOVED = 1000  # tasks of a deleted run that go in the same commit as the run
Listener = Callable[[Sequence[AnyChange]], None]


class Store(abc.ABC):
    """Tasks, their output, and API keys."""

    @abc.abstractmethod
    def listen(self, listener: Listener) -> None:
        """Have each committed change of tasks, runs and keys reported, on the event loop.

        Changes of one of them come in the order in which they were committed, and
        before the call that made them returns. There is one listener. Processes that
        share a store (``SharedStore``) are told of each other's changes; see ``behind``.
        Partials come the same way (see ``tell``), though nothing of them is committed.
        """

    @abc.abstractmethod
    def tell(self, partial: Partial) -> None:
        """Report something to the listeners of all processes and nodes, this one included, that is not to be stored.

        It comes after what was committed here before. Never blocks and never raises: who cannot be told misses it.
        """

    @property
    def tells_all(self) -> bool:
        """Whether every change of tasks and runs is reported, whoever made it.

        If not, nodes of their own change the same database: what was reported is how
        things stood once, and who wants to know how they stand must read. Revoked
        keys are reported always, others' within a second.
        """
        return True

    @property
    def behind(self) -> bool:
        """Whether something is committed that is not reported here yet.

        Another process may have acknowledged it: who answers from memory must
        ``catch_up`` first. It costs next to nothing to ask.
        """
        return False

    async def catch_up(self) -> None:
        """Return when all is reported that was committed before this call."""
        return

    async def open_wakeup(self, listen_url: str | None = None) -> Wakeup:
        """Wake-ups among all processes that change this store by themselves. To be closed before the store.

        ``listen_url`` is the same database, reached without a pooler: for a store
        that needs a connection that stays, in order to hear of others' changes.
        """
        return LocalWakeup()

    @abc.abstractmethod
    async def ping(self) -> None:
        """Return if the store works now. Raises StoreUnavailable, and soon, also where the database hangs."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Finish what is being committed and let go of the database. A repeat does nothing."""

    # --- tasks -----------------------------------------------------------------

    @abc.abstractmethod
    async def create_task(self, new: NewTask, now: int) -> Task:
        """Create a queued task; its lease, if any, begins at ``now``. With an outcome it has ended, in the same commit.

        Raises TaskExists if the id is taken, or its place in the run; RunNotFound;
        RunFinished; RunClaimed if the run has a claimant and this is not its claim.
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
    async def count_live_tasks(self) -> Mapping[TaskState, int]:
        """How many tasks are queued and how many are running; the cost depends on these, not on what is stored."""

    @abc.abstractmethod
    async def append(
        self,
        task_id: str,
        lines: Lines,
        first: int | None,
        now: int,
        limit: int = MAX_LINE_NUMBER,
        log: int | None = None,
    ) -> Appended:
        """Add lines to the end of a task's output; renew its lease; a queued task becomes running.

        ``log`` is the task's, if the caller has seen it: another task that has been
        given its id meanwhile is not meant, and TaskNotFound is raised.

        With ``first == last`` (or without ``first``) the lines are added. If
        exactly these texts stand at ``first`` already, nothing changes and the
        answer is as it was, also on a finished task.

        Raises TaskNotFound; TaskFinished if the task has ended; AppendConflict
        with the true ``last`` if ``first`` is anywhere else; OutputFull if there
        would be more than ``limit`` lines (``stores/taskrules``).
        """

    @abc.abstractmethod
    async def finish(
        self,
        task_id: str,
        outcome: Outcome,
        now: int,
        lines: Lines | None = None,
        first: int | None = None,
        limit: int = MAX_LINE_NUMBER,
    ) -> Task:
        """End a task and, in the same commit, append the last lines.

        Finishing twice with the same outcome and lines succeeds and changes
        nothing. Raises TaskNotFound; TaskFinished if it has ended otherwise;
        AppendConflict and OutputFull as ``append`` does.
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
        """Remove a finished task. Raises TaskNotFound, TaskNotFinished.

        Its output is gone for every reader in the same moment, however long it is;
        the space that it takes is given back by ``sweep``.
        """

    @abc.abstractmethod
    async def expire_leases(self, now: int, heard_since: int = 0) -> list[Task]:
        """End every live task whose lease ran out before ``now`` as interrupted; return these tasks.

        But for those whose leases are longer than the time since ``heard_since``:
        before it nobody could be heard, so their producers' silence means nothing.
        """

    # --- runs ------------------------------------------------------------------

    @abc.abstractmethod
    async def put_dag(self, new: NewDag, now: int) -> Dag:
        """Register a dag, or replace what was registered; its ``config_id`` stays.

        Raises DagExists if it is another owner's.
        """

    @abc.abstractmethod
    async def get_dag(self, dag_id: str) -> Dag:
        """Raises DagNotFound."""

    @abc.abstractmethod
    async def find_dag(self, config_id: uuid.UUID) -> Dag:
        """Raises DagNotFound."""

    @abc.abstractmethod
    async def list_dags(self, owner: str | None) -> list[Dag]:
        """An owner's dags (None: all) in order of their ids."""

    @abc.abstractmethod
    async def create_run(self, new: NewRun, now: int) -> Run:
        """Queue a run of a dag, with the dag's tasks as they are registered now.

        Raises DagNotFound; RunExists if the dag has a run with this run id or logical date.
        """

    @abc.abstractmethod
    async def get_run(self, run: uuid.UUID) -> Run:
        """Raises RunNotFound."""

    @abc.abstractmethod
    async def find_run(self, dag_id: str, run_id: str) -> Run:
        """Raises RunNotFound."""

    @abc.abstractmethod
    async def find_tagged_run(self, tag: str, owner: str | None) -> Run:
        """The newest run with a tag, of an owner (None: of any). Raises RunNotFound."""

    @abc.abstractmethod
    async def list_runs(self, dag_id: str, limit: int, offset: int) -> tuple[list[Run], int]:
        """Runs of a dag in the order in which they were queued, and how many there are in all."""

    @abc.abstractmethod
    async def claim_run(
        self, owner: str | None, dag_ids: tuple[str, ...], claim: str, lease_us: int, now: int
    ) -> Run | None:
        """Give the queued run that is due longest to a claimant, or return None if there is none.

        Only runs of ``owner`` (None: of anybody) and of ``dag_ids`` (empty: of any
        dag). The run becomes running; no two claims get the same one. The run
        that is being worked on with this claim already is returned again, and its
        lease renewed. When that run has ended the claim may be used for another.
        """

    @abc.abstractmethod
    async def heartbeat_run(self, run: uuid.UUID, claim: str, now: int) -> Run:
        """Renew a claimant's lease. Raises RunNotFound, RunFinished, RunClaimed."""

    @abc.abstractmethod
    async def release_run(self, run: uuid.UUID, claim: str, now: int) -> Run:
        """Take a run back from its claimant before its lease is over.

        If none of its tasks is live it is queued again, and has one more of its
        ``retries``: this claim is none that was lost. Otherwise, and if somebody has
        asked it to stop, it is dealt with as ``expire_runs`` does with a lost one.
        Raises RunNotFound, RunFinished, RunClaimed (a repeat too: nobody has it).
        """

    @abc.abstractmethod
    async def finish_run(self, run: uuid.UUID, claim: str | None, state: RunState | None, error: str, now: int) -> Run:
        """End a run; without a ``state`` it follows from its tasks. ``failed`` after a cancel request is ``cancelled``.

        The same word and error of the same claimant again change nothing. Raises
        RunNotFound, RunFinished, RunClaimed, and TasksRunning if the state cannot
        follow from tasks that still run.
        """

    @abc.abstractmethod
    async def cancel_run(self, run: uuid.UUID, now: int) -> Run:
        """Ask a run's claimant and its tasks to stop; a queued run ends as cancelled at once.

        A repeat, or asking a finished run, changes nothing. Raises RunNotFound.
        """

    @abc.abstractmethod
    async def delete_run(self, run: uuid.UUID) -> None:
        """Remove a run, its tasks and their output, whatever its state. Raises RunNotFound.

        Of a run with more than MAX_REMOVED tasks, some may be seen a moment longer,
        each of them whole: ``sweep`` removes them.
        """

    @abc.abstractmethod
    async def expire_runs(self, now: int, heard_since: int = 0) -> list[Run]:
        """Deal with every run whose claimant's lease ran out before ``now``; return these runs.

        ``heard_since`` is as for ``expire_leases``.

        Its live tasks end as interrupted. It is queued again while it has retries
        left and nobody has asked it to stop, else it ends as interrupted.
        """

    @abc.abstractmethod
    async def run_tasks(self, run: uuid.UUID, results_of: Collection[str] | None = ()) -> list[Task]:
        """A run's tasks in the order of their creation.

        With results where ``results_of`` names the task (None: everywhere).
        """

    @abc.abstractmethod
    async def keep_secret(self, name: str, value: bytes) -> bytes:
        """Keep ``value`` as a secret of the server's under a name if there is none yet; return the one that is kept."""

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

    # --- retention -------------------------------------------------------------

    @abc.abstractmethod
    async def count_ended(self, before: int) -> Ended:
        """How many tasks outside of runs, and how many runs, have ended before a moment."""

    @abc.abstractmethod
    async def prune(self, before: int, limit: int) -> Ended:
        """Remove tasks outside of runs, and runs with all that is theirs, that have ended before a moment.

        At most ``limit`` tasks and runs in all, those that ended first; tells how
        many. Each goes as ``delete_task`` and ``delete_run`` have it go. When it
        tells of none there is none left, except for what another node is dealing
        with. Nodes that prune at the same time do not wait for each other.
        """

    @abc.abstractmethod
    async def sweep(self) -> bool:
        """Remove a portion of what deleted tasks and runs left; tell whether there is more.

        The portion is small, so that nobody waits for it long. What a server that
        was killed left is found again. A repeat, or several nodes at once, do no harm.
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


class SharedStore(Store):
    """A store that other processes on this machine join: they read by themselves, and this process commits for all."""

    @abc.abstractmethod
    async def invite(self) -> Invitation:
        """Let one more process join. Its commits go on until it leaves, or this store is closed."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a process needs to join a store, once: ``stores.join_store`` takes it there.

    It inherits ``descriptors`` under the same numbers. ``link``, one of them, is
    a socket, and for the inviting process to close when the other has started.
    """

    url: str
    link: int
    descriptors: tuple[int, ...]
