"""SQLite: what has ended without output gives the sealer nothing to do."""

from __future__ import annotations

from taskserver.model import NewTask, Outcome, TaskState
from taskserver.store import Store


async def test_a_task_that_was_created_when_it_had_ended_is_sealed(store: Store) -> None:
    task = await store.create_task(NewTask("quick", "ann", outcome=Outcome(0)), 1)
    assert await store.get_task("quick") == task
    assert task.state is TaskState.SUCCESS
    assert await store.unsealed(10) == []
