"""Reading a long output that has ended from its first line on."""

from __future__ import annotations

import abc
import asyncio
import http.client
import re
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import IO

from taskserver.config import KIB, MAX_OUTPUT_LIMIT, MIB
from tests.bench.archive import TASK, Archive
from tests.bench.bare import PIECE
from tests.bench.figure import CLIENT_CPU, Figure, Goal, Metric, Sample
from tests.bench.load import ANSWER_LIMIT, LoadError, connections
from tests.bench.servers import Bench, Target

LINES = 1_000_000
PASSES = 3  # that count; one before them warms up
WARM_UP_REQUESTS = 200  # before memory is looked at: what a server loads once is not a reader's
BUFFER = 256 * KIB  # of the client
_PAGE = re.compile(rb'\{"first":\d+,"last":(\d+),"finished":(true|false),')  # how a page of JSON begins

Read = Callable[[], Awaitable[int]]
"""Reads everything and returns how many bytes of bodies that was."""


class Reading(Figure):
    """MB/s of one reader, and what that costs the server in memory."""

    against = (
        f"a bare aiohttp handler that streams the same bytes from memory in pieces of {PIECE // KIB} KiB; its client is"
        " that of the streams"
    )
    metrics = (
        Metric("rate", "", "MB/s", more_is_better=True),
        Metric("cpu", "server CPU", "ms/MB", more_is_better=False),
        Metric("memory", "memory", "MiB", more_is_better=False, has_ratio=False),
    )

    goals = (Goal("rate", 0.5), Goal("memory", 64.0))

    def __init__(self, archive: Archive, name: str, what: str) -> None:
        self.name = name
        self.note = (
            f"{what} of a finished and sealed task of {archive.lines:,} lines of a build, some 70 bytes each, from its"
            " first line on, by one client that only counts the bytes: those of the bodies, from the first request to"
            f" the last byte, median of {PASSES} passes a round. Memory: how far the peak of the server's RSS during"
            " the passes lies above what it was after a start and some small requests."
        )
        self._archive = archive
        self._size = 0

    @abc.abstractmethod
    async def read(self, target: Target, copy: IO[bytes] | None = None) -> int:
        """Read everything from ours; return how many bytes that was. ``copy`` gets them."""

    async def prepare(self, bench: Bench) -> None:
        await self._archive.folder(bench)

    async def ours(self, bench: Bench) -> Sample:
        folder = await self._archive.folder(bench)
        if not self._size:
            with bench.ours_in(folder) as target, self._copy(folder).open("wb") as file:
                self._size = await self.read(target, file)
        # A new process: one that has answered this before has memory left over from it.
        with bench.ours_in(folder) as target:
            await _warm_up(target, target.get(f"/v1/tasks/{TASK}/output?first={self._archive.size(bench) - 20}"))
            return await self._measure(target, lambda: self.read(target))

    async def yardstick(self, bench: Bench) -> Sample:
        folder = await self._archive.folder(bench)
        with bench.bare() as target:
            await _warm_up(target, target.get("/get"))
            async with connections(target.port, 1) as (client,):
                await target.set_answer_from(client, self._copy(folder))
            return await self._measure(target, lambda: download(target, "/stream"))

    def _copy(self, folder: Path) -> Path:
        return folder / f"{self.name}.body"

    async def _measure(self, target: Target, read: Read) -> Sample:
        target.forget_peak()
        idle = target.rss()
        await self._rate(read)
        server, own, start = target.cpu(), time.process_time(), time.perf_counter()
        rates = [await self._rate(read) for _ in range(PASSES)]
        elapsed, megabytes = time.perf_counter() - start, PASSES * self._size / 1e6
        return {
            "rate": statistics.median(rates) / 1e6,
            "cpu": 1000 * (target.cpu() - server) / megabytes,
            "memory": (target.peak_rss() - idle) / MIB,
            CLIENT_CPU: (time.process_time() - own) / elapsed,
        }

    async def _rate(self, read: Read) -> float:
        """Bytes per second of one reading. Raises LoadError if it did not read everything."""
        start = time.perf_counter()
        size = await read()
        elapsed = time.perf_counter() - start
        if size != self._size:
            raise LoadError(f"{size} bytes were read instead of {self._size}")
        return size / elapsed


class Stream(Reading):
    """One answer that holds everything."""

    def __init__(self, archive: Archive, name: str, what: str, path: str) -> None:
        super().__init__(archive, name, f"GET ({what})")
        self._path = path

    async def read(self, target: Target, copy: IO[bytes] | None = None) -> int:
        return await download(target, self._path, copy)


class Pages(Reading):
    """One page after the other, each asked for when the one before is there."""

    async def read(self, target: Target, copy: IO[bytes] | None = None) -> int:
        first, size, finished = 0, 0, False
        async with connections(target.port, 1) as (client,):
            while not finished:
                path = f"/v1/tasks/{TASK}/output?first={first}&limit={MAX_OUTPUT_LIMIT}"
                body = (await client.ask(target.get(path))).body
                page = _PAGE.match(body)
                if page is None:
                    raise LoadError(f"not a page: {body[:80]!r}")
                first, finished = int(page[1]), page[2] == b"true"
                size += len(body)
                if copy is not None:
                    copy.write(body)
        return size


async def download(target: Target, path: str, copy: IO[bytes] | None = None) -> int:
    """GET with as little work for the client as Python allows: one buffer, used again and again, and a thread."""
    return await asyncio.to_thread(_download, target, path, copy)


def _download(target: Target, path: str, copy: IO[bytes] | None) -> int:
    buffer, size = bytearray(BUFFER), 0
    view = memoryview(buffer)
    with closing(http.client.HTTPConnection("127.0.0.1", target.port, timeout=ANSWER_LIMIT)) as connection:
        connection.request("GET", path, headers=target.headers())
        response = connection.getresponse()
        if response.status != 200:
            raise LoadError(f"the server answered {response.status}: {response.read(200)!r}")
        while count := response.readinto(buffer):
            size += count
            if copy is not None:
                copy.write(view[:count])
    return size


async def _warm_up(target: Target, request: bytes) -> None:
    async with connections(target.port, 1) as (client,):
        for _ in range(WARM_UP_REQUESTS):
            await client.ask(request)


ARCHIVE = Archive(LINES)  # the same for all of them
_OUTPUT = f"/v1/tasks/{TASK}/output?first=0"
FIGURES = [
    Stream(ARCHIVE, "follow-text", "A5 as text, follow=true", f"{_OUTPUT}&format=text&follow=true"),
    Stream(ARCHIVE, "follow-ndjson", "A5 as NDJSON, follow=true", f"{_OUTPUT}&format=ndjson&follow=true"),
    Stream(ARCHIVE, "follow-sse", "A5 as SSE", f"{_OUTPUT}&format=sse"),
    Stream(ARCHIVE, "read", "A1, all in one JSON document", f"/v1/tasks/{TASK}?first=0"),
    Pages(ARCHIVE, "catchup", f"Pages of JSON (A5, limit={MAX_OUTPUT_LIMIT}), each asked for when the last is there,"),
]
