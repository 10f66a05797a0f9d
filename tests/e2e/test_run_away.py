"""``taskserver run`` while the server is away, or does not want the output any more."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys

import pytest

from tests.e2e.commands import TASKSERVER, Commands, Done, gone
from tests.server import until

LINES = 20_000
KILLS = 3
PART = 2 * LINES // (KILLS + 1)  # lines, of both streams, that are printed before it has to be told to go on
# Prints in bursts; goes on with the next part when it is told to, so that there is always something left to print.
NUMBERS = f"""
import sys, time
for number in range({LINES}):
    print("out", number)
    print("err", number, file=sys.stderr)
    if number % 100 == 99:
        sys.stdout.flush()
        time.sleep(0.005)
    if number % {LINES // (KILLS + 1)} == {LINES // (KILLS + 1) - 1}:
        sys.stdin.readline()
"""
GATED = ["--", "sh", "-c", "echo one; read go; echo two; read go; echo three; exit 5"]


def test_nothing_is_lost_or_repeated_when_the_server_is_killed_again_and_again(taskserver: Commands) -> None:
    with taskserver.start("run", "--", sys.executable, "-c", NUMBERS) as run:
        for part in range(KILLS):
            goal = part * PART + 1000
            until(lambda goal=goal: taskserver.last(run.task_id) > goal, "progress")  # type: ignore[misc]
            taskserver.server.kill()
            echoed = len(run.out)
            run.say("go on\n")
            until(lambda echoed=echoed: len(run.out) > echoed, "output without a server")  # type: ignore[misc]
            taskserver.server.start()
        run.say("go on\n")
        done = run.end()

    assert done.code == 0
    assert done.lines == [f"out {number}" for number in range(LINES)]
    output = taskserver.task(run.task_id)["output"]
    for stream in ("out", "err"):
        assert [line for line in output if line.startswith(stream)] == [f"{stream} {number}" for number in range(LINES)]
    assert len(output) == 2 * LINES
    assert taskserver.task(run.task_id)["state"] == "success"
    notices = [line for line in done.err.splitlines() if line.startswith("taskserver: ")]
    assert len(notices) >= 3
    assert all(notice.endswith("; keeping the output and trying again") for notice in notices[1::2])
    assert set(notices[2::2]) == {"taskserver: the server is back"}


def test_a_notice_has_a_line_of_its_own(taskserver: Commands) -> None:
    script = "printf half >&2; read go; echo one; read go; echo ' a line' >&2"
    with taskserver.start("run", "--lease", "600", "--", "sh", "-c", script) as run:
        run.until_err("half")
        taskserver.server.kill()
        run.say("go\n")
        run.until_err("trying again\n")
        run.until_out("one\n")
        run.say("go\n")
        run.until_err(" a line\n")
        taskserver.server.start()
        done = run.end()

    notices = [line.startswith("taskserver: ") for line in done.err.splitlines()]
    assert notices[:4] == [True, False, True, False], done.err  # the URL, the half of it, the outage, the rest of it
    assert taskserver.the_task()["output"] == ["one", "half a line"]


def test_both_streams_may_end_in_the_same_file(taskserver: Commands) -> None:
    script = '"$@" > both 2>&1; cat both'
    command = 'printf half; until [ "$(tail -c 4 both)" = half ]; do sleep 0.01; done; kill -9 $SERVER'
    run = (*TASKSERVER, "run", "--lease", "600", "--patience", "0", "--", "sh", "-c", command)
    server = taskserver.server.process
    assert server is not None
    ended = subprocess.run(
        ["sh", "-c", script, "sh", *run],
        env={**taskserver.environment, "SERVER": str(server.pid)},
        cwd=taskserver.folder,
        capture_output=True,
        timeout=60,
        check=True,
    )
    server.wait()
    lines = ended.stdout.decode().splitlines()
    assert lines[1] == "half"
    assert all(line.startswith("taskserver: ") for line in (lines[0], *lines[2:])), lines


def test_without_a_server_nothing_is_started(taskserver: Commands) -> None:
    taskserver.server.kill()
    done = taskserver("run", "--", "echo", "never")

    assert (done.code, done.out) == (69, b"")
    assert done.err == f"taskserver: cannot reach {taskserver.server.url}: Connection refused\n"
    assert list(taskserver.folder.glob("taskserver-*")) == []  # no spool file either


def test_a_command_that_ends_without_a_server_is_told_of_later(taskserver: Commands) -> None:
    with taskserver.start("run", *GATED) as run:
        run.until_out("one\n")
        taskserver.until_sent(run.task_id, 1)
        taskserver.server.kill()
        run.say("go\ngo\n")
        run.until_out("three\n")
        taskserver.server.start()

        assert run.end().code == 5
        task = taskserver.task(run.task_id)
        assert (task["output"], task["state"], task["code"]) == (["one", "two", "three"], "failed", 5)


def test_when_patience_is_over_the_rest_is_kept_and_can_be_sent(taskserver: Commands) -> None:
    done = left_alone(taskserver, "--patience", "0.5")

    assert "the lines that it did not take (2) are kept in " in done.err
    send(taskserver, done)
    task = taskserver.the_task()
    assert (task["output"], task["state"], task["code"]) == (["one", "two", "three"], "failed", 5)
    assert task["error"] == "command exited with code 5"


def test_lines_whose_answer_got_lost_are_not_sent_twice(taskserver: Commands) -> None:
    done = left_alone(taskserver, "--patience", "0.5")
    unanswered = re.search(r"head -n (\d+)", done.err)
    assert unanswered is not None, done.err

    # As if the server had taken them, and only its answer had got lost.
    taskserver.server.start()
    taken = {"lines": ["two", "three"][: int(unanswered[1])]}
    assert taskserver.server.post(f"/v1/tasks/{taskserver.the_task()['id']}/output?first=1", taken).status == 200
    send(taskserver, done)
    assert taskserver.the_task()["output"] == ["one", "two", "three"]


def test_a_command_that_prints_too_much_is_held_up_and_loses_nothing(taskserver: Commands) -> None:
    options = ["--spool-limit", "1", "--grace", "0.1", "--lease", "600"]
    with taskserver.start("run", *options, "--", "sh", "-c", "echo one; read go; seq 2 400000") as run:
        taskserver.until_sent(run.task_id, 1)
        taskserver.server.kill()
        run.say("go\n")
        run.until_err("has reached its limit of 1048576 bytes; the command is held up")
        taskserver.server.start()

        assert run.end().code == 0
        numbers = [str(number) for number in range(2, 400_001)]
        assert taskserver.task(run.task_id)["output"] == ["one", *numbers]


def test_a_signal_ends_the_patience(taskserver: Commands) -> None:
    with taskserver.start("run", "--lease", "600", "--", "sh", "-c", "echo $$; read go; echo kept; exit 5") as run:
        run.until_out("\n")
        taskserver.until_sent(run.task_id, 1)
        taskserver.server.kill()
        run.say("go\n")
        until(lambda: gone(int(run.out.split()[0])), "the command's end")
        run.signal(signal.SIGINT)

        done = run.end()
        assert done.code == 5
        assert "are kept in " in done.err
        send(taskserver, done)
        assert taskserver.task(run.task_id)["output"] == run.out.decode().split()


def test_if_only_the_end_could_not_be_told_no_file_is_kept(taskserver: Commands) -> None:
    with taskserver.start("run", "--patience", "0", "--lease", "600", "--", "sh", "-c", "echo one; read go") as run:
        run.until_out("one\n")
        taskserver.until_sent(run.task_id, 1)
        taskserver.server.kill()
        run.say("go\n")
        done = run.end()

    assert done.code == 0
    assert "are kept in" not in done.err
    send(taskserver, done)
    assert taskserver.the_task()["state"] == "success"


def test_a_run_that_has_lost_its_lease_says_so_once_and_goes_on(taskserver: Commands) -> None:
    with taskserver.start("run", "--lease", "6", *GATED) as run:
        run.until_out("one\n")
        taskserver.until_sent(run.task_id, 1)
        run.signal(signal.SIGSTOP)
        taskserver.until_state(run.task_id, "interrupted")
        run.signal(signal.SIGCONT)
        run.until_err("the server has ended the task as interrupted; the rest of the output is shown here only")
        run.say("go\ngo\n")
        done = run.end()

    assert (done.code, done.lines) == (5, ["one", "two", "three"])
    assert done.err.count("interrupted") == 1
    task = taskserver.task(run.task_id)
    assert (task["output"], task["code"], task["error"]) == (["one"], 255, "producer lost: not heard of for 6 s")


def test_a_key_that_is_revoked_meanwhile_stops_the_sending_only(taskserver: Commands) -> None:
    key = taskserver.server.new_key("ci", "write")
    with taskserver.start("run", "--lease", "600", *GATED, TASKSERVER_KEY=key) as run:
        run.until_out("one\n")
        taskserver.until_sent(run.task_id, 1)
        assert taskserver("keys", "revoke", "ci").code == 0
        run.say("go\n")
        run.until_err("the server refuses the output: the API key is unknown, revoked or expired")
        run.say("go\n")
        done = run.end()

    assert (done.code, done.lines) == (5, ["one", "two", "three"])
    send(taskserver, done)  # with another key
    assert taskserver.task(run.task_id)["output"] == ["one", "two", "three"]


def test_lines_of_another_producer_do_not_get_in_the_way(taskserver: Commands) -> None:
    with taskserver.start("run", *GATED) as run:
        run.until_out("one\n")
        taskserver.until_sent(run.task_id, 1)
        assert taskserver.server.post(f"/v1/tasks/{run.task_id}/output", "another's\n").status == 200
        run.say("go\ngo\n")

        done = run.end()
        assert taskserver.task(run.task_id)["output"] == ["one", "another's", "two", "three"]
        assert "the task's output is not as this command left it" in done.err


def left_alone(taskserver: Commands, *options: str) -> Done:
    """A run whose server goes away after the first of three lines and stays away."""
    with taskserver.start("run", "--lease", "600", *options, *GATED) as run:
        run.until_out("one\n")
        taskserver.until_sent(run.task_id, 1)
        taskserver.server.kill()
        run.say("go\ngo\n")
        done = run.end()
    assert (done.code, done.lines) == (5, ["one", "two", "three"])
    return done


def send(taskserver: Commands, done: Done) -> None:
    """Do what a run advised: its curl lines, in order."""
    if shutil.which("curl") is None:
        pytest.skip("the advice is for curl, and there is none here")
    if taskserver.server.process is not None and taskserver.server.process.poll() is not None:
        taskserver.server.start()
    advice = [line.removeprefix("taskserver: ") for line in done.err.splitlines() if "curl" in line]
    assert advice
    for line in advice:
        subprocess.run(["sh", "-c", line], env=taskserver.environment, check=True, capture_output=True, timeout=60)
