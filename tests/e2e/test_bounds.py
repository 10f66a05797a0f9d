"""``serve``'s bounds as an operator sets them, and ``run`` where an output is too long."""

from __future__ import annotations

import contextlib
import select
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from taskserver.model import Stream
from tests.e2e.commands import Commands, stored_lines
from tests.e2e.raw import Raw
from tests.server import Answer, Server, until

WRONG_USAGE = 2
A_WRONG_KEY = "x" * 40
LINES = 100  # of --max-output; a quarter is for the end


# --- output --------------------------------------------------------------------------


@pytest.fixture
def short(tmp_path: Path) -> Iterator[Commands]:
    """Commands whose server keeps at most 100 lines of each output."""
    with Server(tmp_path, "--max-output", str(LINES)) as server:
        yield Commands(server, tmp_path)


def printing(count: int) -> list[str]:
    """A command that does so, to its error stream, and fails."""
    return ["--", "sh", "-c", f"seq {count} >&2; exit 3"]


async def test_run_keeps_the_head_and_the_newest_lines_with_a_mark_between(short: Commands) -> None:
    done = short("run", *printing(100_000))

    assert done.code == 3
    assert done.err.count("\n") >= 100_000  # the echo is whole
    assert "taskserver: the task keeps at most 100 lines" in done.err
    task = short.the_task()
    assert (task["state"], task["code"], task["last"]) == ("failed", 3, LINES)
    head, end = numbers(1, 76), numbers(99_977, 100_001)
    assert task["output"] == [*head, "[taskserver: 99901 lines omitted]", *end]
    short.server.stop()
    stored = await stored_lines(short.server, task["id"])
    assert [stream for _, stream, _ in stored] == [Stream.STDERR] * 75 + [Stream.STDOUT] + [Stream.STDERR] * 24


def numbers(first: int, end: int) -> list[str]:
    return [str(number) for number in range(first, end)]


@pytest.mark.parametrize("count", [75, 76, 100])
def test_run_writes_no_mark_where_all_fits(short: Commands, count: int) -> None:
    done = short("run", "-q", *printing(count))

    assert done.code == 3
    task = short.the_task()
    assert (task["state"], task["output"]) == ("failed", numbers(1, count + 1))


def test_run_reaches_the_end_over_a_restart_of_the_server(short: Commands) -> None:
    script = "seq 1000; read go; seq 1001 2000; read go; echo last"
    with short.start("run", "--", "sh", "-c", script) as run:
        run.until_err("at most 100 lines")
        short.server.kill()
        run.say("go\n")
        run.until_out("2000\n")
        short.server.start()
        run.say("go\n")
        done = run.end()

    assert done.code == 0
    task = short.task(run.task_id)
    assert (task["state"], task["last"]) == ("success", LINES)
    end = [*numbers(1978, 2001), "last"]
    assert task["output"] == [*numbers(1, 76), "[taskserver: 1902 lines omitted]", *end]


def test_the_bound_holds_over_a_restart(short: Commands) -> None:
    server = short.server
    task = server.new_task()
    assert server.post(f"/v1/tasks/{task}/output", "x\n" * 74).json["last"] == 74
    server.kill()
    server.start()
    refusal = server.post(f"/v1/tasks/{task}/output", "x\n" * 2)
    assert (refusal.status, refusal.json["payload"]) == (413, {"last": 74, "limit": 75, "reserve": 25})
    assert server.post(f"/v1/tasks/{task}/output", "x\n").json["last"] == 75


def test_the_bound_holds_in_every_process(tmp_path: Path) -> None:
    with Server(tmp_path, "--max-output", "40", "--workers", "2") as server, ThreadPoolExecutor(4) as pool:
        task = server.new_task()
        answers = list(pool.map(lambda _: server.post(f"/v1/tasks/{task}/output", "x\n"), range(60)))
        assert sorted(answer.status for answer in answers) == [200] * 30 + [413] * 30
        assert server.get(f"/v1/tasks/{task}").json["last"] == 30


# --- how many, how often -------------------------------------------------------------


def refusals(server: Server, count: int, key: str | None = None) -> list[Answer]:
    """Those of so many requests in a row that are refused."""
    answers = [server.get("/v1/tasks", key=key) for _ in range(count)]
    return [answer for answer in answers if answer.status == 429]


