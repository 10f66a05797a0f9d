"""No command outlives the process that runs it as a task, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from taskserver.worker.stopping import Stopper
from tests.server import runs, until
from tests.unit.test_worker_calling import called

# Runs commands as a task does; their process groups end with the last process of each.
PREAMBLE = """
import os, subprocess, sys, time
from taskserver.worker.guard import GUARD

watched = []

def started(said=True):
    watched.append(GUARD.watching())
    word = watched[-1].__enter__()
    command = subprocess.Popen(["sleep", "600"], start_new_session=True, env=word.environment)
    if said:
        word.started(command.pid)
    print(command.pid, flush=True)
"""


@contextmanager
def running(code: str) -> Iterator[subprocess.Popen[str]]:
    """A process of its own with some code."""
    process = subprocess.Popen([sys.executable, "-c", PREAMBLE + code], stdout=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


def pid_from(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")


def test_a_killed_process_takes_its_commands_along() -> None:
    with running("started(); started(); time.sleep(600)") as process:
        commands = [pid_from(process), pid_from(process)]
        process.kill()
        until(lambda: not any(runs(command) for command in commands), "the commands' end")


def test_one_that_is_killed_before_it_could_say_what_it_has_started_does_too() -> None:
    with running("started(said=False); started(); started(said=False); time.sleep(600)") as process:
        commands = [pid_from(process) for _ in range(3)]
        process.kill()
        until(lambda: not any(runs(command) for command in commands), "the commands' end")


def test_what_a_command_leaves_behind_on_purpose_is_not_looked_for() -> None:
    code = "started(); watched[0].__exit__(None, None, None); started(); time.sleep(600)"
    with running(code) as process:
        left, watched = pid_from(process), pid_from(process)
        process.kill()
        try:
            until(lambda: not runs(watched), "the command's end")
            assert runs(left)
        finally:
            os.kill(left, signal.SIGKILL)


@pytest.mark.parametrize("end", ["sys.exit()", "os._exit(0)"])
def test_so_does_one_that_ends(end: str) -> None:
    with running(f"started(); {end}") as process:
        command = pid_from(process)
        assert process.wait(20) == 0
        until(lambda: not runs(command), "the command's end")


def test_a_guard_that_is_killed_is_replaced() -> None:
    code = "started(); print(GUARD._process.pid, flush=True); sys.stdin.read(1); started(); time.sleep(600)"
    process = subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        first, guard = pid_from(process), pid_from(process)
        os.kill(guard, signal.SIGKILL)
        until(lambda: not runs(guard), "the guard's end")
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.flush()
        second = pid_from(process)
        process.kill()
        until(lambda: not runs(first) and not runs(second), "the commands' end")


def test_a_forked_copy_of_the_process_keeps_nothing_alive() -> None:
    with running("started()\nif copy := os.fork():\n    print(copy, flush=True)\ntime.sleep(600)") as process:
        command, copy = pid_from(process), pid_from(process)
        try:
            process.kill()
            until(lambda: not runs(command), "the command's end")
            assert runs(copy)
        finally:
            with suppress(ProcessLookupError):
                os.kill(copy, signal.SIGKILL)


def test_what_a_stopped_command_has_started_ends_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("taskserver.worker.command.KILL_AFTER", 0.5)
    left = f"(trap '' TERM; exec sleep 600) & echo $! > {tmp_path}/pid; wait"
    stopper, pid = Stopper(), tmp_path / "pid"

    def stop() -> None:
        until(lambda: pid.exists() and pid.read_text().strip(), "what it has started")
        stopper.stop("enough")

    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(stop)
        ended, _ = called(lambda: left, stopper, command=True)
        stopping.result()
    assert ended.error == "enough"
    until(lambda: not runs(int(pid.read_text())), "the end of what it has started")
