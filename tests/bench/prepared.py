"""Databases that are made once and measured often."""

from __future__ import annotations

import abc
import asyncio
import atexit
import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from taskserver.encoding import encode_lines
from taskserver.model import NewTask, Outcome, new_id, now_us
from taskserver.store import Store
from taskserver.stores import open_store
from tests.bench.samples import line
from tests.bench.servers import Bench

DATABASE = "tasks.db"
BATCH = 500  # tasks that are written at the same time: they share commits
LIVE_EVERY = 100  # of so many stored tasks one is still running
OWNER = "bench"


class Prepared(abc.ABC):
    """A folder with a database, made when it is first asked for, and gone with the process."""

    def __init__(self) -> None:
        self._folder: Path | None = None

    async def folder(self, bench: Bench) -> Path:
        """Where the database lies; ``Bench.ours_in`` serves it."""
        if self._folder is None:
            directory = tempfile.TemporaryDirectory(dir=bench.folder)
            atexit.register(directory.cleanup)
            folder = Path(directory.name)
            await self.fill(bench, folder)
            _checkpoint(folder / DATABASE)
            self._folder = folder
        return self._folder

    @contextlib.asynccontextmanager
    async def copy(self, bench: Bench) -> AsyncIterator[Path]:
        """A folder with a copy of the database, on the disk as a whole: what is written there is gone afterwards."""
        original = await self.folder(bench) / DATABASE
        with bench.scratch() as folder:
            await asyncio.to_thread(_copy, original, folder / DATABASE)
            yield folder

    @abc.abstractmethod
    async def fill(self, bench: Bench, folder: Path) -> None:
        """Make the database DATABASE in the folder."""


class Stored(Prepared):
    """``tasks`` tasks (scaled) with ``lines`` lines each, all but one of LIVE_EVERY ended; sealed, or left to be."""

    def __init__(self, tasks: int, lines: int, *, is_sealed: bool) -> None:
        super().__init__()
        self._tasks = tasks
        self._lines = lines
        self._is_sealed = is_sealed

    async def fill(self, bench: Bench, folder: Path) -> None:
        # The server's own store writes it, but nobody waits for the disk here.
        store = await open_store(f"sqlite:///{folder}/{DATABASE}", synchronous="normal")
        try:
            tasks = bench.scaled(self._tasks)
            for first in range(0, tasks, BATCH):
                numbers = range(first, min(first + BATCH, tasks))
                await asyncio.gather(*(self._write(store, number) for number in numbers))
        finally:
            await store.close()

    async def _write(self, store: Store, number: int) -> None:
        new = NewTask(new_id(), OWNER, name=f"build {number % 1000}", labels={"branch": f"feature-{number % 50}"})
        task = await store.create_task(new, now_us())
        begin = number * self._lines
        lines = encode_lines([line(each) for each in range(begin, begin + self._lines)], now_us())
        if number % LIVE_EVERY == LIVE_EVERY - 1:
            await store.append(task.id, lines, 0, now_us())
            return
        await store.finish(task.id, Outcome(), now_us(), lines)
        if self._is_sealed:
            await store.seal(task.log)


def _checkpoint(file: Path) -> None:
    """Bring everything into the database's one file: a server that was killed leaves some of it beside."""
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb+") as file:
        os.fsync(file.fileno())  # else a commit of what is measured would wait for it
