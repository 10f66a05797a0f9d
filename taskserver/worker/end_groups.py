"""Run as a script by ``guard``: kill process groups when whoever started them is gone.

Lines on standard input say which: ``+``, a mark, and the group's number when
that is known; ``-`` and the mark when it has ended by itself. The end of the
input says that the other side is gone, however it came to that: the kernel
closes the pipe of a process that was killed too. A command whose number was not
told any more is looked for by its mark, which it has in its environment.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

VARIABLE = "TASKSERVER_GUARD"
LOOKS, PAUSE = 40, 0.05  # two seconds for a process that was being started to get there; seconds


def main() -> None:
    """Listen to the end, then kill what is left."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # meant for the other side, which says by its end what becomes of it
    left: dict[str, int | None] = {}
    for line in sys.stdin:
        mark, _, group = line[1:].strip().partition(" ")
        if line.startswith("+"):
            left[mark] = int(group) if group else None
        else:
            left.pop(mark, None)
    for known in left.values():
        if known is not None:
            kill(known)
    look_for({mark for mark, known in left.items() if known is None})


def look_for(marks: set[str]) -> None:
    """Kill what has one of these marks, as soon as it is there. Only where there is a ``/proc``."""
    for _ in range(LOOKS):
        for process in Path("/proc").glob("[0-9]*"):
            found = marks & {mark_of(process)}
            if found:
                with suppress(ProcessLookupError):
                    kill(os.getpgid(int(process.name)))
                marks = marks - found
        if not marks:
            return
        time.sleep(PAUSE)


def mark_of(process: Path) -> str:
    """The mark in a process' environment; empty if it has none, or is somebody else's."""
    try:
        entries = (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    prefix = f"{VARIABLE}=".encode()
    return next((entry[len(prefix) :].decode("ascii", "replace") for entry in entries if entry.startswith(prefix)), "")


def kill(group: int) -> None:
    """End a process group, if it is there."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
