"""A running load: producers that repeat what was not acknowledged, and followers that go on at their cursor.

Producers append in every way that the protocol knows and end their tasks. Each
task has followers by long poll and by stream. Whatever happens to the servers
meanwhile, every acknowledged line must stand once and in order, and in the end
every follower must have had exactly its producer's lines.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import aiohttp

from tests.e2e.ledger import Faults, Record, compare
from tests.server import CALL_LIMIT, LOOK, Server

PRODUCERS = 6
# What a node held when its network was cut is held for 15 seconds (connect.IDLE_TIMEOUT_MS), and producers come back
# after a pause.
GOES_ON_LIMIT = 60.0  # seconds
LEASE = 120  # seconds; longer than a server is ever away, so no task may be interrupted
FOLLOWERS = 3  # of each task
CHECKED_OFTEN = 3  # a task that ended is checked so many times, and once more at the end
REMEMBERED = 300  # ended tasks; older ones are deleted, so that a run may last for days
PAUSE = 0.01  # seconds before a request is repeated
PAUSE_REFUSED = 0.1  # the same after a 503, which asks for more: a test is in a hurry

TEXT = {"Content-Type": "text/plain"}
NDJSON = {"Content-Type": "application/x-ndjson"}


@dataclass
class Figures:
    """What a load did and found."""

    seed: int
    tasks: int = 0
    ended: int = 0
    deleted: int = 0
    acknowledged: int = 0
    followed: int = 0
    requests: int = 0
    cut_off: int = 0
    refused: int = 0
    slowest: float = 0.0
    faults: Faults = field(default_factory=Faults)

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {self.tasks} tasks, {self.ended} ended, {self.deleted} deleted;"
            f" {self.requests} requests, {self.cut_off} of them cut off, {self.refused} refused for now,"
            f" the slowest answer to a change after {self.slowest:.1f} s;"
            f" {self.acknowledged} lines acknowledged, {self.followed} followed;"
            f" lost {self.faults.lost}, repeated {self.faults.repeated}, out of order {self.faults.out_of_order},"
            f" never sent {self.faults.foreign}"
        )


class Load:
    """A load on ``servers`` that have been started, any of which may be asked; use it as an async context manager.

    All that is random comes from ``seed``. ``may_refuse``: a 503 with a
    ``Retry-After`` is an answer too, after which the request is repeated.
    """

    def __init__(self, servers: Sequence[Server], seed: int, *, lease: float = LEASE, may_refuse: bool = False) -> None:
        self._servers = servers
        self._random = random.Random(seed)
        self._lease = lease
        self._may_refuse = may_refuse
        self._stopping = False
        self._live: dict[str, Record] = {}
        self._ended: deque[Record] = deque()
        self._followers: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession
        self.up = asyncio.Event()
        """Cleared, it holds back requests that could only fail."""
        self.up.set()
        self.figures = Figures(seed)

    async def __aenter__(self) -> Load:
        self._session = aiohttp.ClientSession(
            headers=self._servers[0].headers,
            timeout=aiohttp.ClientTimeout(total=CALL_LIMIT),
            connector=aiohttp.TCPConnector(limit=0),
        )
        seeds = [self._random.random() for _ in range(PRODUCERS)]
        self._producers = [asyncio.create_task(self._produce(random.Random(seed))) for seed in seeds]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        running = [*self._producers, *self._followers]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._session.close()

    async def goes_on(self, lines: int = 100, limit: float = GOES_ON_LIMIT) -> None:
        """Return when so many more lines are acknowledged. Raises AssertionError, also for what went wrong so far."""
        goal, deadline = self.figures.acknowledged + lines, time.monotonic() + limit
        while self.figures.acknowledged < goal:
            self.raise_failures()
            assert time.monotonic() < deadline, f"no {lines} lines within {limit:g} s: {self.figures}"
            await asyncio.sleep(LOOK)

    async def check(self) -> None:
        """See whether what was acknowledged stands."""
        self.raise_failures()
        await self._check([*self._live.values(), *(record for record in self._ended if record.checks < CHECKED_OFTEN)])
        while len(self._ended) > REMEMBERED:
            await self._delete(self._ended.popleft())

    async def finish(self) -> Figures:
        """Let the producers and followers come to their ends, and check all."""
        self._stopping = True
        await asyncio.gather(*self._producers)
        await asyncio.gather(*self._followers)
        await self._check([*self._ended, *self._live.values()])
        assert not self.figures.faults, f"{self.figures.faults.first}; {self.figures}"
        assert self.figures.followed == FOLLOWERS * self.figures.acknowledged > 0, str(self.figures)
        return self.figures

    def raise_failures(self) -> None:
        """Raise what a producer or follower failed with; forget followers that are done."""
        for task in [*self._producers, *self._followers]:
            if task.done():
                task.result()
        self._followers = [task for task in self._followers if not task.done()]
        assert not self.figures.faults, f"{self.figures.faults.first}; {self.figures}"

    async def _check(self, records: list[Record]) -> None:
        for record in records:
            acknowledged, outcome = record.acknowledged, record.outcome
            task = await self._ask("GET", f"/v1/tasks/{record.id}")
            self.figures.faults.add(compare(record, task["output"], acknowledged))
            assert task["last"] == len(task["output"]), task
            assert task["state"] != "interrupted", task
            if outcome is not None:
                shown = {name: task[name] for name in outcome}
                assert (task["finished"], shown) == (True, outcome), task
                record.checks += 1

    async def _delete(self, record: Record) -> None:
        # The answer to an earlier attempt may have been cut off: then it is gone already.
        await self._ask("DELETE", f"/v1/tasks/{record.id}", expect=(204, 404))
        self.figures.deleted += 1

    # --- producers -----------------------------------------------------------------

    async def _produce(self, rng: random.Random) -> None:
        while not self._stopping:
            record = Record(f"t{rng.getrandbits(60):015x}")
            # 409: it was created, and the answer cut off.
            await self._ask("POST", "/v1/tasks", expect=(201, 409), json={"id": record.id, "lease": self._lease})
            self.figures.tasks += 1
            self._live[record.id] = record
            self._followers += [
                asyncio.create_task(self._follow(record, rng)),
                asyncio.create_task(self._await(record)),
                asyncio.create_task(self._stream(record)),
            ]
            for _ in range(rng.randrange(1, 25)):
                append = rng.choice([self._append_text, self._append_json, self._append_ndjson, self._append_live])
                lines = invent(record, rng)
                await append(record, lines)
                self._acknowledge(record, len(record.sent))
            await self._finish(record, rng)

    def _acknowledge(self, record: Record, last: int) -> None:
        self.figures.acknowledged += last - record.acknowledged
        record.acknowledged = last

    async def _append_text(self, record: Record, lines: list[str]) -> None:
        body = "".join(line + "\n" for line in lines).encode()
        await self._append(record, len(lines), data=body, headers=TEXT)

    async def _append_json(self, record: Record, lines: list[str]) -> None:
        await self._append(record, len(lines), json={"lines": lines})

    async def _append_ndjson(self, record: Record, lines: list[str]) -> None:
        body = "".join(json.dumps({"text": line, "stream": "stderr"}) + "\n" for line in lines).encode()
        await self._append(record, len(lines), data=body, headers=NDJSON)

    async def _append(self, record: Record, count: int, **request: Any) -> None:
        first = record.acknowledged
        answer = await self._ask("POST", f"/v1/tasks/{record.id}/output?first={first}", **request)
        assert (answer["first"], answer["last"]) == (first, first + count), answer

    async def _append_live(self, record: Record, lines: list[str]) -> None:
        """Send the lines one by one in a chunked body; where it is cut off, ask how far it got and send the rest."""
        while record.acknowledged < len(record.sent):
            first = record.acknowledged
            path = f"/v1/tasks/{record.id}/output?first={first}"
            answer = await self._try("POST", path, data=live_body(record.sent[first:]), headers=TEXT)
            if answer is None:
                # What a reader is shown must be as durable as what is acknowledged.
                task = await self._ask("GET", f"/v1/tasks/{record.id}?first={first}")
                self._acknowledge(record, task["last"])
            else:
                assert (answer["first"], answer["last"]) == (first, len(record.sent)), answer
                self._acknowledge(record, answer["last"])

    async def _finish(self, record: Record, rng: random.Random) -> None:
        first, code = record.acknowledged, rng.choice([0, 0, 7])
        lines = invent(record, rng)
        error, result = ("", {"type": "t", "data": [first]}) if code == 0 else ("it broke", None)
        outcome = {"code": code, "error": error, "result": result}
        body = {**outcome, "output": lines, "first": first}
        task = await self._ask("POST", f"/v1/tasks/{record.id}/finish", json=body)
        assert (task["finished"], task["last"]) == (True, len(record.sent)), task
        self._acknowledge(record, task["last"])
        record.outcome = outcome
        self.figures.ended += 1
        self._ended.append(self._live.pop(record.id))

    # --- followers -----------------------------------------------------------------

    async def _follow(self, record: Record, rng: random.Random) -> None:
        """The output's long poll: one line is enough for an answer."""
        seen: list[str] = []
        finished = False
        while not finished:
            query = f"first={len(seen)}&wait=20&limit={rng.choice([1, 10, 1000])}"
            page = await self._ask("GET", f"/v1/tasks/{record.id}/output?{query}")
            assert (page["first"], page["last"]) == (len(seen), len(seen) + len(page["output"])), page
            seen += page["output"]
            finished = page["finished"]
        self._followed(record, seen)

    async def _await(self, record: Record) -> None:
        """The task's long poll: only the end is an answer, and the whole output stands beside it."""
        task = await self._ask("GET", f"/v1/tasks/{record.id}?wait=20")
        while not task["finished"]:
            task = await self._ask("GET", f"/v1/tasks/{record.id}?wait=20")
        self._followed(record, task["output"])

    async def _stream(self, record: Record) -> None:
        """The output as NDJSON, over as many connections as it takes."""
        seen: list[str] = []
        while True:
            path = f"/v1/tasks/{record.id}/output?format=ndjson&follow=true&first={len(seen)}"
            async with aclosing(self._rows(path)) as rows:
                async for row in rows:
                    if row.get("finished"):
                        assert row["last"] == len(seen), row
                        self._followed(record, seen)
                        return
                    assert row["n"] == len(seen), row
                    seen.append(row["text"])
            await asyncio.sleep(PAUSE)

    async def _rows(self, path: str) -> AsyncGenerator[dict[str, Any], None]:
        """The whole objects of an NDJSON answer, until it ends or is cut off."""
        await self.up.wait()
        try:
            async with self._session.get(self._url() + path) as response:
                if response.status != 200:
                    await self._refusal(response, await response.read())
                    return
                async for line in response.content:
                    if line.endswith(b"\n") and line.strip():
                        yield json.loads(line)
        except (aiohttp.ClientError, ConnectionError):
            self.figures.cut_off += 1

    def _followed(self, record: Record, seen: list[str]) -> None:
        self.figures.faults.add(compare(record, seen, len(record.sent)))
        self.figures.followed += len(seen)

    # --- requests ------------------------------------------------------------------

    async def _ask(self, method: str, path: str, expect: tuple[int, ...] = (200,), **request: Any) -> Any:
        """The answer to a request, which is repeated until there is one."""
        while True:
            answer = await self._try(method, path, expect, **request)
            if answer is not None:
                return answer
            await asyncio.sleep(PAUSE)

    async def _try(self, method: str, path: str, expect: tuple[int, ...] = (200,), **request: Any) -> Any:
        """The answer to a request, or None if it was cut off. Raises AssertionError for an unexpected status."""
        await self.up.wait()
        self.figures.requests += 1
        began = time.monotonic()
        try:
            async with self._session.request(method, self._url() + path, **request) as response:
                body = await response.read()
        except (aiohttp.ClientError, ConnectionError):
            self.figures.cut_off += 1
            return None
        if method != "GET":  # which may be a wait
            self.figures.slowest = max(self.figures.slowest, time.monotonic() - began)
        if response.status not in expect:
            await self._refusal(response, body)
            return None
        return json.loads(body) if body else {}

    async def _refusal(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        """Return when it is time to repeat the request. Raises AssertionError if that is not asked for."""
        retry = self._may_refuse and response.status == 503 and "Retry-After" in response.headers
        assert retry, (response.method, response.url, response.status, body[:1000])
        self.figures.refused += 1
        await asyncio.sleep(PAUSE_REFUSED)

    def _url(self) -> str:
        return self._random.choice(self._servers).url


def invent(record: Record, rng: random.Random) -> list[str]:
    """Some new lines, entered as sent: mostly few and short ones, at times enough to fill several chunks."""
    count = rng.choice([1, 1, 1, 2, 5, 20, 300])
    tail = rng.choice(["", " plain", ' "quoted" \\ and\ttabbed', " ünïcödé 🎉", " " + "x" * 200])
    lines = [f"{record.id} {len(record.sent) + number}{tail}" for number in range(count)]
    record.sent += lines
    return lines


async def live_body(lines: list[str]) -> AsyncIterator[bytes]:
    """Lines as a producer that works for a while sends them, cut anywhere but at their ends."""
    data = "".join(line + "\n" for line in lines).encode()
    size = max(1, len(data) // 5)
    for start in range(0, len(data), size):
        yield data[start : start + size]
        await asyncio.sleep(PAUSE)
