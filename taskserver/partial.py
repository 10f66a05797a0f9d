"""Unfinished lines: what a producer has printed behind its last newline, such as a progress bar. Pure functions.

Rules (PROTOCOLS.md, A4 "Unfinished lines"):

- They are told to those who follow, and never stored: the line that comes with its newline is what counts.
- A carriage return goes back to the beginning of the line, so what stands is
  what comes behind the last one that has something behind it.
- An unfinished line stands behind the output's last line. With the next line,
  or the task's end, it is no more.
- It is told when it has been unfinished for PARTIAL_PAUSE, and not more often:
  most lines are whole before that.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from taskserver.config import KIB, PARTIAL_BYTES
from taskserver.escapes import strip_escapes
from taskserver.model import Task

WINDOW = 16 * KIB
"""Bytes at the end of a line in which its last carriage return is looked for: no bar is longer."""

_utf8 = codecs.getincrementaldecoder("utf-8")


@dataclass(frozen=True, slots=True)
class Partial:
    """The unfinished lines of a task's two streams, each ``""`` if there is none, behind line ``last`` of a log."""

    log: int
    last: int
    stdout: str
    stderr: str

    def stands_in(self, task: Task) -> bool:
        """Whether it is still what comes behind the last line of a task."""
        return self.log == task.log and self.last == task.last and not task.finished


def shown_of(rest: bytes | bytearray) -> str:
    """What stands of a line so far, ``""`` if that cannot be seen: at most PARTIAL_BYTES of UTF-8, without zero bytes.

    What is not UTF-8 becomes U+FFFD; a character that has only begun is left out.
    """
    data = bytes(rest[-WINDOW:]).rstrip(b"\r")
    begin = data.rfind(b"\r") + 1
    if not begin and len(rest) > WINDOW:  # a long line and no bar: it begins where it begins
        data = bytes(rest[:WINDOW])
    text = _utf8("replace").decode(data[begin : begin + PARTIAL_BYTES])
    # U+FFFD is longer than what it stands for. And zero bytes would not get through everywhere, as in PostgreSQL.
    text = _utf8("ignore").decode(text.replace("\0", "").encode()[:PARTIAL_BYTES])
    return text if strip_escapes(text).strip() else ""  # bars are wiped away by blanks, or by a code that says so
