"""What output that has ended takes on the disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import sys
from pathlib import Path

from tests.bench.archive import TASK, sealed
from tests.bench.figure import Figure, Goal, Metric, Sample
from tests.bench.figures.follow import download
from tests.bench.load import LoadError
from tests.bench.prepared import DATABASE, Prepared
from tests.bench.servers import REPOSITORY, Bench

COPY = "build.log"  # beside the database: the output as it was
BUILD_LIMIT = 500.0  # seconds
NO_CHUNKS = "DELETE FROM chunk"
HAS_DBSTAT = bool(
    sqlite3.connect(":memory:").execute("SELECT sqlite_compileoption_used('ENABLE_DBSTAT_VTAB')").fetchone()[0]
)


class Build(Prepared):
    """The output of a build that ``taskserver run`` has brought, with the times that its lines really have."""

    async def fill(self, bench: Bench, folder: Path) -> None:
        command = bench.build or f'"{sys.executable}" -m tests.bench.build "{folder}/bytecode"'
        with bench.ours_in(folder) as target:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "taskserver", "run", "--id", TASK, "--", "sh", "-c", command),
                cwd=REPOSITORY,
                env={**os.environ, "TASKSERVER_URL": f"http://127.0.0.1:{target.port}", "TASKSERVER_KEY": target.key},
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                await asyncio.wait_for(process.wait(), BUILD_LIMIT)  # its exit code does not matter: its output does
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            await sealed(folder / DATABASE)
            with (folder / COPY).open("wb") as file:
                if not await download(target, f"/v1/tasks/{TASK}/output?format=text", file):
                    raise LoadError(f"nothing was printed by: {command}")


class Disk(Figure):
    """Bytes on the disk beside bytes of text."""

    name = "disk"
    beside = "raw text"
    against = "the same lines as a text file"
    note = (
        "One build's output, brought by `taskserver run`, ended and sealed: the bytes of the chunk rows, times and"
        " streams of the lines included, "
        + (
            "as SQLite's dbstat table counts their pages"
            if HAS_DBSTAT
            else "as the difference between copies of the database with and without them, both vacuumed"
        )
        + ". The build, if --build names no other: all installed packages compiled to bytecode, some imported with the"
        " import system's trace on (python -v), and some 400 tests run by pytest -v; about 10,000 lines."
    )
    metrics = (
        Metric("line", "", "bytes/line", more_is_better=False),
        Metric("side", "times and streams", "bytes/line", more_is_better=False, has_ratio=False),
    )
    goals = (Goal("line", 0.12),)

    def __init__(self) -> None:
        self._build = Build()

    async def prepare(self, bench: Bench) -> None:
        await self._build.folder(bench)

    async def ours(self, bench: Bench) -> Sample:
        async with self._build.copy(bench) as folder:
            with contextlib.closing(sqlite3.connect(folder / DATABASE)) as database:
                lines, side = database.execute("SELECT sum(count), sum(length(side)) FROM chunk").fetchone()
                size = _dbstat(database) if HAS_DBSTAT else _vacuumed_difference(database, folder / DATABASE)
        return {"line": size / lines, "side": side / lines}

    async def yardstick(self, bench: Bench) -> Sample:
        text = (await self._build.folder(bench) / COPY).read_bytes()
        return {"line": len(text) / text.count(b"\n"), "side": 0.0}


def _dbstat(database: sqlite3.Connection) -> int:
    size: int = database.execute("SELECT sum(pgsize) FROM dbstat WHERE name = 'chunk'").fetchone()[0]
    return size


def _vacuumed_difference(database: sqlite3.Connection, file: Path) -> int:
    sizes = []
    for statement in ("SELECT 1", NO_CHUNKS):
        database.execute(statement)
        database.commit()
        database.execute("VACUUM")
        sizes.append(file.stat().st_size)
    return sizes[0] - sizes[1]


FIGURES = [Disk()]
