"""Run as a script by ``guard``: kill process groups when whoever started them is gone.

Lines on standard input say which: ``+`` and a group's number, ``-`` when it has
ended by itself. The end of the input says that the other side is gone, however
it came to that: the kernel closes the pipe of a process that was killed too.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress


def main() -> None:
    """Listen to the end, then kill what is left."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # meant for the other side, which says by its end what becomes of it
    left: set[int] = set()
    for line in sys.stdin.buffer:
        group = int(line[1:])
        if line.startswith(b"+"):
            left.add(group)
        else:
            left.discard(group)
    for group in left:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
