"""The command line: one file per command."""

from __future__ import annotations

import click

from taskserver import __version__
from taskserver.cli.serve import serve


@click.group(context_settings={"auto_envvar_prefix": "TASKSERVER", "help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="taskserver")
def main() -> None:
    """Keep the output, state and result of long-running tasks, and tell everyone who waits."""


main.add_command(serve)
