"""The rounds: ours and the yardsticks in turn, so that a change of the machine's mood meets all."""

from __future__ import annotations

import asyncio
import gc
import resource
import time
from collections.abc import Awaitable, Callable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from tests.bench.figure import Figure, Sample, Yardstick
from tests.bench.load import LoadError
from tests.bench.postgres import cpu_of_all, first_process
from tests.bench.servers import TICKS, Bench
from tests.bench.summary import Result, Round

SAMPLE_LIMIT = 180.0  # seconds for one side of one round, start and stop of the server included
PREPARE_LIMIT = 600.0  # seconds to make the databases of a figure, once
OTHER_FILES = 100  # file descriptors beside the connections: databases, pipes, libraries

Say = Callable[[str], None]


def pick(figures: Sequence[Figure], only: str | None, plot: bool = False, postgres: bool = False) -> list[Figure]:
    """The figures whose names match one of the patterns in ``only``, separated by commas; without it, all.

    Those that are there for a curve only must be named, or wanted for a ``plot``.
    ``postgres``: those about PostgreSQL, and no others.
    Raises ValueError for a pattern that matches none.
    """
    figures = [figure for figure in figures if figure.on_postgres is postgres]
    if only is None:
        return [figure for figure in figures if plot or not figure.only_plotted]
    picked: dict[str, Figure] = {}
    for pattern in only.split(","):
        matching = {figure.name: figure for figure in figures if fnmatchcase(figure.name, pattern.strip())}
        if not matching:
            raise ValueError(f"no figure is called {pattern!r}; there are: {', '.join(one.name for one in figures)}")
        picked.update(matching)
    return list(picked.values())


async def run(figures: Sequence[Figure], bench: Bench, rounds: int, say: Say) -> list[Result]:
    """Measure each figure; one that cannot be measured says why and does not stop the others."""
    results = []
    for figure in figures:
        yardsticks = figure.yardsticks(bench)
        trouble, start = figure.missing(bench) or _not_enough_files(figure), time.monotonic()
        done: list[Round] = []
        if not trouble:
            try:
                await asyncio.wait_for(figure.prepare(bench), PREPARE_LIMIT)
                done = await _rounds(figure, yardsticks, bench, rounds, say)
            except (LoadError, OSError, asyncio.TimeoutError) as error:
                trouble = f"{type(error).__name__}: {error}"
        say(f"{figure.name}: {trouble or 'measured'} ({time.monotonic() - start:.0f} s)")
        results.append(Result(figure, yardsticks, done, trouble))
    return results


async def _rounds(figure: Figure, yardsticks: Sequence[Yardstick], bench: Bench, rounds: int, say: Say) -> list[Round]:
    done = []
    database = None if bench.postgres is None else await first_process(bench.postgres)
    sides = [figure.ours, *(yardstick.measure for yardstick in yardsticks)]
    for number in range(rounds):
        say(f"{figure.name}, round {number + 1} of {rounds}")
        others = watch_others(partial(cpu_of_all, database))
        # Who goes first changes: no side always finds what another one left.
        turn = sides if number % 2 == 0 else sides[::-1]
        samples = [await _sample(measure(bench)) for measure in turn]
        ours, *theirs = samples if number % 2 == 0 else samples[::-1]
        done.append(Round(ours, theirs, others()))
    return done


async def _sample(measuring: Awaitable[Sample]) -> Sample:
    """One sample, with this process' garbage collector out of the way."""
    gc.collect()
    gc.disable()
    try:
        return await asyncio.wait_for(measuring, SAMPLE_LIMIT)
    finally:
        gc.enable()


def watch_others(database: Callable[[], float] = float) -> Callable[[], float]:
    """A function that tells how many cores other programs have used on average since this call.

    The servers of the measurements have ended by then, so that they count as
    this process' children. ``database`` tells the CPU seconds of what has not.
    """
    start, busy, own = time.monotonic(), _busy(), _own() + database()
    return lambda: max(0.0, _busy() - busy - (_own() + database() - own)) / (time.monotonic() - start)


def _busy() -> float:
    """Seconds of CPU that the machine has spent on anything."""
    # user, nice, system, idle, iowait, irq, softirq, and what a hypervisor took away: proc(5).
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / TICKS


def _own() -> float:
    """Seconds of CPU that this process and the children that have ended have used."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def allow_files(wanted: int) -> int:
    """Raise the limit of open files, for this process and those it starts, as far as is allowed; return what it is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _not_enough_files(figure: Figure) -> str:
    needed = figure.connections + OTHER_FILES
    allowed = allow_files(needed)
    if allowed == resource.RLIM_INFINITY or allowed >= needed:
        return ""
    return f"it needs {needed} open files and the hard limit is {allowed} (raise it with ulimit -Hn)"
