"""Bulk ingest: many lines at a time."""

from __future__ import annotations

import abc
import asyncio
import sqlite3
import time
from pathlib import Path

from taskserver.stores.sqlite.file import DatabaseFile
from taskserver.stores.sqlite.rows import INSERT_CHUNK, chunk_key
from tests.bench.figure import CLIENT_CPU, Figure, Goal, Metric, Sample
from tests.bench.load import ANSWER_LIMIT, Connection, answer, closed_loop, connections
from tests.bench.samples import text
from tests.bench.servers import SYNCHRONOUS, Bench, Target
from tests.bench.wire import build_chunk

LINES = 100  # in a request
PIECE = 200  # lines in a chunk of a live body: some 16 KiB
KEPT_CHUNKS = 1000  # written again and again by the yardstick
WARM_UP_COMMITS = 50
MAKE_TASK = "INSERT INTO task (log, id, owner, name, state, created_at) VALUES (?, 'bench', '', '', 'running', 0)"
LOG = 1  # of the yardstick's only task

StoredChunk = tuple[int, int, bytes, bytes]
"""Count, codec, payload and side, as they lie in the chunk table."""


class Bulk(Figure):
    """Lines per second; the yardstick writes the very chunks that ours left in its database."""

    against = (
        "a plain sqlite3 loop, no HTTP and nothing to encode, that writes the same chunks into the same schema with the"
        f" same settings (synchronous={SYNCHRONOUS}), one chunk row and one task update per commit"
    )
    beside = "sqlite3 loop"
    metrics = (Metric("rate", "", "lines/s", more_is_better=True),)
    goals = (Goal("rate", 0.5),)

    def __init__(self) -> None:
        self._chunks: list[StoredChunk] = []

    async def ours(self, bench: Bench) -> Sample:
        with bench.scratch() as folder:
            with bench.ours_in(folder) as target:
                sample = await self.ingest(bench, target)
            self._chunks = _stored_chunks(folder)
        return sample

    @abc.abstractmethod
    async def ingest(self, bench: Bench, target: Target) -> Sample:
        """Have the server store lines; how many a second."""

    async def yardstick(self, bench: Bench) -> Sample:
        with bench.scratch() as folder:
            return {"rate": _write_loop(folder, self._chunks, bench.seconds)}


class Requests(Bulk):
    """Requests of LINES lines."""

    def __init__(self, name: str, producers: int, comment: str) -> None:
        super().__init__()
        self.name = name
        self.note = f"POST of {LINES} lines of 80 bytes at a time, each acknowledged before the next; {comment}."
        self._producers = producers

    async def ingest(self, bench: Bench, target: Target) -> Sample:
        async with connections(target.port, self._producers) as clients:
            for number in range(self._producers):
                await _create(target, clients[0], number)
            requests = [
                target.post(f"/v1/tasks/bench{number:02d}/output", text(0, LINES)) for number in range(self._producers)
            ]
            rate = await closed_loop(clients, requests, bench.seconds, target.cpu)
            return {"rate": rate.per_second * LINES, CLIENT_CPU: rate.client_cpu}


class Live(Bulk):
    """One chunked body."""

    name = "bulk-live"
    note = (
        f"One chunked body, sent as fast as it is taken in chunks of {PIECE} lines; from its first byte to the"
        " acknowledgement of its last line."
    )

    async def ingest(self, bench: Bench, target: Target) -> Sample:
        async with connections(target.port, 1) as (client,):
            await _create(target, client, 0)
            return await send_live(target, client, bench.seconds)


async def send_live(target: Target, client: Connection, seconds: float) -> Sample:
    """Send one body to the task bench00."""
    await client.ask(target.post("/v1/tasks/bench00/output", text(0, LINES)))  # warm-up
    piece = build_chunk(text(0, PIECE))
    response = client.expect()
    start, cpu = time.perf_counter(), time.process_time()
    client.send(target.post_chunked("/v1/tasks/bench00/output"))
    sent = 0
    while time.perf_counter() - start < seconds and not response.done():
        client.send(piece)
        sent += PIECE
        await asyncio.wait_for(client.drain(), ANSWER_LIMIT)
    client.send(build_chunk(b""))
    await answer(response)
    elapsed = time.perf_counter() - start
    return {"rate": sent / elapsed, CLIENT_CPU: (time.process_time() - cpu) / elapsed}


async def _create(target: Target, client: Connection, number: int) -> None:
    await client.ask(target.post("/v1/tasks", b'{"id": "bench%02d"}' % number, "application/json"))


def _stored_chunks(folder: Path) -> list[StoredChunk]:
    database = sqlite3.connect(folder / "tasks.db")
    try:
        sql = "SELECT count, codec, payload, side FROM chunk ORDER BY key LIMIT ?"
        return database.execute(sql, (KEPT_CHUNKS,)).fetchall()
    finally:
        database.close()


def _write_loop(folder: Path, chunks: list[StoredChunk], seconds: float) -> float:
    """Lines per second of the plain loop."""
    file = DatabaseFile(str(folder / "plain.db"), SYNCHRONOUS)
    database = file.open()
    try:
        database.execute(MAKE_TASK, (LOG,))
        last = 0
        for chunk in chunks[:WARM_UP_COMMITS]:
            last = _write(database, last, chunk)
        start, begun, turn = time.perf_counter(), last, 0
        while (elapsed := time.perf_counter() - start) < seconds:
            last = _write(database, last, chunks[turn % len(chunks)])
            turn += 1
        return (last - begun) / elapsed
    finally:
        database.close()
        file.unlock()


def _write(database: sqlite3.Connection, last: int, chunk: StoredChunk) -> int:
    """Commit one chunk behind line ``last``; the new number of lines."""
    count = chunk[0]
    database.execute("BEGIN IMMEDIATE")
    database.execute(INSERT_CHUNK, (chunk_key(LOG, last), *chunk))
    database.execute("UPDATE task SET last = ? WHERE log = ?", (last + count, LOG))
    database.execute("COMMIT")
    return last + count


FIGURES = [
    Requests("bulk", 1, "one producer, so that every request is a commit of its own"),
    Requests(
        "bulk-32",
        32,
        "32 producers with a task each: several requests share a commit, which the loop does not do",
    ),
    Live(),
]
