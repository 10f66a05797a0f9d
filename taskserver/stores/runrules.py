"""What may happen to a run, and what it then is: the rules that all stores follow, without I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from taskserver.dagmodel import Dag, NewRun, Run, RunState, derived_state
from taskserver.encoding import SEPARATOR
from taskserver.errors import DagExists, DagNotFound, RunClaimed, RunExists, RunFinished, RunNotFound, TasksRunning
from taskserver.model import Chunk, Task, lease_end
from taskserver.stores.taskrules import lost

GIVEN_BACK = "claimant lost: it gave the run back while tasks were running"


def no_dag(dag_id: str) -> DagNotFound:
    """The error for a dag that there is not."""
    return DagNotFound(f"there is no dag {dag_id!r}")


def no_run(name: object) -> RunNotFound:
    """The error for a run that there is not."""
    return RunNotFound(f"there is no run {str(name)!r}")


def dag_taken(dag_id: str) -> DagExists:
    """The error for a dag whose id is another owner's."""
    return DagExists(f"dag id {dag_id!r} is taken", {"dag_id": dag_id})


def run_taken(new: NewRun) -> RunExists:
    """The error for a run whose id or logical date another one of its dag has."""
    return RunExists(
        f"dag {new.dag_id!r} has a run with this run id or logical date already",
        {"dag_id": new.dag_id, "run_id": new.run_id},
    )


def new_run(new: NewRun, dag: Dag, log: int, now: int) -> Run:
    """A run as it begins."""
    return Run(
        id=new.id,
        log=log,
        owner=dag.owner,
        dag_id=dag.dag_id,
        run_id=new.run_id,
        state=RunState.QUEUED,
        tasks=dag.tasks,
        conf=new.conf,
        retries=dag.retries,
        queued_at=now,
        run_after=now if new.run_after is None else new.run_after,
        display_name=dag.display_name,
        triggered_by=new.triggered_by,
        metadata=new.metadata,
        tag=new.tag,
        note=new.note,
        partition_key=new.partition_key,
        logical_date=new.logical_date,
        data_interval_start=new.data_interval_start,
        data_interval_end=new.data_interval_end,
    )


def check_open(run: Run, claim: str | None) -> None:
    """Raise unless the run has not ended and this is its claimant (None: it has none)."""
    if run.finished:
        raise RunFinished(f"run {str(run.id)!r} has ended as {run.state.value}", {"state": run.state.value})
    if run.claim != claim:
        raise RunClaimed(f"run {str(run.id)!r} is not claimed with this claim", {"state": run.state.value})


def claimed(run: Run, claim: str, lease_us: int, now: int) -> Run:
    """A run that was queued, in its claimant's hands."""
    return replace(
        run,
        state=RunState.RUNNING,
        started_at=now if run.started_at is None else run.started_at,
        attempt=run.attempt + 1,
        claim=claim,
        lease_us=lease_us,
        lease_expires_at=lease_end(now, lease_us),
    )


def heard_of(run: Run, now: int) -> Run:
    """A run whose claimant has been heard."""
    return replace(run, lease_expires_at=lease_end(now, run.lease_us))


def started_by(run: Run, task: Task) -> Run:
    """A run after a transition of one of its tasks: the first one that starts, starts it."""
    if task.started_at is None or run.state is not RunState.QUEUED:
        return run
    return replace(run, state=RunState.RUNNING, started_at=run.started_at or task.started_at)


def finished(run: Run, claim: str | None, state: RunState | None, error: str, tasks: Sequence[Task], now: int) -> Run:
    """A run whose claimant says that it is over, and how if it likes; the same run if it had ended so before.

    Raises RunFinished, RunClaimed; TasksRunning if its tasks are to tell how, and some still run.
    """
    if state is None and all(task.finished for task in tasks):
        state = derived_state(tasks)
    if state is RunState.FAILED and run.cancel_requested:
        state = RunState.CANCELLED
    if run.finished and (run.claim, run.state, run.error) == (claim, state, error):
        return run
    check_open(run, claim)
    if state is None:
        raise TasksRunning("some of the run's tasks still run; end them first, or say how the run has ended")
    return _ended(run, state, error, now)


def cancelled(run: Run, now: int) -> Run:
    """A run that was asked to stop: at once if nobody has begun it."""
    asked = replace(run, cancel_requested=True)
    if run.state is not RunState.QUEUED:
        return asked
    return _ended(asked, RunState.CANCELLED, "cancelled while it was queued", now)


def claimant_lost(run: Run) -> str:
    """The error of a run whose claimant is lost, and of its tasks."""
    return lost("claimant", run.lease_us)


def without_claimant(run: Run, now: int, error: str = "") -> Run:
    """A run whose claimant is lost: offered again if it has retries left, or ended."""
    if run.attempt <= run.retries and not run.cancel_requested:
        return _offered_again(run)
    return _ended(run, RunState.INTERRUPTED, error or claimant_lost(run), now)


def given_back(run: Run, live: bool, now: int) -> Run:
    """A run whose claimant does not want it any more: with ``live`` tasks or a wish to stop, that is a loss."""
    if live or run.cancel_requested:
        return without_claimant(run, now, GIVEN_BACK)
    return replace(_offered_again(run), retries=run.retries + 1)  # this claim is none that was lost


def _offered_again(run: Run) -> Run:
    return replace(run, state=RunState.QUEUED, claim=None, lease_us=None, lease_expires_at=None)


def committed(run: Run, events: Sequence[bytes]) -> tuple[Run, Chunk | None]:
    """A changed run as it is to be stored, with the chunk of its new events."""
    run = replace(run, version=run.version + 1)
    if not events:
        return run, None
    chunk = Chunk(run.last, len(events), SEPARATOR.join(events))
    return replace(run, last=chunk.end), chunk


def _ended(run: Run, state: RunState, error: str, now: int) -> Run:
    return replace(run, state=state, error=error, finished_at=now, lease_expires_at=None)
