"""A server with room for a given number of waits: ``python limited.py WAITS --port P --database URL``.

There is no flag for it. That a wait has ended can be seen from outside only by
another one getting its place.
"""

from __future__ import annotations

import click
import uvloop

from taskserver.cli.serve import say
from taskserver.config import Limits, Settings
from taskserver.serving import serve


@click.command()
@click.argument("waits", type=int)
@click.option("--port", type=int)
@click.option("--database")
def main(waits: int, port: int, database: str) -> None:
    uvloop.run(serve(Settings(port=port, database=database, limits=Limits(waiters=waits)), say))


if __name__ == "__main__":
    main()
