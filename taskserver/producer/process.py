"""The command's process: started in a session of its own, on pipes or on a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from taskserver.model import Stream
from taskserver.producer import exec_in_terminal
from taskserver.producer.echo import STDERR, STDOUT
from taskserver.producer.pump import PIPE_BYTES
from taskserver.producer.terminal import Terminal

NOT_FOUND, NOT_EXECUTABLE = 127, 126  # what a shell reports
SIGNAL_BASE = 128  # a shell reports 128 + n of what signal n has ended


class CannotStart(Exception):
    """The command cannot be started; ``code`` is what a shell would report."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


@dataclass(frozen=True)
class Source:
    """A descriptor to read output from, which stream it is, and where it would have gone without us."""

    fd: int
    stream: Stream
    echo: int


@dataclass(frozen=True)
class Exit:
    """How the command ended: 0 to 255, and a text if that is not 0."""

    code: int
    error: str


class Process:
    """A running command, leader of its own session and process group."""

    def __init__(self, popen: subprocess.Popen[bytes], sources: Sequence[Source]) -> None:
        self._popen = popen
        self.sources = sources

    @property
    def group(self) -> int:
        """The number of its process group."""
        return self._popen.pid

    def signal(self, number: int) -> bool:
        """Send a signal to the command and all that it started in its group; False if the command has ended."""
        if self._popen.returncode is not None:
            return False
        try:
            with contextlib.suppress(PermissionError):  # it became somebody else, as `sudo` does, and lives on
                os.killpg(self._popen.pid, number)
        except ProcessLookupError:
            return False
        return True

    async def wait(self) -> Exit:
        """How it ended, once it has. What it started may live on."""
        code = await asyncio.to_thread(self._popen.wait)
        if code >= 0:
            return Exit(code, f"command exited with code {code}" if code else "")
        return Exit(SIGNAL_BASE - code, f"ended by signal {signal_name(-code)}")


def start_on_pipes(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Process:
    """Start a command with a pipe for each stream; its input is ours, and its environment, if no other is given.

    Raises CannotStart.
    """
    out, out_end = _pipe()
    err, err_end = _pipe()
    try:
        popen = _start(command, stdout=out_end, stderr=err_end, environment=environment)
    except CannotStart:
        os.close(out)
        os.close(err)
        raise
    finally:
        os.close(out_end)
        os.close(err_end)
    return Process(popen, [Source(out, Stream.STDOUT, STDOUT), Source(err, Stream.STDERR, STDERR)])


def start_on_terminal(command: Sequence[str], terminal: Terminal) -> Process:
    """Start a command whose terminal is ``terminal``. Raises CannotStart.

    A command that cannot be run says so in its output, and ends with the code
    that a shell would report.
    """
    inner = terminal.inner
    try:
        # -I and -S: neither the user's environment nor site packages matter to these few lines, and it starts faster.
        become = [sys.executable, "-I", "-S", str(Path(exec_in_terminal.__file__)), *command]
        popen = _start(become, stdin=inner, stdout=inner, stderr=inner)
    finally:
        terminal.close_inner()
    return Process(popen, [Source(os.dup(terminal.outer), Stream.STDOUT, STDOUT)])


def _start(
    command: Sequence[str],
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command, stdin=stdin, stdout=stdout, stderr=stderr, env=environment, start_new_session=True
        )
    except FileNotFoundError as error:
        raise CannotStart(f"cannot run {command[0]}: {error.strerror}", NOT_FOUND) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise CannotStart(f"cannot run {command[0]}: {reason}", NOT_EXECUTABLE) from error


def _pipe() -> tuple[int, int]:
    read, write = os.pipe()
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        # Fewer, larger reads, and a command that is seldom held up. Over the user's quota the default has to do.
        with contextlib.suppress(OSError):
            fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return read, write


def signal_name(number: int) -> str:
    """Such as ``SIGTERM``; a real-time signal has a number only."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
