"""The command line: one file per command."""

from __future__ import annotations

import os
import sys

import click

from taskserver import __version__
from taskserver.cli.backup import backup
from taskserver.cli.cancel import cancel
from taskserver.cli.copy import copy
from taskserver.cli.exits import EXIT_CODES_HELP
from taskserver.cli.keys import keys
from taskserver.cli.list import list_tasks
from taskserver.cli.prune import prune
from taskserver.cli.run import run
from taskserver.cli.serve import serve
from taskserver.cli.tail import tail
from taskserver.cli.wait import wait
from taskserver.cli.worker import worker

STDERR = 2


@click.group(
    context_settings={"auto_envvar_prefix": "TASKSERVER", "help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES_HELP,
)
@click.version_option(__version__, prog_name="taskserver")
def main() -> None:
    """Keep the output, state and result of long-running tasks, and tell everyone who waits.

    \b
    Example:
      taskserver serve &
      taskserver run -- make -j8
    """
    _open_standard_streams()


def _open_standard_streams() -> None:
    """Put /dev/null where a standard stream was closed, before some other file or socket gets its number."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


for command in (serve, run, worker, tail, wait, list_tasks, cancel, prune, backup, copy, keys):
    main.add_command(command)
