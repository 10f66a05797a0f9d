"""``taskserver run --pty``: the command has a terminal, and so may we."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator

from taskserver.producer import exec_in_terminal
from tests.e2e.commands import COMMAND_LIMIT, TASKSERVER, Commands


class Window:
    """A terminal of ours in which a command runs, as in a terminal window."""

    def __init__(self, taskserver: Commands, *arguments: str) -> None:
        self.fd, inner = pty.openpty()
        self.resize(30, 100)
        self.seen = b""
        # The command must be the session's leader, with this as its controlling terminal, as under a shell.
        command = [sys.executable, exec_in_terminal.__file__, *TASKSERVER, *arguments]
        self.process = subprocess.Popen(
            command, env=taskserver.environment, stdin=inner, stdout=inner, stderr=inner, start_new_session=True
        )
        os.close(inner)

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size, as a user's mouse does."""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self.fd, keys)

    def until(self, text: bytes) -> None:
        """Read until ``text`` has been seen."""
        deadline = time.monotonic() + COMMAND_LIMIT
        while text not in self.seen:
            assert select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))[0], self.seen
            self.seen += os.read(self.fd, 4096)

    def end(self) -> int:
        """The command's exit code, once it has ended."""
        return self.process.wait(COMMAND_LIMIT)


@contextlib.contextmanager
def window(taskserver: Commands, *arguments: str) -> Iterator[Window]:
    """A window, closed at the end with what is left in it."""
    opened = Window(taskserver, *arguments)
    try:
        yield opened
    finally:
        opened.process.kill()
        opened.process.wait()
        os.close(opened.fd)


def test_the_command_sees_a_terminal_and_without_pty_it_does_not(taskserver: Commands) -> None:
    script = "test -t 0 && test -t 1 && test -t 2 && echo terminal || echo none; echo error >&2"

    assert taskserver("run", "-q", "--pty", "--", "sh", "-c", script).out == b"terminal\r\nerror\r\n"
    assert taskserver.the_task()["output"] == ["terminal", "error"]
    assert taskserver("run", "-q", "--", "sh", "-c", script).out == b"none\n"


def test_it_is_the_commands_controlling_terminal(taskserver: Commands) -> None:
    done = taskserver("run", "-q", "--pty", "--", "sh", "-c", "echo said to the terminal > /dev/tty")

    assert done.lines == ["said to the terminal"]


def test_input_from_a_pipe_is_forwarded_with_its_end_and_not_echoed(taskserver: Commands) -> None:
    assert taskserver("run", "-q", "--pty", "--", "cat", stdin=b"one\ntwo").out == b"one\r\ntwo"
    assert taskserver.the_task()["output"] == ["one", "two"]
    assert taskserver("run", "-q", "--pty", "--", "cat").out == b""


def test_the_exit_code_and_signals_are_as_without_a_terminal(taskserver: Commands) -> None:
    assert taskserver("run", "--pty", "--", "sh", "-c", "exit 9").code == 9
    with taskserver.start("run", "--pty", "--", "sh", "-c", "echo ready; sleep 600") as run:
        run.until_out("ready")
        run.signal(signal.SIGTERM)
        assert run.end().code == 128 + signal.SIGTERM


def test_the_window_is_passed_on_with_its_size_and_its_keys(taskserver: Commands) -> None:
    traps = "trap 'stty size' WINCH; trap 'echo interrupted; exit 3' INT"
    script = f"stty size; {traps}; echo ready; while :; do sleep 0.05; done"
    with window(taskserver, "run", "--pty", "--id", "shown", "--", "sh", "-c", script) as shown:
        shown.until(b"30 100\r\nready\r\n")
        shown.resize(40, 120)
        shown.until(b"40 120\r\n")
        shown.type(b"\x03")  # Ctrl-C: for the command's terminal, not for `run`
        shown.until(b"interrupted\r\n")
        assert shown.end() == 3
    assert taskserver.task("shown")["output"][:3] == ["30 100", "ready", "40 120"]


def test_our_own_terminal_is_put_back_as_it_was(taskserver: Commands) -> None:
    run = f'"{sys.executable}" -m taskserver run --pty -- sh -c "echo up; read x"'
    script = f"stty -a > before; {run}; stty -a > after; echo over"
    with window(taskserver, "run", "-q", "--pty", "--", "sh", "-c", f"cd {taskserver.folder}; {script}") as shown:
        shown.until(b"up\r\n")
        shown.type(b"\r")
        shown.until(b"over\r\n")
        assert shown.end() == 0
    before, after = ((taskserver.folder / name).read_text() for name in ("before", "after"))
    assert "speed" in before
    assert before == after


def test_a_background_job_leaves_the_terminal_alone(taskserver: Commands) -> None:
    run = f'"{sys.executable}" -m taskserver run --pty --id behind -- sh -c "echo up"'
    # A job-controlling shell puts a job behind `&` into a process group of its own, out of the foreground.
    with window(
        taskserver, "run", "-q", "--pty", "--", "bash", "-c", f"set -m; {run} & wait $!; echo over $?"
    ) as shown:
        shown.until(b"over 0\r\n")
        assert shown.end() == 0
    assert taskserver.task("behind")["output"] == ["up"]
