"""``kill -9`` of the server, or of one of its workers, at random moments, over and over, under producers and followers.

Producers append in every way that the protocol knows, repeat what was not
acknowledged, and end their tasks. Followers go on at their cursor. After each
restart every acknowledged line must stand once and in order; in the end every
follower must have had exactly its producer's lines.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import click

from tests.e2e.ledger import Faults, Record, compare
from tests.server import CALL_LIMIT, Server

PRODUCERS = 6
MAX_LIFE = 1.0  # seconds between a start and the kill
MAX_START_LIFE = 0.6  # the same for a process that is killed while it starts
START_KILLS = 0.25  # how often that is done
WORKER_KILLS = 0.5  # how often only a worker is killed, if there are workers
LEASE = 120  # seconds; longer than the server is ever away, so no task may be interrupted
CHECKED_OFTEN = 3  # a task that ended is checked after so many restarts, and once more at the end
REMEMBERED = 300  # ended tasks; older ones are deleted, so that a run may last for days
PAUSE = 0.01  # seconds before a request is repeated

TEXT = {"Content-Type": "text/plain"}
NDJSON = {"Content-Type": "application/x-ndjson"}


@dataclass
class Figures:
    """What a run did and found."""

    seed: int
    rounds: int = 0
    kills_while_starting: int = 0
    kills_of_workers: int = 0
    tasks: int = 0
    ended: int = 0
    deleted: int = 0
    acknowledged: int = 0
    followed: int = 0
    requests: int = 0
    cut_off: int = 0
    seconds: float = 0.0
    faults: Faults = field(default_factory=Faults)

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {self.rounds} rounds ({self.kills_while_starting} more kills during a start,"
            f" {self.kills_of_workers} of a worker only) in"
            f" {self.seconds:.0f} s; {self.tasks} tasks, {self.ended} ended, {self.deleted} deleted;"
            f" {self.requests} requests, {self.cut_off} of them cut off;"
            f" {self.acknowledged} lines acknowledged, {self.followed} followed;"
            f" lost {self.faults.lost}, repeated {self.faults.repeated}, out of order {self.faults.out_of_order},"
            f" never sent {self.faults.foreign}"
        )


class KillTest:
    """One run against a ``server`` that has been started. All that is random comes from ``seed``."""

    def __init__(self, server: Server, seed: int) -> None:
        self._server = server
        self._random = random.Random(seed)
        self._up = asyncio.Event()
        self._stopping = False
        self._live: dict[str, Record] = {}
        self._ended: deque[Record] = deque()
        self._followers: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession
        self.figures = Figures(seed)

    async def run(self, rounds: int | None = None, seconds: float | None = None) -> Figures:
        """Kill and check for so many rounds or seconds. Raises AssertionError for an answer that makes no sense."""
        began = time.monotonic()
        timeout = aiohttp.ClientTimeout(total=CALL_LIMIT)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(headers=self._server.headers, timeout=timeout, connector=connector) as session:
            self._session = session
            self._up.set()
            seeds = [self._random.random() for _ in range(PRODUCERS)]
            producing = asyncio.gather(*(self._produce(random.Random(seed)) for seed in seeds))
            while not producing.done() and not self.figures.faults:
                if self.figures.rounds == rounds or (seconds is not None and time.monotonic() - began > seconds):
                    break
                await self._round()
            self._stopping = True
            await producing
            await asyncio.gather(*self._followers)
            await self._check([*self._ended, *self._live.values()])
        self.figures.seconds = time.monotonic() - began
        return self.figures

    # --- the killer ----------------------------------------------------------------

    async def _round(self) -> None:
        await asyncio.sleep(self._random.uniform(0, MAX_LIFE))
        if (workers := self._server.workers) and self._random.random() < WORKER_KILLS:
            os.kill(self._random.choice(workers), signal.SIGKILL)
            self.figures.kills_of_workers += 1
        else:
            await self._kill_all()
        self.figures.rounds += 1
        await self._check([*self._live.values(), *(record for record in self._ended if record.checks < CHECKED_OFTEN)])
        for follower in [task for task in self._followers if task.done()]:
            self._followers.remove(follower)
            follower.result()  # raises what it failed with
        while len(self._ended) > REMEMBERED:
            await self._delete(self._ended.popleft())

    async def _kill_all(self) -> None:
        self._up.clear()
        self._server.kill()
        if self._random.random() < START_KILLS:
            self._server.launch()
            await asyncio.sleep(self._random.uniform(0, MAX_START_LIFE))
            self._server.kill()
            self.figures.kills_while_starting += 1
        await asyncio.to_thread(self._server.start)
        self._up.set()

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
            await self._ask("POST", "/v1/tasks", expect=(201, 409), json={"id": record.id, "lease": LEASE})
            self.figures.tasks += 1
            self._live[record.id] = record
            self._followers += [
                asyncio.create_task(self._follow(record, rng)),
                asyncio.create_task(self._await(record)),
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
        await self._up.wait()
        self.figures.requests += 1
        try:
            async with self._session.request(method, self._server.url + path, **request) as response:
                body = await response.read()
        except (aiohttp.ClientError, ConnectionError):
            self.figures.cut_off += 1
            return None
        assert response.status in expect, (method, path, response.status, body[:1000])
        return json.loads(body) if body else {}


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


@click.command()
@click.option("--rounds", type=int, help="Kill so often.")
@click.option("--seconds", type=float, help="Kill for so long.")
@click.option("--seed", type=int, help="Repeat what a run with this seed did (but for the timing).")
@click.option("--workers", default=1, help="Processes that answer; with more than one they are killed too.")
def main(rounds: int | None, seconds: float | None, seed: int | None, workers: int) -> None:
    """Kill a server over and over and see whether anything gets lost."""
    rounds = 50 if rounds is None and seconds is None else rounds
    seed = random.SystemRandom().getrandbits(32) if seed is None else seed
    folder = Path(tempfile.mkdtemp(prefix="taskserver-killtest-"))
    click.echo(f"seed {seed}, in {folder}")
    with Server(folder, "--workers", str(workers)) as server:
        figures = asyncio.run(KillTest(server, seed).run(rounds, seconds))
    click.echo(figures)
    if figures.faults:
        raise click.ClickException(f"{figures.faults.first}; the database is in {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
