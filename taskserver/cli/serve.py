"""``taskserver serve``"""

from __future__ import annotations

import sys

import click

from taskserver.cli.exits import ExitCode, leave
from taskserver.cli.options import option
from taskserver.config import DEFAULT_DATABASE, DEFAULT_HOST, DEFAULT_PORT, DEFAULT_WORKERS, MAX_WORKERS, Settings
from taskserver.errors import StartupError


@click.command()
@option("--host", default=DEFAULT_HOST, envvar="TASKSERVER_HOST", help="Address to listen on.")
@option(
    "--port",
    default=DEFAULT_PORT,
    type=click.IntRange(0, 65535),
    envvar="TASKSERVER_PORT",
    help="Port to listen on; 0 picks a free one and prints it.",
)
@option(
    "--database",
    default=DEFAULT_DATABASE,
    envvar="TASKSERVER_DATABASE",
    help="Where to keep everything: sqlite:///relative/path, sqlite:////absolute/path, or postgresql://host/name, which"
    " any number of servers may share.",
)
@option(
    "--listen-database",
    metavar="URL",
    envvar="TASKSERVER_LISTEN_DATABASE",
    help="The same PostgreSQL database without the pooler, if --database leads through one: wake-ups of other servers"
    " come through a connection that stays.",
)
@option(
    "--bootstrap-key-file",
    metavar="FILE",
    envvar="TASKSERVER_BOOTSTRAP_KEY_FILE",
    help="The key in FILE is an admin key. A missing FILE is made, readable by you only.",
)
@option(
    "--synchronous",
    default="full",
    type=click.Choice(["full", "normal"]),
    envvar="TASKSERVER_SYNCHRONOUS",
    help="full: an acknowledged line survives a power failure. normal: faster, and survives a crash of the server,"
    " but a power failure can take back the last moments before it.",
)
@option(
    "--workers",
    default=DEFAULT_WORKERS,
    type=click.IntRange(1, MAX_WORKERS),
    envvar="TASKSERVER_WORKERS",
    help="Processes that answer requests. The first one commits for all, and replaces others that die.",
)
@option("--access-log", is_flag=True, envvar="TASKSERVER_ACCESS_LOG", help="Log every request to standard error.")
def serve(**options: object) -> None:
    """Start the server.

    \b
    Example:
      taskserver serve --port 8080 --database sqlite:///tasks.db
    """
    # Here, because the other commands would pay for the import of a whole server.
    import uvloop

    from taskserver.serving import serve as run_server
    from taskserver.serving.process import log_to_stderr

    settings = Settings(**options)  # type: ignore[arg-type]
    log_to_stderr()
    try:
        uvloop.run(run_server(settings, say))
    except StartupError as error:
        leave(ExitCode.CANNOT_START, error.message)


def say(message: str) -> None:
    """Tell the operator, at once even through a pipe."""
    click.echo(f"taskserver: {message}")
    sys.stdout.flush()
