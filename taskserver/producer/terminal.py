"""A terminal for the command (``--pty``): a pseudo-terminal, and our own terminal's part in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import termios
import threading
import tty
from typing import Any

from taskserver.producer.echo import write_all
from taskserver.producer.pump import Stop

STDIN = 0
DEFAULT_SIZE = struct.pack("HHHH", 24, 80, 0, 0)  # rows, columns; what terminals have been since the VT100
END_OF_FILE = b"\x04"  # Ctrl-D: how a terminal says that there is no more input
READ_BYTES = 4096  # a terminal takes no more at once


class Terminal:
    """A pseudo-terminal: the command sits at ``inner``, we read and write ``outer``.

    While it is open our own terminal, if we have one and are in its foreground,
    is raw: keys go to the command unseen by us, Ctrl-C included.
    """

    def __init__(self) -> None:
        self.outer, self.inner = pty.openpty()
        self.raw = False
        self._saved: Any = None
        self._stop = Stop()
        self.copy_size()
        if os.isatty(STDIN):
            self._forward = _in_foreground()
        else:
            self._forward = True
            _no_echo(self.inner)  # what comes from a file or a pipe is no typing, and not to be seen in the output

    def copy_size(self) -> None:
        """Give the terminal the size of our own."""
        size = DEFAULT_SIZE
        for fd in (0, 1, 2):
            with contextlib.suppress(OSError):
                size = fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(len(DEFAULT_SIZE)))
                break
        fcntl.ioctl(self.outer, termios.TIOCSWINSZ, size)

    def close_inner(self) -> None:
        """Let go of the command's side, once the command has it."""
        os.close(self.inner)

    def start_input(self) -> None:
        """Begin to forward our standard input."""
        if not self._forward:
            return
        if os.isatty(STDIN):
            self._saved = termios.tcgetattr(STDIN)
            tty.setraw(STDIN)
            self.raw = True
        # A descriptor of its own: `outer` may be closed, and its number another's, when the thread is about to write.
        outer = os.dup(self.outer)
        threading.Thread(target=self._copy_input, args=(outer,), name="terminal-input", daemon=True).start()

    def close(self) -> None:
        """Hang up, stop forwarding and put our own terminal back as it was."""
        self._stop.set()
        os.close(self.outer)
        if self._saved is not None:
            termios.tcsetattr(STDIN, termios.TCSADRAIN, self._saved)
            self._saved, self.raw = None, False

    def _copy_input(self, outer: int) -> None:
        """In a thread: standard input to the command, until either ends or ``close``."""
        poll = select.poll()
        poll.register(STDIN, select.POLLIN)
        poll.register(self._stop.fd, select.POLLIN)
        at_line_start = True
        try:
            while self._stop.fd not in [fd for fd, _ in poll.poll()]:
                data = os.read(STDIN, READ_BYTES)
                if not data:
                    # Within a line the first one only ends the line.
                    write_all(outer, END_OF_FILE if at_line_start else END_OF_FILE * 2)
                    return
                write_all(outer, data)
                at_line_start = data.endswith(b"\n")
        except OSError:
            pass  # the command has left, or there is no standard input
        finally:
            os.close(outer)


def _in_foreground() -> bool:
    """Whether we may touch our terminal; a background job that does is stopped by the kernel."""
    try:
        return os.tcgetpgrp(STDIN) == os.getpgrp()
    except OSError:
        return False


def _no_echo(fd: int) -> None:
    attributes = termios.tcgetattr(fd)
    attributes[3] &= ~(termios.ECHO | termios.ECHONL)
    termios.tcsetattr(fd, termios.TCSANOW, attributes)
