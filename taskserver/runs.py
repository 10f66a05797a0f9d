"""Runs: register dags, trigger and claim runs, wait for them, read their results, stats and events."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Hashable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from taskserver.config import Settings
from taskserver.dagmodel import (
    Dag,
    DagTask,
    NewDag,
    NewRun,
    Run,
    RunState,
    RunStats,
    count_tasks,
    result_values,
)
from taskserver.errors import DagNotFound, RunExists, RunNotFound, TooLarge
from taskserver.keys import Caller
from taskserver.live import LiveLogs
from taskserver.meters import Waiter
from taskserver.model import (
    MICROSECONDS,
    Chunk,
    NewTask,
    Outcome,
    Place,
    Scope,
    Task,
    checked_outcome,
    new_id,
    now_us,
)
from taskserver.store import RunChange, Store
from taskserver.waiting import Waits
from taskserver.wakeup import Wakeup

T = TypeVar("T")

QUEUE_TOPIC = "queue"

Results = dict[str, Any]


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events ``[first, end)`` of a run, and the run as it stood when they were read."""

    run: Run
    first: int
    end: int
    chunks: Sequence[Chunk]

    @property
    def complete(self) -> bool:
        """The run has ended and these are its last events."""
        return self.run.finished and self.end == self.run.last


class Runs:
    """The dags and runs of a store, for callers with their rights."""

    def __init__(
        self, store: Store, wakeup: Wakeup, waits: Waits, settings: Settings, clock: Callable[[], int] = now_us
    ) -> None:
        self._store = store
        self._wakeup = wakeup
        self._waits = waits
        self._limits = settings.limits
        self._clock = clock
        self._live: LiveLogs[uuid.UUID, Run] = LiveLogs(store, settings.memory)
        self._readings: dict[Hashable, asyncio.Task[Any]] = {}

    # --- dags ----------------------------------------------------------------------

    async def put_dag(
        self, caller: Caller, dag_id: str, *, tasks: Sequence[DagTask], retries: int, display_name: str
    ) -> Dag:
        """Register a dag of the caller's, or replace what it registered. Raises DagExists if it is another owner's."""
        caller.require(Scope.WRITE)
        new = NewDag(dag_id, caller.owner, display_name or dag_id, retries, tuple(tasks))
        return await self._store.put_dag(new, self._clock())

    async def dag(self, caller: Caller, dag_id: str) -> Dag:
        """Raises DagNotFound, also for another owner's dag."""
        caller.require(Scope.READ)
        return _see_dag(caller, await self._store.get_dag(dag_id), dag_id)

    async def dag_of_config(self, caller: Caller, config_id: uuid.UUID) -> Dag:
        """Raises DagNotFound."""
        caller.require(Scope.READ)
        return _see_dag(caller, await self._store.find_dag(config_id), config_id)

    async def dags(self, caller: Caller) -> list[Dag]:
        """The caller's dags (an admin's: everybody's) in order of their ids."""
        caller.require(Scope.READ)
        return await self._store.list_dags(_owner(caller))

    # --- runs ----------------------------------------------------------------------

    async def trigger(self, caller: Caller, new: NewRun, *, once: bool = False) -> Run:
        """Queue a run of one of the caller's dags. Raises DagNotFound, RunExists, TooLarge.

        ``once``: if the dag has a run with this run id, and it was triggered in the
        same words, the call is a repeat and its answer is that run.
        """
        caller.require(Scope.WRITE)
        _see_dag(caller, await self._store.get_dag(new.dag_id), new.dag_id)
        for name, value in (("conf", new.conf), ("metadata", new.metadata)):
            if value is not None and len(value) > self._limits.result_bytes:
                raise TooLarge(f"{name}: larger than {self._limits.result_bytes} bytes of JSON")
        try:
            return await self._store.create_run(new, self._clock())
        except RunExists:
            if not once:
                raise
        run = await self._store.find_run(new.dag_id, new.run_id)
        if (run.conf, run.tag, run.note) != (new.conf, new.tag, new.note):
            raise RunExists(
                f"dag {new.dag_id!r} was triggered with this idempotency key, but in other words",
                {"dag_id": new.dag_id, "run_id": new.run_id},
            )
        return run

    async def get(self, caller: Caller, run_id: uuid.UUID) -> Run:
        """The run as committed last. Raises RunNotFound, also for another owner's run."""
        caller.require(Scope.READ)
        return _see_run(caller, await self.head(run_id), run_id)

    async def head(self, run_id: uuid.UUID) -> Run:
        """The run as committed last, whoever asks: for those who speak to many callers. Raises RunNotFound."""
        return await self._live.head(run_id, self._store.get_run)

    async def find(self, caller: Caller, dag_id: str, run_id: str) -> Run:
        """A dag's run by the name that Airflow's callers know. Raises RunNotFound."""
        caller.require(Scope.READ)
        return _see_run(caller, await self._store.find_run(dag_id, run_id), run_id)

    async def find_tagged(self, caller: Caller, tag: str) -> Run:
        """The caller's newest run with a tag. Raises RunNotFound."""
        caller.require(Scope.READ)
        return await self._store.find_tagged_run(tag, _owner(caller))

    async def list_runs(self, caller: Caller, dag_id: str, limit: int, offset: int) -> tuple[list[Run], int]:
        """Runs of a dag, the oldest first, and how many there are. Raises DagNotFound."""
        await self.dag(caller, dag_id)
        return await self._store.list_runs(dag_id, limit, offset)

    async def cancel(self, caller: Caller, run_id: uuid.UUID) -> Run:
        """Ask a run's claimant and tasks to stop; a queued run ends at once. A repeat changes nothing."""
        await self._own(caller, run_id)
        return await self._store.cancel_run(run_id, self._clock())

    async def delete(self, caller: Caller, run_id: uuid.UUID) -> None:
        """Remove a run with its tasks and their output, whatever its state."""
        await self._own(caller, run_id)
        await self._store.delete_run(run_id)

    # --- producing -----------------------------------------------------------------

    async def claim(
        self, caller: Caller, dag_ids: Collection[str], claim: str | None, lease: float, timeout: float
    ) -> Run | None:
        """The queued run that is due longest, now the caller's to work on; wait up to ``timeout`` seconds for one.

        ``claim`` is a secret of the claimant's choice (None: one is made) that
        proves to the other calls that the run is its. A repeat with it returns
        the same run: an answer that got lost costs nothing. None if there is none.
        """
        caller.require(Scope.WRITE)
        claim = claim or secrets.token_urlsafe(16)
        lease_us, wanted = round(lease * MICROSECONDS), tuple(dag_ids)

        async def look() -> tuple[Run | None, bool]:
            run = await self._store.claim_run(_owner(caller), wanted, claim, lease_us, self._clock())
            return run, run is not None

        return await self._waits.until(caller, QUEUE_TOPIC, timeout, look, Waiter.CLAIM)

    async def heartbeat(self, caller: Caller, run_id: uuid.UUID, claim: str) -> Run:
        """Renew a claim's lease. Raises RunClaimed if it was lost, RunFinished."""
        await self._own(caller, run_id)
        return await self._store.heartbeat_run(run_id, claim, self._clock())

    async def release(self, caller: Caller, run_id: uuid.UUID, claim: str) -> Run:
        """Give a claimed run back. See ``Store.release_run``."""
        await self._own(caller, run_id)
        return await self._store.release_run(run_id, claim, self._clock())

    async def finish(
        self, caller: Caller, run_id: uuid.UUID, claim: str | None, state: RunState | None, error: str
    ) -> Run:
        """End a run in the caller's words; without a state it follows from its tasks. See ``Store.finish_run``."""
        await self._own(caller, run_id)
        return await self._store.finish_run(run_id, claim, state, error, self._clock())

    async def create_task(
        self,
        caller: Caller,
        place: Place,
        *,
        claim: str | None,
        task_id: str | None = None,
        name: str = "",
        lease: float | None = None,
        labels: Mapping[str, str] | None = None,
        outcome: Outcome | None = None,
    ) -> Task:
        """Create a queued task in a run, or with an ``outcome`` one that has ended; it belongs to the run's owner.

        See ``Store.create_task`` for errors.
        """
        run = await self._own(caller, place.run)
        lease_us = None if lease is None else round(lease * MICROSECONDS)
        new = NewTask(
            task_id or new_id(),
            run.owner,
            name or place.task_id,
            lease_us,
            labels or {},
            place,
            claim,
            None if outcome is None else checked_outcome(outcome, self._limits.result_bytes),
        )
        return await self._store.create_task(new, self._clock())

    # --- waiting -------------------------------------------------------------------

    async def wait_end(self, caller: Caller, run_id: uuid.UUID, timeout: float) -> Run:
        """The run once it has ended, ``timeout`` seconds have passed or the server drains. Raises TooManyWaiters."""

        async def look() -> tuple[Run, bool]:
            run = await self.get(caller, run_id)
            return run, run.finished

        return await self._waits.until(caller, run_topic(run_id), timeout, look)

    async def beats(
        self, caller: Caller, run_id: uuid.UUID, timeout: float, heartbeat: float
    ) -> AsyncGenerator[tuple[Run, bool], None]:
        """The run every ``heartbeat`` seconds, and at once when the wait is over, as the flag tells.

        It is over when the run has ended, ``timeout`` seconds have passed or the
        server drains. Raises TooManyWaiters before the first beat.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout

        async def look() -> tuple[Run, bool]:
            run = await self.get(caller, run_id)
            return run, run.finished

        over = False
        with self._waits.open(caller, run_topic(run_id), Waiter.EXECUTION) as wait:
            while not over:
                run, ended = await wait.until(min(heartbeat, deadline - loop.time()), look)
                over = ended or self._waits.draining or loop.time() >= deadline
                yield run, over

    async def events(
        self, caller: Caller, run_id: uuid.UUID, first: int, timeout: float, heartbeat: float
    ) -> AsyncGenerator[EventPage, None]:
        """A run's events from ``first`` on as they come, until all are told or ``timeout`` seconds have passed.

        The first page comes at once, an empty one whenever nothing came for
        ``heartbeat`` seconds, and a complete one last if the run has ended.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout

        async def look() -> tuple[Run, bool]:
            run = await self.get(caller, run_id)
            return run, run.finished or run.last > first

        with self._waits.open(caller, events_topic(run_id), Waiter.EVENTS) as wait:
            quiet = 0.0  # the first page comes at once
            while True:
                run, _ = await wait.until(min(quiet, deadline - loop.time()), look)
                nothing = run.last <= first
                async with aclosing(self._live.read(run.id, run.log, first, run.last)) as pages:
                    async for chunks in pages:
                        yield EventPage(run, first, chunks[-1].end, chunks)
                        first = chunks[-1].end
                if first < run.last:
                    raise RunNotFound(f"run {str(run_id)!r} was deleted while it was being read")
                if nothing:
                    yield EventPage(run, first, first, ())
                if self._waits.draining or run.finished or loop.time() >= deadline:
                    return
                quiet = heartbeat

    # --- what came out -------------------------------------------------------------

    async def tasks(self, caller: Caller, run: Run) -> list[Task]:
        """A run's tasks in the order of their creation, without results."""
        return await self._store.run_tasks(_see_run(caller, run, run.id).id)

    async def stats(self, caller: Caller, run: Run) -> RunStats:
        """A run's tasks counted by state."""
        _see_run(caller, run, run.id)

        async def read() -> RunStats:
            return count_tasks(await self._store.run_tasks(run.id))

        return await self._share(("stats", run.id, run.state, run.last), read)

    async def results(self, run: Run, wanted: tuple[str, ...] | None) -> Results:
        """The values of a finished run's tasks by task id, sorted; of ``wanted``, or (None) of those marked as results.

        See ``dagmodel.result_values``. The answer is shared and must not be changed.
        """
        task_ids = tuple(task.task_id for task in run.tasks if task.result) if wanted is None else wanted

        async def read() -> Results:
            return result_values(run, await self._store.run_tasks(run.id, task_ids)) if task_ids else {}

        return await self._share(("results", run.id, task_ids), read)

    async def _share(self, key: Hashable, read: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What ``read`` answers; waiters that are told of the same end at the same moment share one reading."""
        reading = self._readings.get(key)
        if reading is None:
            reading = self._readings[key] = asyncio.create_task(read())
            reading.add_done_callback(lambda _: self._readings.pop(key))
        answer: T = await asyncio.shield(reading)
        return answer

    # --- plumbing ------------------------------------------------------------------

    async def _own(self, caller: Caller, run_id: uuid.UUID) -> Run:
        caller.require(Scope.WRITE)
        return _see_run(caller, await self.head(run_id), run_id)

    def committed(self, changes: Sequence[RunChange]) -> None:
        """Take over what was committed, then tell those who wait for it."""
        topics: dict[str, None] = {}
        for change in changes:
            run = change.run
            if change.deleted:
                self._live.forget(run.id)
            else:
                self._live.apply(run.id, run, change.chunk)
            if run.state is RunState.QUEUED:
                topics[QUEUE_TOPIC] = None
            if change.chunk is not None or run.finished or change.deleted:
                topics[events_topic(run.id)] = None
            if run.finished or change.deleted:
                topics[run_topic(run.id)] = None
        self._wakeup.publish(topics)


def run_topic(run_id: uuid.UUID) -> str:
    """The wake-up of those who wait for a run's end: events and heartbeats leave them asleep."""
    return f"run:{run_id}"


def events_topic(run_id: uuid.UUID) -> str:
    """The wake-up of those who follow a run's events."""
    return f"events:{run_id}"


def _owner(caller: Caller) -> str | None:
    return None if caller.is_admin else caller.owner


# The refusals name what was asked for, and nothing that only the owner knows.


def _see_dag(caller: Caller, dag: Dag, asked: str | uuid.UUID) -> Dag:
    if dag.owner != caller.owner and not caller.is_admin:
        raise DagNotFound(f"there is no dag {str(asked)!r}")
    return dag


def _see_run(caller: Caller, run: Run, asked: str | uuid.UUID) -> Run:
    if run.owner != caller.owner and not caller.is_admin:
        raise RunNotFound(f"there is no run {str(asked)!r}")
    return run
