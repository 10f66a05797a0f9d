"""taskserver's commands as a user starts them: processes of their own, against a server of the test's."""

from __future__ import annotations

import http.client
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from click.testing import CliRunner

from taskserver.cli import main
from taskserver.encoding import decode_side, decode_texts, quoted
from taskserver.model import Stream
from taskserver.stores import open_store
from tests.server import CALL_LIMIT, Server, until

COMMAND_LIMIT = 60.0  # seconds; reached only by a failure
TASKSERVER = (sys.executable, "-m", "taskserver")


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[str]:
        """Its standard output as lines of text."""
        return self.out.decode().splitlines()


class Running:
    """A command under way; use it as a context manager, which kills what is left at its end."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: Path) -> None:
        # Files and not pipes: they can be looked at any time, and hold up nobody.
        self._out = tempfile.NamedTemporaryFile(dir=folder, delete=False)  # noqa: SIM115 - closed in __exit__
        self._err = tempfile.NamedTemporaryFile(dir=folder, delete=False)  # noqa: SIM115
        # A test run in the background ignores SIGINT, and its children would inherit that.
        before = signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            self.process = subprocess.Popen(
                command, env=environment, cwd=folder, stdin=subprocess.PIPE, stdout=self._out, stderr=self._err
            )
        finally:
            signal.signal(signal.SIGINT, before)

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self._out.close()
        self._err.close()

    @property
    def out(self) -> bytes:
        """Its standard output so far."""
        return Path(self._out.name).read_bytes()

    @property
    def err(self) -> str:
        """Its standard error so far."""
        return Path(self._err.name).read_text(errors="replace")

    @property
    def task_id(self) -> str:
        """The id in the URL that ``run`` printed; waits for it."""
        url = re.compile(r"^taskserver: http://.*/v1/tasks/(\S+)$", re.MULTILINE)
        until(lambda: url.search(self.err) is not None or self.process.poll() is not None, "the task's URL")
        match = url.search(self.err)
        assert match is not None, self.err
        return match[1]

    def until_out(self, text: str) -> None:
        """Wait until ``text`` stands in its standard output."""
        until(lambda: text.encode() in self.out, f"{text!r} in the output")

    def until_err(self, text: str) -> None:
        """Wait until ``text`` stands in its standard error."""
        until(lambda: text in self.err, f"{text!r} on standard error")

    def say(self, text: str) -> None:
        """Write to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self) -> Done:
        """Wait until it has ended."""
        code = self.process.wait(COMMAND_LIMIT)
        return Done(code, self.out, self.err)


class Commands:
    """Starts commands that know where their server is."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.environment = {**server.cli_environment, "TMPDIR": str(folder)}  # spool files go there

    def start(self, *arguments: str, **environment: str) -> Running:
        """Start ``taskserver …``."""
        return Running([*TASKSERVER, *arguments], {**self.environment, **environment}, self.folder)

    def __call__(self, *arguments: str, stdin: bytes = b"", **environment: str) -> Done:
        """Run ``taskserver …`` to its end."""
        done = subprocess.run(
            [*TASKSERVER, *arguments],
            env={**self.environment, **environment},
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            timeout=COMMAND_LIMIT,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr.decode(errors="replace"))

    def inside(self, *arguments: str, **environment: str) -> Done:
        """The same in this process, which saves a start: for many calls that differ in a word."""
        ended = CliRunner().invoke(main, arguments, env={**self.environment, **environment})
        if ended.exception is not None and not isinstance(ended.exception, SystemExit):
            raise ended.exception
        return Done(ended.exit_code, ended.stdout_bytes, ended.stderr)

    def task(self, task_id: str) -> dict[str, Any]:
        """A task as the server tells of it."""
        answer = self.server.get(f"/v1/tasks/{task_id}")
        assert answer.status == 200, answer
        return dict(answer.json)

    def the_task(self) -> dict[str, Any]:
        """The only task that there is, or the newest."""
        return self.task(self.server.get("/v1/tasks?limit=1").json["tasks"][0]["id"])

    def last(self, task_id: str) -> int:
        """How many lines a task has; 0 if it does not exist yet."""
        return int(self.server.get(f"/v1/tasks/{task_id}/output?tail=0").json.get("last", 0))

    def until_sent(self, task_id: str, lines: int) -> None:
        """Wait until a run has sent that many lines and knows that they have arrived: its spool file is empty."""
        until(lambda: self.last(task_id) == lines, f"{lines} lines at the server")
        until(lambda: all(spool.stat().st_size == 0 for spool in self.folder.glob("taskserver-*")), "an empty spool")

    def until_state(self, task_id: str, state: str) -> None:
        """Wait until a task is in a state."""
        until(lambda: self.task(task_id)["state"] == state, f"the state {state}")


def on_a_terminal(taskserver: Commands, *arguments: str) -> str:
    """What a command shows on a terminal."""
    outer, inner = pty.openpty()
    with subprocess.Popen(
        [*TASKSERVER, *arguments], env={**taskserver.environment, "COLUMNS": "120"}, stdout=inner, stderr=inner
    ) as command:
        os.close(inner)
        shown = b""
        try:
            while data := os.read(outer, 4096):
                shown += data
        except OSError:
            pass  # the command has left its terminal
        os.close(outer)
    assert command.wait() == 0
    return shown.decode()


def signed_in(server: Server, token: str) -> bool:
    """Whether a token that was issued before is still good."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=CALL_LIMIT)
    with closing(connection):
        connection.request("GET", "/api/v2/dags", headers={"Authorization": f"Bearer {token}"})
        return connection.getresponse().status == 200


def gone(pid: int) -> bool:
    """Whether a process has ended and been waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def stored_lines(server: Server, task_id: str) -> list[tuple[str, Stream, int]]:
    """Text, stream and time (microseconds) of each line of a task, out of the database of a stopped server."""
    store = await open_store(server.database)
    try:
        task = await store.get_task(task_id)
        lines = []
        first = 0
        while first < task.last:
            for chunk in await store.read(task.log, first, task.last, 1 << 20):
                sides = decode_side(chunk.side, chunk.count)
                lines += [
                    (text, stream, time)
                    for text, (time, stream) in zip(decode_texts(quoted(chunk)), sides, strict=True)
                ]
                first = chunk.end
        return lines
    finally:
        await store.close()
