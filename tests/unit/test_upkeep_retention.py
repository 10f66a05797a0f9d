"""Upkeep: what has ended long enough ago goes, and what deleted tasks left."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from taskserver.config import Timing
from taskserver.encoding import encode_lines
from taskserver.errors import StoreUnavailable
from taskserver.model import NewTask, Outcome
from taskserver.store import Ended, Store
from taskserver.upkeep import Upkeep
from tests.eventually import eventually
from tests.unit.clock import Clock

OFTEN = Timing(retention=0.01)
KEEP = 60


@asynccontextmanager
async def looked_after(
    store: Store, clock: Clock, keep: int | None = KEEP, timing: Timing = OFTEN
) -> AsyncIterator[None]:
    upkeep = Upkeep(store, timing, clock, keep_finished=keep)
    store.listen(upkeep.committed)
    await upkeep.start()
    try:
        yield
    finally:
        await upkeep.close()


async def end(store: Store, clock: Clock, *ids: str) -> None:
    for task_id in ids:
        await store.create_task(NewTask(task_id, "ann"), clock())
        await store.finish(task_id, Outcome(), clock(), encode_lines(["x", "y"], clock()))


class Table:
    """The database file, as another process sees it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def ids(self) -> set[str]:
        return {row[0] for row in self._connection.execute("SELECT id FROM task")}

    def rows(self, table: str) -> int:
        return int(self._connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


@contextmanager
def looking(folder: Path) -> Iterator[Table]:
    with closing(sqlite3.connect(folder / "tasks.db", isolation_level=None)) as connection:
        yield Table(connection)


async def test_tasks_go_when_their_time_has_come(store: Store, clock: Clock, tmp_path: Path) -> None:
    await end(store, clock, *(f"old-{number}" for number in range(70)))
    async with looked_after(store, clock):
        clock.pass_seconds(30)
        await end(store, clock, "later")
        await store.create_task(NewTask("live", "ann"), clock())
        clock.pass_seconds(KEEP - 30 + 1)
        with looking(tmp_path) as table:
            await eventually(lambda: table.ids() == {"later", "live"})
            await eventually(lambda: table.rows("discarded") == 0)
            assert table.rows("chunk") == 1
            clock.pass_seconds(30)
            await eventually(lambda: table.ids() == {"live"})


async def test_without_a_time_nothing_goes_but_what_is_deleted(store: Store, clock: Clock, tmp_path: Path) -> None:
    await end(store, clock, "old", "deleted")
    clock.pass_seconds(10**8)
    async with looked_after(store, clock, keep=None, timing=Timing(retention=3600)):
        await store.delete_task("deleted")
        with looking(tmp_path) as table:
            await eventually(lambda: table.rows("chunk") == 1)
            await eventually(lambda: table.rows("discarded") == 0)
            assert table.ids() == {"old"}


async def test_what_a_server_left_that_was_killed_is_found_at_the_start(
    store: Store, clock: Clock, tmp_path: Path
) -> None:
    await end(store, clock, "deleted")
    await store.delete_task("deleted")
    with looking(tmp_path) as table:
        assert (table.rows("chunk"), table.rows("discarded")) == (1, 1)
        async with looked_after(store, clock, keep=None, timing=Timing(retention=3600)):
            await eventually(lambda: table.rows("discarded") == 0)
            assert table.rows("chunk") == 0


class FailingOnce:
    """A store whose first removal fails, as on a full disk."""

    def __init__(self, store: Store, error: Exception) -> None:
        self._store = store
        self._error = error
        self.failures = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def prune(self, before: int, limit: int) -> Ended:
        if not self.failures:
            self.failures += 1
            raise self._error
        return await self._store.prune(before, limit)


@pytest.mark.parametrize("error", [StoreUnavailable("the disk is full"), LookupError("which nobody foresaw")], ids=str)
async def test_a_failure_is_logged_and_tried_again(
    store: Store, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    await end(store, clock, "old")
    clock.pass_seconds(KEEP + 1)
    with caplog.at_level(logging.INFO):
        async with looked_after(cast(Store, FailingOnce(store, error)), clock):
            with looking(tmp_path) as table:
                await eventually(lambda: table.ids() == set())
                await eventually(lambda: "removed 1 tasks" in caplog.text)
    assert f"cannot remove old tasks: {error}" in caplog.text
