"""``python -m tests.bench``: measure, and print a table or write JSON."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Coroutine
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import uvloop
from rich.console import Console

from tests.bench.figures import all_figures
from tests.bench.runner import pick, run
from tests.bench.servers import Bench, sync_latency
from tests.bench.summary import Result, report
from tests.bench.table import show

ROUNDS, SECONDS = 3, 3.0
QUICK_ROUNDS, QUICK_SECONDS = 1, 1.0
WIDTH = 120  # of the table where the terminal does not say, as in a file


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", type=click.IntRange(1, 100), help=f"Rounds of each figure.  [default: {ROUNDS}]")
@click.option("--quick", is_flag=True, help="One short round each: to see that it works, not to compare.")
@click.option("--only", metavar="NAME[,NAME]", help="Only these figures; * stands for anything, as in 'wake-*'.")
@click.option("--list", "names_only", is_flag=True, help="Print the names of the figures and stop.")
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the databases lie; the disk is part of what is measured.  [default: the temporary folder]",
)
@click.option("--json", "json_file", type=click.File("w"), metavar="FILE", help="All numbers to FILE (- is stdout).")
def main(
    rounds: int | None, quick: bool, only: str | None, names_only: bool, directory: Path | None, json_file: Any
) -> None:
    """Measure the server beside yardsticks on this machine (Linux). Leave the machine alone meanwhile.

    \b
    Example:
      scripts/bench --only polls,appends --json bench.json
    """
    try:
        figures = pick(all_figures(), only)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--only") from None
    if names_only:
        click.echo("\n".join(figure.name for figure in figures))
        return
    if not sys.platform.startswith("linux"):
        raise click.ClickException("the benchmark reads memory and CPU from /proc, which only Linux has")
    console = Console(stderr=json_file is sys.stdout)
    if not console.is_terminal:
        console.width = WIDTH
    folder = directory or Path(tempfile.gettempdir())
    environment = _environment(folder)
    bench = Bench(folder, QUICK_SECONDS if quick else SECONDS)
    say = Console(stderr=True, style="dim", highlight=False).print
    try:
        results = uvloop.run(_until_stopped(run(figures, bench, rounds or (QUICK_ROUNDS if quick else ROUNDS), say)))
    except asyncio.CancelledError:
        raise click.Abort from None
    console.print(show(results, environment))
    if json_file is not None:
        json.dump(report(results, environment), json_file, indent=2)
        json_file.write("\n")
    if any(result.trouble for result in results):
        sys.exit(1)


async def _until_stopped(running: Coroutine[None, None, list[Result]]) -> list[Result]:
    """Wait for it; SIGINT and SIGTERM cancel it, so that the servers it started end too."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    return await running


def _environment(folder: Path) -> dict[str, Any]:
    """What the numbers depend on. The load average tells whether somebody else was at work when it began."""
    return {
        "Python": platform.python_version(),
        "aiohttp": version("aiohttp"),
        "uvloop": version("uvloop"),
        "SQLite": sqlite3.sqlite_version,
        "cores": os.cpu_count(),
        "load average": round(os.getloadavg()[0], 2),
        "fsync of 4 KiB in ms": round(1000 * sync_latency(folder), 3),
    }


if __name__ == "__main__":
    main()
