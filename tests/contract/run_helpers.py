"""The words of the contract tests about dags and runs."""

from __future__ import annotations

import itertools
from typing import Any

from taskserver.dagmodel import Dag, DagTask, NewDag, NewRun, Run, uuid7
from taskserver.encoding import decode_texts
from taskserver.model import NewTask, Outcome, Place, Task
from taskserver.store import Store
from tests.contract.helpers import NOW, SECOND, chunks

CLAIM = "claim-of-a-worker"
OTHER = "claim-of-another-worker"
LEASE = 30  # seconds

TASKS = (DagTask("extract"), DagTask("load", result=True), DagTask("split", result=True, mapped=True))

_numbers = itertools.count()


async def register(
    store: Store,
    dag_id: str = "etl",
    *,
    owner: str = "ann",
    retries: int = 0,
    tasks: tuple[DagTask, ...] = TASKS,
    now: int = NOW,
) -> Dag:
    return await store.put_dag(NewDag(dag_id, owner, dag_id.upper(), retries, tasks), now)


async def trigger(store: Store, dag_id: str = "etl", run_id: str | None = None, *, now: int = NOW, **wish: Any) -> Run:
    """A queued run; without a ``run_id`` it gets one that no other has."""
    new = NewRun(uuid7(now), run_id or f"run-{next(_numbers)}", "ann's key", dag_id, **wish)
    return await store.create_run(new, now)


async def queued(store: Store, *, retries: int = 0) -> Run:
    """A queued run of a new dag."""
    await register(store, retries=retries)
    return await trigger(store)


async def claim(
    store: Store, secret: str = CLAIM, *dag_ids: str, owner: str | None = "ann", lease: int = LEASE, now: int = NOW
) -> Run | None:
    return await store.claim_run(owner, dag_ids, secret, lease * SECOND, now)


async def claimed(store: Store, *, retries: int = 0, now: int = NOW) -> Run:
    """A run of a new dag that is worked on with CLAIM."""
    await queued(store, retries=retries)
    run = await claim(store, now=now)
    assert run is not None
    return run


async def add_task(
    store: Store,
    run: Run,
    task_id: str = "extract",
    *,
    map_index: int = -1,
    try_number: int = 1,
    secret: str | None = CLAIM,
    lease: int | None = None,
    now: int = NOW,
) -> Task:
    """A queued task in a run; ``lease`` is in seconds."""
    place = Place(run.id, task_id, map_index, try_number)
    lease_us = None if lease is None else lease * SECOND
    new = NewTask(f"task-{next(_numbers)}", run.owner, task_id, lease_us, place=place, claim=secret)
    return await store.create_task(new, now)


async def finished_task(
    store: Store, run: Run, task_id: str = "extract", *, outcome: Outcome | None = None, now: int = NOW, **more: Any
) -> Task:
    """A task of a run that has ended, well unless ``outcome`` says otherwise."""
    task = await add_task(store, run, task_id, now=now, **more)
    return await store.finish(task.id, outcome or Outcome(), now)


async def events(store: Store, run: Run, first: int = 0) -> list[dict[str, Any]]:
    """A run's events from ``first`` on; checks that they are dense and as many as the run says."""
    last = (await store.get_run(run.id)).last
    found: list[Any] = []
    for chunk in await chunks(store, run.log, first, last):
        found += decode_texts(chunk.payload)
    assert len(found) == last - first
    return found


async def story(store: Store, run: Run, first: int = 0) -> list[tuple[str, str]]:
    """A run's events as pairs of task id and state."""
    return [(event["task_id"], event["status"]) for event in await events(store, run, first)]
