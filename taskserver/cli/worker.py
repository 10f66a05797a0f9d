"""``taskserver worker``"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Coroutine
from functools import partial
from typing import Any

import click

from taskserver.cli.exits import ExitCode, WrongUsage, leave
from taskserver.cli.options import Number, option
from taskserver.cli.run import say
from taskserver.cli.talk import talks
from taskserver.client import RunClient, TaskClient
from taskserver.config import DEFAULT_RUN_LEASE, MAX_LEASE
from taskserver.worker import capture
from taskserver.worker.errors import DagError
from taskserver.worker.executor import Executor, Threads
from taskserver.worker.loading import load_dags
from taskserver.worker.processes import Processes
from taskserver.worker.service import MIN_LEASE, Options, Worker

DASK = re.compile(r"dask://([^/]+:[0-9]+)/?")
THREADS = 16  # tasks that wait for something else need no core


def run_fast(work: Coroutine[Any, Any, int]) -> int:
    """Run the worker in uvloop: it has much to say to the server."""
    import uvloop  # the other commands would pay for its import

    return uvloop.run(work)


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="MODULE_OR_FILE...")
@option(
    "--executor",
    default="threads",
    metavar="KIND",
    help="Where tasks run: threads or processes of this worker, or dask://HOST:PORT, a cluster's scheduler.",
)
@option(
    "--concurrency",
    type=click.IntRange(1, 1000),
    help=f"How many tasks (and runs) at a time.  [default: {THREADS}; with processes one for each core]",
)
@option(
    "--lease",
    default=DEFAULT_RUN_LEASE,
    type=Number(MIN_LEASE, MAX_LEASE),
    metavar="SECONDS",
    help="When the server hears nothing for this long, the worker counts as lost.",
)
@option(
    "--grace",
    default=Options.grace,
    type=Number(0),
    metavar="SECONDS",
    help="How long tasks may run on after a SIGTERM or Ctrl-C; what is left then is given back.",
)
@option("--quiet", "-q", is_flag=True, help="Do not print how each run has ended.")
@partial(talks, run=run_fast)
async def worker(
    client: TaskClient,
    sources: tuple[str, ...],
    executor: str,
    concurrency: int | None,
    lease: float,
    grace: float,
    quiet: bool,
) -> int:
    """Work on the runs of dags.

    Registers the dags that Python modules (package.module) or files declare,
    and runs their tasks as callers trigger them, until a SIGTERM or Ctrl-C;
    a second one does not wait. Several workers share the work.

    \b
    Example:
      taskserver worker my_dag.py
      taskserver worker --executor dask://127.0.0.1:8786 reports.daily
    """
    capture.install()  # before the dags' modules take hold of the streams
    try:
        dags = load_dags(sources)
    except DagError as error:
        leave(ExitCode.CANNOT_START, str(error))
    runs = RunClient(client.url, client.connection.key, connection=client.connection)
    made = make_executor(runs, executor, concurrency, sources)
    await Worker(runs, dags, made, Options(lease, grace, quiet), say).run()
    if isinstance(made, Threads) and made.left_behind:
        sys.stdout.flush()
        os._exit(0)  # threads that cannot be stopped would keep the process
    return 0


def make_executor(runs: RunClient, kind: str, concurrency: int | None, sources: tuple[str, ...]) -> Executor:
    """The executor that the options name."""
    if kind == "threads":
        return Threads(runs, concurrency or THREADS, say)
    if kind == "processes":
        return Processes(runs, concurrency or os.cpu_count() or 1, sources)
    match = DASK.fullmatch(kind)
    if match is None:
        raise WrongUsage(f"--executor must be threads, processes or dask://HOST:PORT, not {kind!r}")
    try:
        from taskserver.worker.dask import Dask  # what it needs is an extra
    except ImportError as error:
        leave(ExitCode.CANNOT_START, f"Dask is not installed ({error}): pip install 'taskserver[worker]'")
    return Dask(runs, concurrency or THREADS, sources, f"tcp://{match[1]}", say)
