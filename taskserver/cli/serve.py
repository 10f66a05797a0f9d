"""``taskserver serve``"""

from __future__ import annotations

import logging
import sys

import click

from taskserver.config import DEFAULT_DATABASE, DEFAULT_HOST, DEFAULT_PORT, Settings
from taskserver.errors import StartupError
from taskserver.serving import serve as run_server

EXIT_CANNOT_START = 3  # 1 is any failure and 2 a wrong command line: this one is for scripts to tell


@click.command()
@click.option("--host", default=DEFAULT_HOST, show_default=True, envvar="TASKSERVER_HOST", help="Address to listen on.")
@click.option(
    "--port",
    default=DEFAULT_PORT,
    show_default=True,
    type=click.IntRange(0, 65535),
    envvar="TASKSERVER_PORT",
    help="Port to listen on; 0 picks a free one and prints it.",
)
@click.option(
    "--database",
    default=DEFAULT_DATABASE,
    show_default=True,
    envvar="TASKSERVER_DATABASE",
    help="Where to keep everything: sqlite:///relative/path or sqlite:////absolute/path.",
)
@click.option(
    "--bootstrap-key-file",
    metavar="FILE",
    envvar="TASKSERVER_BOOTSTRAP_KEY_FILE",
    help="The key in FILE is an admin key. A missing FILE is made, readable by you only.",
)
@click.option(
    "--synchronous",
    default="full",
    show_default=True,
    type=click.Choice(["full", "normal"]),
    envvar="TASKSERVER_SYNCHRONOUS",
    help="full: an acknowledged line survives a power failure. normal: faster, and survives a crash of the server,"
    " but a power failure can take back the last moments before it.",
)
@click.option("--access-log", is_flag=True, envvar="TASKSERVER_ACCESS_LOG", help="Log every request to standard error.")
def serve(**options: object) -> None:
    """Start the server.

    \b
    Example:
      taskserver serve --port 8080 --database sqlite:///tasks.db
    """
    import uvloop

    settings = Settings(**options)  # type: ignore[arg-type]
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        uvloop.run(run_server(settings, say))
    except StartupError as error:
        click.echo(f"taskserver: {error.message}", err=True)
        sys.exit(EXIT_CANNOT_START)


def say(message: str) -> None:
    """Tell the operator, at once even through a pipe."""
    click.echo(f"taskserver: {message}")
    sys.stdout.flush()
