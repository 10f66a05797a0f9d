"""``taskserver copy``"""

from __future__ import annotations

import asyncio
import time

import click

from taskserver.cli.direct import told
from taskserver.cli.exits import tell
from taskserver.cli.options import option
from taskserver.cli.progress import Bar, bar
from taskserver.cli.show import counted
from taskserver.config import MIB
from taskserver.stores import copy_database
from taskserver.stores.archive import Size


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@option("--verify-only", is_flag=True, help="Only compare the two, line by line.")
@option("--restart", is_flag=True, help="Forget the part that an interrupted copy has left in DST, and begin anew.")
def copy(source: str, target: str, verify_only: bool, restart: bool) -> None:
    """Move a whole installation to another database, such as from SQLite to PostgreSQL.

    SRC and DST are databases as `serve` takes them, without servers: stop them
    first. DST must be empty; a SQLite file is made. Everything is copied, keys and
    tokens stay good, and then both are compared line by line. A copy that was
    interrupted goes on when it is called again; no server takes DST before it is
    complete. For PostgreSQL give the address without a pooler.

    \b
    Example:
      taskserver copy sqlite:///tasks.db postgresql://tasks@db/tasks
    """
    began = time.monotonic()
    with told(), bar() as show:
        work = copy_database(source, target, _Reporter(show), verify_only=verify_only, restart=restart)
        summary = asyncio.run(work)
    what = "both have" if verify_only else "copied"
    records = [counted(count, kind.value) for kind, count in summary.records.items() if count]
    seconds = time.monotonic() - began
    tell(f"{what} {', '.join([*records, counted(summary.lines, 'lines')])} ({seconds:.1f} s)")
    click.echo(f"sha256 {summary.digest}")


class _Reporter:
    """Shows how far a copy has come."""

    def __init__(self, show: Bar) -> None:
        self._show = show
        self._stage = ""
        self._began = 0.0
        self._first = Size()

    def __call__(self, what: str, done: Size, whole: Size) -> None:
        now = time.monotonic()
        if what != self._stage:
            self._stage, self._began, self._first = what, now, done
        rate = (done.lines - self._first.lines) / max(now - self._began, 0.001)
        words = f"{done.lines:,} of {whole.lines:,} lines  {done.bytes / MIB:,.0f} MiB  {rate:,.0f} lines/s"
        self._show(what, done.chunks, max(whole.chunks, 1), words)
