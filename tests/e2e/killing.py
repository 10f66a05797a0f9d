"""``kill -9`` of the server, or of one of its workers, at random moments, over and over, under a load.

After each restart every acknowledged line must stand once and in order.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import click

from tests.e2e.load import Figures, Load
from tests.server import Server

MAX_LIFE = 1.0  # seconds between a start and the kill
MAX_START_LIFE = 0.6  # the same for a process that is killed while it starts
START_KILLS = 0.25  # how often that is done
WORKER_KILLS = 0.5  # how often only a worker is killed, if there are workers


@dataclass
class KillFigures:
    """What a run did and found."""

    load: Figures
    rounds: int = 0
    while_starting: int = 0
    of_workers: int = 0
    seconds: float = field(default=0.0)

    def __str__(self) -> str:
        return (
            f"{self.rounds} rounds ({self.while_starting} more kills during a start, {self.of_workers} of a worker"
            f" only) in {self.seconds:.0f} s; {self.load}"
        )


class KillTest:
    """One run against a ``server`` that has been started. All that is random comes from ``seed``."""

    def __init__(self, server: Server, seed: int) -> None:
        self._server = server
        self._random = random.Random(seed)
        self._load = Load([server], seed)
        self.figures = KillFigures(self._load.figures)

    async def run(self, rounds: int | None = None, seconds: float | None = None) -> KillFigures:
        """Kill and check for so many rounds or seconds.

        Raises AssertionError for a line that is lost or repeated, and for an answer that makes no sense.
        """
        began = time.monotonic()
        async with self._load as load:
            while self.figures.rounds != rounds and (seconds is None or time.monotonic() - began < seconds):
                await self._round()
                await load.check()
            await load.finish()
        self.figures.seconds = time.monotonic() - began
        return self.figures

    async def _round(self) -> None:
        await asyncio.sleep(self._random.uniform(0, MAX_LIFE))
        if (workers := self._server.workers) and self._random.random() < WORKER_KILLS:
            os.kill(self._random.choice(workers), signal.SIGKILL)
            self.figures.of_workers += 1
        else:
            await self._kill_all()
        self.figures.rounds += 1

    async def _kill_all(self) -> None:
        self._load.up.clear()
        self._server.kill()
        if self._random.random() < START_KILLS:
            self._server.launch()
            await asyncio.sleep(self._random.uniform(0, MAX_START_LIFE))
            self._server.kill()
            self.figures.while_starting += 1
        await asyncio.to_thread(self._server.start)
        self._load.up.set()


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
        try:
            click.echo(asyncio.run(KillTest(server, seed).run(rounds, seconds)))
        except AssertionError as error:
            raise click.ClickException(f"{error}; the database is in {folder}") from error
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
