"""Programs that use PostgreSQL without a server of ours, each in a process of its own.

`python -m tests.bench.plain WHAT URL SECONDS [FILE]` prints its numbers as JSON:

- ``inserts``: CONNECTIONS connections of asyncpg, each inserting a row at a time, which autocommits;
- ``store``: as many producers of one line each on our own store, without HTTP;
- ``copy``: COPY of the chunks in a file, a group of them per commit, again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import pickle
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

from taskserver.encoding import encode_lines
from taskserver.model import NewTask, now_us
from taskserver.stores import open_store
from tests.bench.load import WARM_UP
from tests.bench.samples import line

CONNECTIONS = 32
COPIED_ROWS = 32  # per COPY: what a group of that many producers brings
# As ours: the same columns and key, nothing compressed by the database.
TABLE = """
DROP TABLE IF EXISTS plain;
CREATE TABLE plain (
    log bigint NOT NULL, first bigint NOT NULL, count integer NOT NULL, codec smallint NOT NULL,
    payload bytea NOT NULL, side bytea NOT NULL, PRIMARY KEY (log, first)
);
ALTER TABLE plain ALTER COLUMN payload SET STORAGE EXTERNAL;
ALTER TABLE plain ALTER COLUMN side SET STORAGE EXTERNAL
"""
INSERT = "INSERT INTO plain VALUES ($1, $2, $3, $4, $5, $6)"

StoredChunk = tuple[int, int, bytes, bytes]
"""Count, codec, payload and side, as they lie in the chunk table."""

Step = Callable[[int, int], Awaitable[int]]
"""Does the work of a worker's turn; how much that was."""


async def measure(workers: int, step: Step, seconds: float) -> dict[str, float]:
    """Let workers take step after step; how much they did a second, and what it cost this process."""
    done, stopping = 0, False

    async def work(worker: int) -> None:
        nonlocal done
        turn = 0
        while not stopping:
            did = await step(worker, turn)
            done += did  # not in one expression: others count meanwhile
            turn += 1

    working = [asyncio.create_task(work(worker)) for worker in range(workers)]
    await asyncio.sleep(WARM_UP)
    count, start, cpu = done, time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    count, elapsed, cpu = done - count, time.perf_counter() - start, time.process_time() - cpu
    stopping = True
    await asyncio.gather(*working)
    return {"rate": count / elapsed, "cpu": 1e6 * cpu / max(1, count), "share": cpu / elapsed}


async def inserts(url: str, seconds: float) -> dict[str, float]:
    """Rows a second."""
    async with contextlib.AsyncExitStack() as stack:
        await (await _connect(stack, url)).execute(TABLE)
        statements = [await (await _connect(stack, url)).prepare(INSERT) for _ in range(CONNECTIONS)]
        rows = [encode_lines([line(number)], now_us()) for number in range(CONNECTIONS)]

        async def step(worker: int, turn: int) -> int:
            await statements[worker].fetch(worker, turn, 1, 0, rows[worker].payload, rows[worker].side)
            return 1

        return await measure(CONNECTIONS, step, seconds)


async def store(url: str, seconds: float) -> dict[str, float]:
    """Appends a second."""
    opened = await open_store(url)
    try:
        for number in range(CONNECTIONS):
            await opened.create_task(NewTask(f"bench{number}", "bench"), now_us())

        async def step(worker: int, turn: int) -> int:
            await opened.append(f"bench{worker}", encode_lines([line(worker)], now_us()), turn, now_us())
            return 1

        return await measure(CONNECTIONS, step, seconds)
    finally:
        await opened.close()


async def copy(url: str, seconds: float, chunks_file: str) -> dict[str, float]:
    """Lines a second."""
    chunks: list[StoredChunk] = pickle.loads(await asyncio.to_thread(Path(chunks_file).read_bytes))
    async with contextlib.AsyncExitStack() as stack:
        connection = await _connect(stack, url)
        await connection.execute(TABLE)
        last = 0

        async def step(worker: int, turn: int) -> int:
            nonlocal last
            records, begun = [], last
            for number in range(COPIED_ROWS):
                chunk = chunks[(turn * COPIED_ROWS + number) % len(chunks)]
                records.append((0, last, *chunk))
                last += chunk[0]
            await connection.copy_records_to_table("plain", records=records)
            return last - begun

        return await measure(1, step, seconds)


async def _connect(stack: contextlib.AsyncExitStack, url: str) -> Any:
    connection = await asyncpg.connect(url)
    stack.push_async_callback(connection.close)
    return connection


PROGRAMS: dict[str, Callable[..., Coroutine[Any, Any, dict[str, float]]]] = {
    "inserts": inserts,
    "store": store,
    "copy": copy,
}


if __name__ == "__main__":
    what, url, seconds, *more = sys.argv[1:]
    print(json.dumps(uvloop.run(PROGRAMS[what](url, float(seconds), *more))))  # noqa: T201 - this program's output
