"""A long output that has ended."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from pathlib import Path

from tests.bench.load import ANSWER_LIMIT, LoadError, answer, connections
from tests.bench.prepared import DATABASE, Prepared
from tests.bench.samples import text
from tests.bench.servers import Bench
from tests.bench.wire import build_chunk

TASK = "bench"
PIECE = 1000  # lines in a chunk of the body that brings them
SEAL_LIMIT = 120.0  # seconds
SEAL_LOOK = 0.1


class Archive(Prepared):
    """A finished and sealed task of ``lines`` lines (scaled), made by our own server."""

    def __init__(self, lines: int) -> None:
        super().__init__()
        self.lines = lines

    def size(self, bench: Bench) -> int:
        """How many lines there are."""
        return bench.scaled(self.lines)

    async def fill(self, bench: Bench, folder: Path) -> None:
        with bench.ours_in(folder) as target:
            async with connections(target.port, 1) as (client,):
                await client.ask(target.post("/v1/tasks", b'{"id": "%s"}' % TASK.encode(), "application/json"))
                response = client.expect()
                client.send(target.post_chunked(f"/v1/tasks/{TASK}/output"))
                lines = self.size(bench)
                for first in range(0, lines, PIECE):
                    client.send(build_chunk(text(first, min(PIECE, lines - first))))
                    await asyncio.wait_for(client.drain(), ANSWER_LIMIT)
                client.send(build_chunk(b""))
                await answer(response)
                await client.ask(target.post(f"/v1/tasks/{TASK}/finish", b'{"code": 0}', "application/json"))
            await sealed(folder / DATABASE)


async def sealed(file: Path) -> None:
    """Return when the server has sealed the only task. Raises LoadError if it takes too long."""
    deadline = time.monotonic() + SEAL_LIMIT
    with contextlib.closing(sqlite3.connect(file)) as database:
        while database.execute("SELECT sealed FROM task").fetchall() != [(1,)]:
            if time.monotonic() > deadline:
                raise LoadError(f"the task was not sealed within {SEAL_LIMIT:.0f} s")
            await asyncio.sleep(SEAL_LOOK)
