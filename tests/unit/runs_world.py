"""Runs on an empty store, and what their owner does with them."""

from __future__ import annotations

from typing import Any

import orjson

from taskserver.config import Settings
from taskserver.dagmodel import Dag, DagTask, NewRun, Run, RunState, manual_run_id, uuid7
from taskserver.keys import Caller
from taskserver.model import ApiKey, Outcome, Place, Scope, Task, now_us
from taskserver.runs import Runs
from taskserver.store import Store
from taskserver.web.app import make_services
from tests.eventually import eventually

LIMIT = 20.0  # seconds; reached only by a failure
LONG = 60.0
CLAIM = "claim-of-a-worker"
TASKS = (DagTask("extract"), DagTask("load", result=True), DagTask("split", result=True, mapped=True))


def caller(owner: str, *scopes: Scope) -> Caller:
    granted = frozenset(scopes or (Scope.READ, Scope.WRITE))
    return Caller(ApiKey(f"key of {owner}", owner, owner, granted, b"", now_us()))


ANN, BOB, ADMIN = caller("ann"), caller("bob"), caller("root", Scope.ADMIN)
READER, WRITER = caller("ann", Scope.READ), caller("ann", Scope.WRITE)


class World:
    """Runs on an empty store, and what Ann does with them."""

    def __init__(self, store: Store, settings: Settings) -> None:
        services = make_services(settings, store)
        self.store = store
        self.runs: Runs = services.runs
        self.tasks = services.tasks
        self.waits = services.waits

    async def register(self, dag_id: str = "etl", who: Caller = ANN, retries: int = 0) -> Dag:
        return await self.runs.put_dag(who, dag_id, tasks=TASKS, retries=retries, display_name="")

    async def trigger(self, dag_id: str = "etl", who: Caller = ANN, **wish: Any) -> Run:
        now = now_us()
        return await self.runs.trigger(who, NewRun(uuid7(now), manual_run_id(now), who.name, dag_id, **wish))

    async def queued(self) -> Run:
        await self.register()
        return await self.trigger()

    async def claimed(self) -> Run:
        await self.queued()
        run = await self.runs.claim(ANN, (), CLAIM, LONG, 0)
        assert run is not None
        return run

    async def task(self, run: Run, task_id: str = "extract", map_index: int = -1, try_number: int = 1) -> Task:
        return await self.runs.create_task(ANN, Place(run.id, task_id, map_index, try_number), claim=run.claim)

    async def done(self, run: Run, task_id: str, value: Any = None, code: int = 0, **place: int) -> Task:
        """A task that has ended with this value."""
        task = await self.task(run, task_id, **place)
        result = orjson.dumps({"type": "json", "data": value})
        return await self.tasks.finish(ANN, task.id, Outcome(code, result=result))

    async def end(self, run: Run, state: RunState | None = None) -> Run:
        return await self.runs.finish(ANN, run.id, run.claim, state, "")

    async def ended(self, run: Run, who: Caller = ANN) -> Run:
        """Wait for a run's end."""
        return [now async for now, _ in self.runs.beats(who, run.id, LONG, LONG)][-1]

    async def waiting(self, count: int = 1) -> None:
        """Wait until so many wait."""
        await eventually(lambda: self.waits.count == count, f"{count} waits")
