"""``taskserver tail`` and ``wait``: follow a task to its end, whatever happens to the server."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.e2e.commands import TASKSERVER, Commands
from tests.server import Server, until


def lines(first: int, last: int) -> str:
    """Lines of a task: ``line 3`` …"""
    return "".join(f"line {number}\n" for number in range(first, last))


def finished(server: Server, text: str, **word: object) -> str:
    """A finished task with this output."""
    task_id = server.new_task()
    assert server.post(f"/v1/tasks/{task_id}/output", text).status == 200
    assert server.post(f"/v1/tasks/{task_id}/finish", word).status == 200
    return task_id


def test_tail_prints_what_is_there_and_ends_as_the_task_did(taskserver: Commands) -> None:
    task_id = finished(taskserver.server, "one\nzwei ü\n\nthree", code=3, error="it broke")
    done = taskserver("tail", task_id)

    assert (done.code, done.out, done.err) == (3, "one\nzwei ü\n\nthree\n".encode(), "taskserver: it broke\n")


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (255, 255), (256, 1), (-1, 1), (2**31 - 1, 1)])
def test_a_code_that_no_process_can_have_becomes_one(taskserver: Commands, code: int, expected: int) -> None:
    task_id = finished(taskserver.server, "", code=code)

    assert taskserver.inside("tail", task_id).code == expected
    assert taskserver.inside("wait", task_id).code == expected


def test_a_task_that_was_interrupted_or_cancelled_says_so(taskserver: Commands) -> None:
    lost = taskserver.server.new_task(lease=0.1)
    done = taskserver.inside("tail", lost)
    assert (done.code, done.err) == (255, "taskserver: producer lost: not heard of for 0.1 s\n")

    cancelled = taskserver.server.new_task()
    assert taskserver.inside("cancel", cancelled).err == f"taskserver: task {cancelled} is cancelled\n"
    done = taskserver.inside("wait", cancelled)
    assert (done.code, done.err) == (130, "taskserver: cancelled before it was started\n")


def test_tail_begins_where_it_is_told_to(taskserver: Commands) -> None:
    task_id = finished(taskserver.server, lines(0, 100))

    assert taskserver.inside("tail", "--first", "97", task_id).out.decode() == lines(97, 100)
    assert taskserver.inside("tail", "--first", "100", task_id).out == b""
    assert taskserver.inside("tail", "--tail", "2", task_id).out.decode() == lines(98, 100)
    assert taskserver.inside("tail", "--tail", "0", task_id).out == b""
    assert taskserver.inside("tail", "--tail", "1000", task_id).out.decode() == lines(0, 100)
    assert taskserver.inside("tail", task_id, TASKSERVER_TAIL_TAIL="1").out.decode() == lines(99, 100)

    beyond = taskserver.inside("tail", "--first", "101", task_id)
    assert (beyond.code, beyond.err) == (65, "taskserver: first: is 101, but the output has 100 lines so far\n")
    both = taskserver.inside("tail", "--first", "1", "--tail", "1", task_id)
    assert (both.code, both.err) == (2, "taskserver: give either --first or --tail, not both\n")


def test_no_follow_prints_what_is_there_of_a_running_task(taskserver: Commands) -> None:
    task_id = taskserver.server.new_task()
    assert taskserver("tail", "--no-follow", task_id).out == b""
    taskserver.server.post(f"/v1/tasks/{task_id}/output", lines(0, 25_000))

    done = taskserver("tail", "--no-follow", task_id)
    assert (done.code, done.out.decode()) == (0, lines(0, 25_000))
    assert taskserver("tail", "--no-follow", "--first", "24999", task_id).out.decode() == lines(24_999, 25_000)
    assert taskserver("tail", "--no-follow", "--tail", "20000", task_id).out.decode() == lines(5_000, 25_000)


def test_tail_follows_line_by_line_and_across_restarts_of_the_server(taskserver: Commands) -> None:
    server = taskserver.server
    task_id = server.new_task()
    with taskserver.start("tail", task_id) as tail:
        for number in range(4):
            server.post(f"/v1/tasks/{task_id}/output", lines(number * 100, (number + 1) * 100))
            tail.until_out(f"line {number * 100 + 99}\n")
            if number % 2:
                server.stop()
            else:
                server.kill()
            server.start()
        server.post(f"/v1/tasks/{task_id}/finish", {"code": 4, "error": "the end", "output": ["last"]})
        done = tail.end()

    assert (done.code, done.err) == (4, "taskserver: the end\n")
    assert done.out.decode() == lines(0, 400) + "last\n"


def test_tail_loses_its_patience_with_a_server_that_stays_away(taskserver: Commands) -> None:
    task_id = taskserver.server.new_task()
    taskserver.server.post(f"/v1/tasks/{task_id}/output", "one\n")
    with taskserver.start("tail", "--patience", "0.5", task_id) as tail:
        tail.until_out("one\n")
        taskserver.server.kill()
        done = tail.end()

    assert (done.code, done.err.count("\n")) == (69, 1)
    assert done.err.startswith(f"taskserver: cannot reach {taskserver.server.url}: ")


def test_a_task_that_is_deleted_under_a_tail_ends_it(taskserver: Commands) -> None:
    task_id = finished(taskserver.server, lines(0, 100_000))
    with subprocess.Popen(
        [*TASKSERVER, "tail", task_id],
        env=taskserver.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as tail:
        assert tail.stdout is not None
        assert tail.stdout.readline() == "line 0\n"  # and the pipe is full: most of it has not been asked for
        assert taskserver.server.call("DELETE", f"/v1/tasks/{task_id}").status == 204
        _, err = tail.communicate(timeout=60)
    assert (tail.returncode, err) == (66, f"taskserver: there is no task '{task_id}'\n")


def test_tail_ends_quietly_when_its_reader_has_enough(taskserver: Commands) -> None:
    task_id = finished(taskserver.server, lines(0, 100_000))
    command = f'"{sys.executable}" -m taskserver tail {task_id} | head -n 1'
    done = subprocess.run(
        ["bash", "-c", f"{command}; echo ${{PIPESTATUS[0]}}"],
        env=taskserver.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("line 0\n141\n", "")


def test_wait_ends_with_the_task_whatever_happens_to_the_server(taskserver: Commands) -> None:
    server = taskserver.server
    server.stop()
    server.arguments = ("--access-log",)
    server.start()
    task_id = server.new_task()
    with taskserver.start("wait", task_id) as wait, taskserver.start("wait", "--timeout", "60", task_id) as timed:
        until(lambda: server.log.count(f"method=GET path=/v1/tasks/{task_id} status=200") == 2, "both having begun")
        server.post(f"/v1/tasks/{task_id}/output", lines(0, 10))
        taskserver.server.kill()
        taskserver.server.start()
        taskserver.server.post(f"/v1/tasks/{task_id}/finish", {"code": 5, "error": "it broke"})

        for done in (wait.end(), timed.end()):
            assert (done.code, done.out, done.err) == (5, b"", "taskserver: it broke\n")


def test_wait_gives_up_when_the_time_is_over(taskserver: Commands) -> None:
    task_id = taskserver.server.new_task()
    done = taskserver("wait", "--timeout", "0.2", task_id)
    assert (done.code, done.err) == (124, f"taskserver: task {task_id} is queued after 0.2 s\n")

    taskserver.server.post(f"/v1/tasks/{task_id}/output", "one\n")
    done = taskserver("wait", "--timeout", "0", task_id)
    assert (done.code, done.err) == (124, f"taskserver: task {task_id} is running after 0 s\n")


def test_many_tails_of_one_run_all_see_everything(taskserver: Commands) -> None:
    with taskserver.start("run", "--", "sh", "-c", "echo go; read x; seq 20000") as run:
        until(lambda: taskserver.last(run.task_id) == 1, "the first line")
        with taskserver.start("tail", run.task_id) as one, taskserver.start("tail", "--first", "1", run.task_id) as two:
            one.until_out("go\n")
            run.say("x\n")
            numbers = "".join(f"{number}\n" for number in range(1, 20_001)).encode()
            assert one.end().out == b"go\n" + numbers
            assert two.end().out == numbers
