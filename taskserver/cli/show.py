"""Tables: drawn on a terminal, tab-separated lines otherwise."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime

import click

from taskserver.cli.exits import printable


def show(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows; the headings stand above a drawn table only. The last column may be long."""
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(printable(cell) for cell in row))
        return
    # Here, because most uses need no table.
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in headings:
        table.add_column(heading, no_wrap=heading != headings[-1], overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console().print(table)


def moment(time: datetime | None) -> str:
    """A time: for people on their terminal in their own zone, for programs in RFC 3339 and UTC."""
    if time is None:
        return ""
    if sys.stdout.isatty():
        return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def counted(count: int, what: str) -> str:
    """A number of things, ``what`` being the plural."""
    return f"{count:,} {what.removesuffix('s') if count == 1 else what}"
