"""How commands leave: exit codes, and errors as one line on standard error."""

from __future__ import annotations

import enum
import errno
import os
import sys
from http import HTTPStatus
from typing import NoReturn

import click

from taskserver.client import ApiError


class ExitCode(enum.IntEnum):
    """Exit codes of all commands, from sysexits.h where it has one. A wrong command line is click's 2."""

    CANNOT_START = 3
    """The database cannot be used, or ``serve`` or ``worker`` cannot start."""
    REFUSED = 65
    """The server refused the request; or what is there forbids it, or (``copy``) the two differ."""
    NOT_FOUND = 66
    """There is no such task or key."""
    UNAVAILABLE = 69
    """The server cannot be reached, or cannot answer now."""
    IO_ERROR = 74
    """Reading or writing on this side failed."""
    NO_PERMISSION = 77
    """The API key is not known, or may not do this."""
    NO_KEY = 78
    """There is no API key to be found."""
    TIMEOUT = 124
    """``wait`` gave up; as ``timeout`` does."""
    KEYBOARD = 130
    """Ctrl-C; as a shell reports it."""
    BROKEN_PIPE = 141
    """The reader of our output has left; as a shell reports it."""


EXIT_CODES_HELP = """
\b
Exit codes of their own have:
  2    a wrong command line
  3    the database cannot be used; serve, worker: it cannot start
  65   the server refused the request; backup: FILE exists; copy: DST is not empty, or the two differ
  66   there is no such task or key
  69   the server cannot be reached, or cannot answer now
  74   reading or writing on this side failed
  77   the API key is not known, or may not do this
  78   there is no API key to be found
  124  wait: the time is over
  130  Ctrl-C
  141  the reader of the output has left
run, tail and wait otherwise exit with the task's code.
"""


class WrongUsage(click.UsageError):
    """A wrong command line that one line explains; click's own error would print three."""

    def show(self, file: object = None) -> None:
        tell(self.message)


def leave(code: int, message: str) -> NoReturn:
    """End the process with one line on standard error."""
    tell(message)
    sys.exit(code)


def tell(message: str) -> None:
    """One line for the user on standard error."""
    click.echo(f"taskserver: {printable(message)}", err=True)


def leave_for(error: ApiError) -> NoReturn:
    """End the process because of an answer of the server's."""
    if error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        leave(ExitCode.NO_PERMISSION, error.message)
    if error.status == HTTPStatus.NOT_FOUND:
        leave(ExitCode.NOT_FOUND, error.message)
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR or error.status == HTTPStatus.TOO_MANY_REQUESTS:
        leave(ExitCode.UNAVAILABLE, error.message)
    leave(ExitCode.REFUSED, error.message)


def leave_for_os(error: OSError) -> NoReturn:
    """End the process because a file or a pipe failed; quietly if it is our reader that has left."""
    if error.errno != errno.EPIPE:
        leave(ExitCode.IO_ERROR, f"{error.strerror}{f': {error.filename}' if error.filename else ''}")
    # What is still buffered must not fail again, and be told of, when Python flushes it at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(ExitCode.BROKEN_PIPE)


def exit_code_of(task_code: int) -> int:
    """A task's code as an exit code: itself if it can be one, else 1."""
    return task_code if 0 <= task_code <= 255 else 1


def printable(text: str) -> str:
    """The text on one line and without control characters, which could make a terminal do things."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
