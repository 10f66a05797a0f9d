"""Unfinished lines: what a producer has printed behind its last newline, such as a progress bar. Pure functions.

Rules (PROTOCOLS.md, A4 "Unfinished lines"):

- They are told to those who follow, and never stored: the line that comes with its newline is what counts.
- A carriage return goes back to the beginning of the line, so what stands is
  what comes behind the last one that has something behind it, in the colours
  that were set before it.
- An unfinished line stands behind the output's last line. With the next line,
  or the task's end, it is no more.
- It is told when it has been unfinished for PARTIAL_PAUSE, and not more often:
  most lines are whole before that.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import NamedTuple

from taskserver.config import KIB, PARTIAL_BYTES
from taskserver.escapes import strip_escapes
from taskserver.model import Task

WINDOW = 16 * KIB  # bytes before a carriage return in which colours are looked for
MOST_CODES = 16  # bars that set more before they begin set them again
_STYLE = re.compile(rb"\x1b\[[0-9;:]*m")
_utf8 = codecs.getincrementaldecoder("utf-8")


class Unfinished(NamedTuple):
    """What each stream has printed behind its last newline; ``""`` if that is nothing."""

    stdout: str = ""
    stderr: str = ""


@dataclass(frozen=True, slots=True)
class Partial:
    """What is unfinished behind line ``last - 1`` of a log."""

    log: int
    last: int
    unfinished: Unfinished

    def stands_in(self, task: Task) -> bool:
        """Whether it is still what comes behind the last line of a task."""
        return self.log == task.log and self.last == task.last and not task.finished


def unfinished_text(rest: bytes | bytearray) -> str:
    """What stands of a line so far, ``""`` if that cannot be seen: at most PARTIAL_BYTES of UTF-8, without zero bytes.

    What is not UTF-8 becomes U+FFFD; a character that has only begun is left out.
    """
    data = bytes(rest).rstrip(b"\r")
    begin = data.rfind(b"\r") + 1
    text = _utf8("replace").decode(_style_at(data, begin) + data[begin : begin + PARTIAL_BYTES])
    # U+FFFD is longer than what it stands for. And zero bytes would not get through everywhere, as in PostgreSQL.
    text = _utf8("ignore").decode(text.replace("\0", "").encode()[:PARTIAL_BYTES])
    return text if strip_escapes(text).strip() else ""  # bars are wiped away by blanks, or by a code that says so


def _style_at(data: bytes, end: int) -> bytes:
    """The codes before ``end`` that still count there: those behind the last one that resets them, if they are few."""
    begin = max(0, end - WINDOW)
    codes = _STYLE.findall(data, data.rfind(b"\x1b[0m", begin, end) + 1 or begin, end)
    return b"".join(codes) if len(codes) <= MOST_CODES else b""
