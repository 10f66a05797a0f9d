"""``taskserver run``: what reaches the server, what is echoed, and how it ends."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from taskserver.config import Limits
from taskserver.model import Stream
from tests.e2e.commands import Commands, stored_lines

LINE_BYTES = Limits().line_bytes


def python(code: str) -> list[str]:
    """A command that runs a piece of Python."""
    return ["--", sys.executable, "-c", code]


def test_a_command_becomes_a_task_that_ends_as_the_command_does(taskserver: Commands) -> None:
    done = taskserver("run", "--", "sh", "-c", "echo one; echo two; exit 3")

    assert done.code == 3
    assert done.out == b"one\ntwo\n"
    task = taskserver.the_task()
    assert done.err == f"taskserver: {taskserver.server.url}/v1/tasks/{task['id']}\n"
    assert task["output"] == ["one", "two"]
    assert (task["state"], task["code"], task["error"]) == ("failed", 3, "command exited with code 3")
    assert task["name"] == "sh -c 'echo one; echo two; exit 3'"
    assert task["lease"] == 30


def test_success_and_the_wishes_of_the_user(taskserver: Commands) -> None:
    done = taskserver(
        "run", "--quiet", "--id", "build-1", "--name", "the build", "--label", "branch=main", "--label", "empty=",
        "--lease", "12.5", "true", "-x",
    )  # fmt: skip

    assert (done.code, done.out, done.err) == (0, b"", "")
    task = taskserver.task("build-1")
    assert (task["state"], task["code"], task["error"], task["last"]) == ("success", 0, "", 0)
    assert (task["name"], task["labels"], task["lease"]) == ("the build", {"branch": "main", "empty": ""}, 12.5)


async def test_streams_stay_apart_and_lines_keep_the_time_at_which_they_were_read(taskserver: Commands) -> None:
    before = time.time_ns() // 1000
    done = taskserver("run", "-q", "--", "sh", "-c", "echo out; echo err >&2")
    after = time.time_ns() // 1000

    assert (done.out, done.err) == (b"out\n", "err\n")
    task_id = taskserver.the_task()["id"]
    taskserver.server.stop()
    lines = await stored_lines(taskserver.server, task_id)
    assert {(text, stream) for text, stream, _ in lines} == {("out", Stream.STDOUT), ("err", Stream.STDERR)}
    assert all(before <= time_us <= after for _, _, time_us in lines)


def test_the_echo_is_exact_and_what_is_sent_is_text(taskserver: Commands) -> None:
    raw = b"bad \xff\xfe utf\ncr\rlf\r\nnul \0 here\n\n\xf0\x9f\x90\x8d\nno newline"
    done = taskserver("run", "-q", *python(f"import sys; sys.stdout.buffer.write({raw!r})"))

    assert done.out == raw
    assert taskserver.the_task()["output"] == [
        "bad \ufffd\ufffd utf", "cr\rlf", "nul \0 here", "", "\N{SNAKE}", "no newline",
    ]  # fmt: skip


def test_a_line_that_is_too_long_is_split_between_characters(taskserver: Commands) -> None:
    length = 1_200_000  # characters of two bytes each
    done = taskserver("run", "-q", *python(f"print('é' * {length}); print('next')"))

    assert done.out == "é".encode() * length + b"\nnext\n"
    output = taskserver.the_task()["output"]
    assert output[-1] == "next"
    assert "".join(output[:-1]) == "é" * length
    assert [len(piece.encode()) for piece in output[:2]] == [LINE_BYTES, LINE_BYTES]
    assert len(output) == 4


def test_a_line_of_control_characters_fits_although_its_json_is_six_times_as_long(taskserver: Commands) -> None:
    done = taskserver("run", "-q", *python(f"print('\\x01' * {LINE_BYTES})"))

    assert done.code == 0
    assert taskserver.the_task()["output"] == ["\x01" * LINE_BYTES]


def test_much_output_arrives_whole_and_in_order(taskserver: Commands) -> None:
    done = taskserver("run", "-q", "--", "seq", "100000")

    numbers = [str(number) for number in range(1, 100_001)]
    assert done.lines == numbers
    assert taskserver.the_task()["output"] == numbers


def test_lines_come_as_they_are_printed(taskserver: Commands) -> None:
    with taskserver.start("run", "--", "sh", "-c", "echo ready; read answer; echo $answer") as run:
        run.until_out("ready\n")
        page = taskserver.server.get(f"/v1/tasks/{run.task_id}/output?wait=20").json
        assert page["output"] == ["ready"]
        assert taskserver.task(run.task_id)["state"] == "running"
        run.say("go on\n")

        assert run.end().code == 0
        assert taskserver.task(run.task_id)["output"] == ["ready", "go on"]


def test_standard_input_is_the_commands(taskserver: Commands) -> None:
    assert taskserver("run", "-q", "--", "cat", stdin=b"a\nb\n").out == b"a\nb\n"


@pytest.mark.parametrize("pty", [[], ["--pty"]])
def test_a_command_that_does_not_exist_fails_as_in_a_shell(taskserver: Commands, pty: list[str]) -> None:
    done = taskserver("run", *pty, "--", "no-such-command")

    assert done.code == 127
    assert "cannot run no-such-command: No such file or directory" in done.err + done.out.decode()
    assert (taskserver.the_task()["state"], taskserver.the_task()["code"]) == ("failed", 127)


@pytest.mark.parametrize("pty", [[], ["--pty"]])
def test_a_command_that_cannot_be_executed_fails_as_in_a_shell(taskserver: Commands, pty: list[str]) -> None:
    plain = taskserver.folder / "plain.txt"
    plain.write_text("not a program")
    plain.chmod(0o644)

    assert taskserver("run", *pty, "--", str(plain)).code == 126
    assert (taskserver.the_task()["state"], taskserver.the_task()["code"]) == ("failed", 126)


def test_a_name_that_is_too_long_or_no_utf8_is_made_to_fit(taskserver: Commands) -> None:
    done = taskserver("run", "-q", "--", "echo", "x" * 500, b"\xff".decode("utf-8", "surrogateescape"))

    assert done.out == b"x" * 500 + b" \xff\n"
    assert taskserver.the_task()["name"] == f"echo {'x' * 500}"[:200]


def test_no_spool_file_stays_behind(taskserver: Commands, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    taskserver("run", "--spool-folder", str(spool), "--", "seq", "10")
    taskserver("run", "--spool-folder", str(spool), "--id", "a/b", "--", "seq", "10")
    taskserver("run", "--spool-folder", str(spool), "--id", taskserver.the_task()["id"], "--", "seq", "10")

    assert list(spool.iterdir()) == []


def test_an_id_that_is_taken_keeps_the_command_from_starting(taskserver: Commands) -> None:
    taskserver.server.new_task(id="taken")
    done = taskserver("run", "--id", "taken", "--", "echo", "never")

    assert (done.code, done.out, done.err) == (65, b"", "taskserver: task id 'taken' is taken\n")


def test_closed_standard_streams_hurt_nobody(taskserver: Commands) -> None:
    taskserver.environment["PYTHON"] = sys.executable
    script = taskserver.folder / "closed.sh"
    script.write_text('"$PYTHON" -m taskserver run -q --id closed -- sh -c "echo out; echo err >&2" <&- >&- 2>&-\n')
    assert taskserver("run", "-q", "--", "sh", str(script)).code == 0

    assert sorted(taskserver.task("closed")["output"]) == ["err", "out"]
