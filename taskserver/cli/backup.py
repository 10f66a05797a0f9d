"""``taskserver backup``"""

from __future__ import annotations

from pathlib import Path

import click

from taskserver.cli.direct import told
from taskserver.cli.exits import WrongUsage, tell
from taskserver.cli.options import option
from taskserver.cli.progress import bar
from taskserver.config import DEFAULT_DATABASE, MIB
from taskserver.stores import back_up, backup_advice


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@option("--database", default=DEFAULT_DATABASE, envvar="TASKSERVER_DATABASE", help="What to back up.")
@option("--force", is_flag=True, help="Replace FILE if it exists.")
def backup(file: Path, database: str, force: bool) -> None:
    """Back up a SQLite database, while its server runs.

    FILE is a database as it stood when the backup began, checked, and complete as
    soon as it has its name. It holds everything: tasks with their output, runs,
    keys (as hashes) and the secret that signs tokens. To restore it, stop the
    server, remove tasks.db, tasks.db-wal and tasks.db-shm, and copy FILE to
    tasks.db. Of PostgreSQL this tells what to use instead.

    \b
    Example:
      taskserver backup /backups/tasks-2026-11-21.db --database sqlite:///tasks.db
    """
    if advice := backup_advice(database, file):
        raise WrongUsage(advice)
    with told(), bar() as show:

        def report(done: int, total: int) -> None:
            show("copying", done, total)
            if done == total:
                show("checking", 0, 1)

        size = back_up(database, file, force=force, report=report)
    tell(f"backed up {database} to {file} ({size / MIB:.1f} MiB, checked)")
