"""A bar on the terminal for what takes long; nothing where standard error is none."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Protocol


class Bar(Protocol):
    """How far something has come."""

    def __call__(self, what: str, done: int, total: int, words: str = "") -> None:
        """Show that of ``what`` so much of so much is done; ``words`` stand behind it."""


@contextlib.contextmanager
def bar() -> Iterator[Bar]:
    """A bar while something goes on."""
    if not sys.stderr.isatty():
        yield _nothing
        return
    # Here, because most uses need none.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[words]}"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        rows: dict[str, object] = {}

        def show(what: str, done: int, total: int, words: str = "") -> None:
            if what not in rows:
                rows[what] = progress.add_task(what, words="")
            progress.update(rows[what], completed=done, total=total, words=words)  # type: ignore[arg-type]

        yield show


def _nothing(what: str, done: int, total: int, words: str = "") -> None:
    """There is nobody to see it."""
