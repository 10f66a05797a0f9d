"""Run as a script by ``process``: make standard input the controlling terminal, then become the command.

A process can do this for itself only. Python's other way, code between fork
and exec, is not safe in a process with threads.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import termios


def main() -> None:
    """Become ``sys.argv[1:]``; exit with 127 or 126, as a shell does, if that is not possible."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them; a command expects the default
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - no shell is wanted
    except OSError as error:
        print(f"taskserver: cannot run {sys.argv[1]}: {error.strerror}", file=sys.stderr)  # noqa: T201
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)


if __name__ == "__main__":
    main()
