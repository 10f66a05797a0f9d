"""``taskserver run`` and signals: forwarded ones, those that end the command, and a cancel's."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from tests.e2e.commands import TASKSERVER, Commands, gone
from tests.server import until

QUIET_LEASE = ("--lease", "6")  # a sign of life every two seconds: a cancel is noticed as soon


def shell(script: str) -> list[str]:
    """A command that runs a shell script."""
    return ["--", "sh", "-c", script]


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "QUIT", "USR1", "USR2"])
def test_a_signal_goes_to_the_command(taskserver: Commands, name: str) -> None:
    script = f"trap 'echo got {name}; exit 7' {name}; echo ready; while :; do sleep 0.05; done"
    with taskserver.start("run", *shell(script)) as run:
        run.until_out("ready\n")
        run.signal(signal.Signals[f"SIG{name}"])

        assert run.end().code == 7
        task = taskserver.task(run.task_id)
        # Some shells remark that the signal has also ended the `sleep`.
        assert set(task["output"]) >= {"ready", f"got {name}"}
        assert (task["state"], task["code"]) == ("failed", 7)


def test_a_signal_goes_to_the_whole_group_of_the_command(taskserver: Commands) -> None:
    script = "trap 'wait; exit 9' TERM; (trap 'echo child; exit' TERM; echo ready; while :; do sleep 0.05; done) & wait"
    with taskserver.start("run", *shell(script)) as run:
        run.until_out("ready\n")
        run.signal(signal.SIGTERM)

        assert run.end().code == 9
        assert "child" in taskserver.task(run.task_id)["output"]


def test_a_command_that_a_signal_ended_says_which(taskserver: Commands) -> None:
    done = taskserver("run", *shell("kill -SEGV $$"))

    assert done.code == 128 + signal.SIGSEGV
    task = taskserver.the_task()
    assert (task["state"], task["code"], task["error"]) == ("failed", 139, "ended by signal SIGSEGV")


def test_what_we_were_started_to_ignore_the_command_ignores_too(taskserver: Commands) -> None:
    with taskserver.start("run", *shell("echo ready; read go; echo went on")) as plain:
        plain.until_out("ready\n")
        plain.signal(signal.SIGHUP)
        assert plain.end().code == 128 + signal.SIGHUP

    nohup = [
        "-q",
        *shell(f'trap "" HUP; exec "{sys.executable}" -m taskserver run --id inner -- sh -c "echo up; read go"'),
    ]
    with taskserver.start("run", *nohup) as run:
        run.until_out("up\n")
        run.signal(signal.SIGHUP)
        run.say("go\n")
        assert run.end().code == 0
    assert taskserver.task("inner")["state"] == "success"


def test_a_cancel_ends_a_quiet_command(taskserver: Commands) -> None:
    with taskserver.start("run", *QUIET_LEASE, *shell("echo ready; sleep 600")) as run:
        run.until_out("ready\n")
        taskserver.until_state(run.task_id, "running")
        assert taskserver("cancel", run.task_id).err == f"taskserver: task {run.task_id} is asked to stop\n"

        done = run.end()
        assert done.code == 128 + signal.SIGTERM
        assert "the task is to be cancelled" in done.err
        task = taskserver.task(run.task_id)
        assert (task["state"], task["code"], task["error"]) == ("cancelled", 143, "ended by signal SIGTERM")


def test_a_cancel_ends_a_busy_command_with_its_last_words(taskserver: Commands) -> None:
    script = "trap 'echo cleaning up; exit 4' TERM; while :; do echo busy; sleep 0.02; done"
    with taskserver.start("run", *shell(script)) as run:
        run.until_out("busy\n")
        taskserver.until_state(run.task_id, "running")
        taskserver("cancel", run.task_id)

        assert run.end().code == 4
        task = taskserver.task(run.task_id)
        assert task["state"] == "cancelled"
        assert "cleaning up" in task["output"]


def test_a_command_that_does_not_listen_to_a_cancel_is_killed(taskserver: Commands) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
    with taskserver.start("run", *QUIET_LEASE, "--kill-after", "0.3", *shell(script)) as run:
        run.until_out("ready\n")
        taskserver.until_state(run.task_id, "running")
        taskserver("cancel", run.task_id)

        assert run.end().code == 128 + signal.SIGKILL
        task = taskserver.task(run.task_id)
        assert (task["state"], task["error"]) == ("cancelled", "ended by signal SIGKILL")


def test_a_quiet_command_keeps_its_lease(taskserver: Commands) -> None:
    with taskserver.start("run", *QUIET_LEASE, *shell("echo ready; read go; echo done")) as run:
        run.until_out("ready\n")
        # Longer than a lease: the wait ends with the task only.
        assert taskserver("wait", "--timeout", "8", run.task_id).code == 124
        run.say("go\n")

        assert run.end().code == 0
        assert taskserver.task(run.task_id)["state"] == "success"


def test_what_a_command_left_behind_does_not_hold_the_run(taskserver: Commands) -> None:
    pid_file = taskserver.folder / "pid"
    script = (
        f"(echo left behind; : > {pid_file}.up; exec sleep 600) & echo $! > {pid_file};"
        f" until [ -e {pid_file}.up ]; do sleep 0.01; done; echo main; exit 6"
    )
    done = taskserver("run", "--grace", "0.5", *shell(script))
    os.kill(int(pid_file.read_text()), signal.SIGKILL)

    assert done.code == 6
    assert sorted(taskserver.the_task()["output"]) == ["left behind", "main"]


def test_what_comes_within_the_grace_is_part_of_the_output(taskserver: Commands) -> None:
    with taskserver.start("run", "--grace", "60", *shell("(read go; echo late) <&0 & echo main; exit 6")) as run:
        run.until_out("main\n")
        run.say("go\n")

        assert run.end().code == 6
        assert taskserver.task(run.task_id)["output"] == ["main", "late"]


def test_a_signal_after_the_end_of_the_command_ends_the_grace(taskserver: Commands) -> None:
    with taskserver.start("run", "--grace", "600", *shell("sleep 600 & echo $$ $!; exit 6")) as run:
        run.until_out("\n")
        main, left_behind = map(int, run.out.split())
        until(lambda: gone(main), "the command's end")
        run.signal(signal.SIGTERM)
        done = run.end()
    assert done.code == 6
    assert taskserver.task(run.task_id)["output"] == [f"{main} {left_behind}"]
    with contextlib.suppress(ProcessLookupError):
        os.kill(left_behind, signal.SIGKILL)


def test_a_reader_that_leaves_ends_the_command_as_in_a_shell(taskserver: Commands) -> None:
    with subprocess.Popen(
        [*TASKSERVER, "run", "--id", "yes", "--", "yes"],
        env=taskserver.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        assert run.stdout.readline() == b"y\n"
        run.stdout.close()
        assert run.wait(60) == 128 + signal.SIGPIPE
        assert run.stderr.read().count(b"\n") == 1  # the URL and nothing else
    task = taskserver.task("yes")
    assert (task["state"], task["error"]) == ("failed", "ended by signal SIGPIPE")


def test_a_reader_that_is_slow_gets_everything(taskserver: Commands) -> None:
    with subprocess.Popen(
        [*TASKSERVER, "run", "--id", "slow", "--grace", "0.1", "--", "seq", "300000"],
        env=taskserver.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as run:
        assert run.stdout is not None
        # Nothing is read before the server has as much as it can get while the echo is stuck.
        until(lambda: taskserver.last("slow") > 10_000, "lines at the server")
        expected = b"".join(b"%d\n" % number for number in range(1, 300_001))
        assert run.stdout.read() == expected
        assert run.wait(60) == 0
    assert taskserver.last("slow") == 300_000