def test_requests_per_key_and_in_all(tmp_path: Path) -> None:
    with Server(tmp_path, TASKSERVER_MAX_RATE_PER_KEY="0.002", TASKSERVER_MAX_RATE="0.004") as server:
        assert len(refusals(server, 3)) == 2  # one at least is saved
        assert {answer.status for answer in (server.get("/readyz"), server.get("/healthz"))} == {200}
        refusal = server.get("/v1/tasks")
        assert refusal.json["code"] == 1024
        assert int(refusal.headers["Retry-After"]) > 100


def test_several_processes_share_the_rate(tmp_path: Path) -> None:
    with Server(tmp_path, "--workers", "2", "--max-rate-per-key", "0.04") as server:
        # Less than one in a second: connections go to one process after the other, and each has one saved.
        assert len(refusals(server, 10)) == 8


def test_several_processes_share_the_waiters(tmp_path: Path) -> None:
    with Server(tmp_path, "--workers", "2", "--max-waiters-per-key", "4") as server, contextlib.ExitStack() as stack:
        task = server.new_task()
        path = f"/v1/tasks/{task}/output?wait=55"
        waiting = [stack.enter_context(Raw(server)).ask("GET", path) for _ in range(10)]
        # Connections go to one process after the other: five to each, which lets two wait and refuses three.
        refused: list[Raw] = []

        def six_are_refused() -> bool:
            refused.extend(answered(waiting))
            return len(refused) == 6

        until(six_are_refused, "six refusals")
        assert {raw.answer().status for raw in refused} == {429}
        server.post(f"/v1/tasks/{task}/finish", {})
        assert [raw.answer().json["finished"] for raw in waiting] == [True] * 4


def answered(waiting: list[Raw]) -> list[Raw]:
    """Those that have got something by now; they are taken out."""
    ready, _, _ = select.select([raw.socket for raw in waiting], [], [], 0)
    found = [raw for raw in waiting if raw.socket in ready]
    waiting[:] = [raw for raw in waiting if raw.socket not in ready]
    return found


def test_wrong_keys_behind_a_trusted_proxy(tmp_path: Path) -> None:
    arguments = ("--max-failed-sign-ins", "2", "--trusted-proxy", "127.0.0.0/8", "--trusted-proxy", "::1")
    with Server(tmp_path, *arguments) as server:

        def fail(address: str) -> int:
            with Raw(server) as raw:
                return raw.ask("GET", "/v1/tasks", f"X-Forwarded-For: {address}", key=A_WRONG_KEY).answer().status

        assert [fail("198.51.100.1") for _ in range(4)] == [401, 401, 429, 429]
        assert fail("198.51.100.2") == 401
        assert server.get("/v1/tasks").status == 200


# --- settings that cannot be meant ---------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--max-waiters", "0"], ["--max-waiters", "x>=1"]),
        (["--max-waiters-per-key", "none"], ["--max-waiters-per-key"]),
        (["--max-rate", "0"], ["--max-rate", "x>0"]),
        (["--max-rate-per-key", "-1"], ["--max-rate-per-key", "x>0"]),
        (["--max-failed-sign-ins", "-1"], ["--max-failed-sign-ins", "x>=0"]),
        (["--max-output", "0"], ["--max-output"]),
        (["--trusted-proxy", "proxy.example.org"], ["'proxy.example.org'", "10.0.0.0/8"]),
        (["--trusted-proxy", "10.0.0.1/8"], ["'10.0.0.1/8'", "host bits"]),
        (["--cors-origin", "example.org"], ["'example.org'", "https://example.org"]),
        (["--cors-origin", "https://example.org/"], ["https://example.org/"]),
        (["--cors-origin", "https://user@example.org"], ["user@"]),
        (["--tls-key", "key.pem"], ["--tls-key", "--tls-cert"]),
    ],
)
def test_a_wrong_setting_is_refused(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    refusal = Server(tmp_path, *arguments).start_refused()
    assert refusal.status == WRONG_USAGE
    for word in words:
        assert word in refusal.message
    assert not (tmp_path / "tasks.db").exists()


def test_cors_as_an_operator_sets_it(tmp_path: Path) -> None:
    with Server(tmp_path, TASKSERVER_CORS_ORIGIN="https://One.example:443 http://localhost:3000") as server:
        for origin in ("https://one.example", "http://localhost:3000"):
            with Raw(server) as raw:
                answer = raw.ask("GET", "/v1/tasks", f"Origin: {origin}").answer()
            assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, origin)
