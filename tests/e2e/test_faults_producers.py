"""Producers that vanish, race, collide or fall silent (PROTOCOLS.md, A4)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.e2e.raw import Raw
from tests.server import CALL_LIMIT, Answer, Server, until

RACES = 40
THREADS = 5
LEASE = 6.0  # seconds: short for a test, and long enough to be renewed in time on a machine under load
LATE = 10.0  # seconds after which a loss must have been told, on a machine under load


@pytest.fixture
def together() -> Iterator[Callable[..., list[Answer]]]:
    """``together(call, call, …)`` makes the calls at the same moment and returns their answers in order."""
    with ThreadPoolExecutor(THREADS) as pool:

        def run(*calls: Callable[[], Answer]) -> list[Answer]:
            start = threading.Barrier(len(calls), timeout=CALL_LIMIT)

            def at_once(call: Callable[[], Answer]) -> Answer:
                start.wait()
                return call()

            return [future.result(CALL_LIMIT) for future in [pool.submit(at_once, call) for call in calls]]

        yield run


# --- vanishing -------------------------------------------------------------------


def test_a_producer_that_vanishes_in_the_middle_of_a_line(server: Server) -> None:
    task = server.new_task()
    with Raw(server) as producer:
        producer.ask("POST", f"/v1/tasks/{task}/output?first=0", "Transfer-Encoding: chunked")
        producer.send_chunk(b"one\ntw").send_chunk(b"o\nthr")
        until(lambda: server.get(f"/v1/tasks/{task}").json["last"] == 2, "the whole lines can be read")
    # Nothing of the half line stands in the way of the producer that takes over.
    assert server.post(f"/v1/tasks/{task}/output?first=2", "three\n").json["last"] == 3
    assert server.post(f"/v1/tasks/{task}/finish", {}).json["last"] == 3
    assert server.get(f"/v1/tasks/{task}").json["output"] == ["one", "two", "three"]


def test_a_producer_that_vanishes_in_the_middle_of_a_body_of_known_length(server: Server) -> None:
    task = server.new_task()
    with Raw(server) as producer:
        producer.ask("POST", f"/v1/tasks/{task}/output?first=0", "Content-Length: 1000").send(b"one\ntwo\nthr")
    assert server.post(f"/v1/tasks/{task}/output?first=0", "other lines\n").status == 200
    assert server.post(f"/v1/tasks/{task}/finish", {}).json["last"] == 1
    assert server.get(f"/v1/tasks/{task}").json["output"] == ["other lines"]


def test_an_answer_that_nobody_waits_for_is_no_lost_line(server: Server) -> None:
    task = server.new_task()
    for number in range(RACES):
        with Raw(server) as producer:
            line = f"line {number}\n".encode()
            producer.ask("POST", f"/v1/tasks/{task}/output?first={number}", f"Content-Length: {len(line)}").send(line)
        # It may have been stored or not; said again, it stands once.
        answer = server.post(f"/v1/tasks/{task}/output?first={number}", line)
        assert answer.json == {"first": number, "last": number + 1, "cancel_requested": False}
    assert server.get(f"/v1/tasks/{task}").json["output"] == [f"line {number}" for number in range(RACES)]


def test_clients_that_leave_are_nothing_to_log(server: Server) -> None:
    task = server.new_task()
    server.post(f"/v1/tasks/{task}/output", ("x" * 99 + "\n") * 50_000)
    with Raw(server) as producer:
        producer.ask("POST", f"/v1/tasks/{task}/output", "Transfer-Encoding: chunked").send_chunk(b"whole\nhal")
        until(lambda: server.get(f"/v1/tasks/{task}?first=50000").json["last"] == 50_001, "the whole line can be read")
    with Raw(server) as producer:
        producer.ask("POST", f"/v1/tasks/{task}/output", "Content-Length: 1000").send(b"whole\nhal")
        server.get("/healthz")
    for path in (f"/v1/tasks/{task}", f"/v1/tasks/{task}/output?format=text&follow=true"):
        with Raw(server, receive_buffer=4096) as reader:
            reader.ask("GET", path).head()
    with Raw(server) as waiter:
        waiter.ask("GET", f"/v1/tasks/{task}?wait=20")
        server.get("/healthz")
    assert server.stop() == 0
    assert server.troubles == ""


# --- racing ----------------------------------------------------------------------


def test_appends_that_race_the_end(server: Server, together: Callable[..., list[Answer]]) -> None:
    refused = 0
    for _ in range(RACES):
        task = server.new_task()
        texts = [f"append {number}" for number in range(THREADS - 1)]
        *appends, end = together(
            *(partial(server.post, f"/v1/tasks/{task}/output", text) for text in texts),
            partial(server.post, f"/v1/tasks/{task}/finish", {"output": ["the end"]}),
        )
        assert end.status == 200, end
        stands = {}
        for text, answer in zip(texts, appends, strict=True):
            if answer.status == 200:
                stands[answer.json["first"]] = text
            else:
                refused += 1
                assert (answer.status, answer.json["code"]) == (409, 1003)
                assert answer.json["payload"]["state"] == "success"
        shown = server.get(f"/v1/tasks/{task}").json
        assert shown["finished"] is True
        assert shown["output"] == [*(stands[number] for number in range(len(stands))), "the end"]
        assert end.json["last"] == shown["last"] == len(stands) + 1
    assert refused < RACES * (THREADS - 1)


def test_ends_that_race_each_other(server: Server, together: Callable[..., list[Answer]]) -> None:
    for _ in range(RACES):
        task = server.new_task()
        ends = [{"code": code, "error": f"error {code}", "output": [f"last line of {code}"]} for code in range(1, 4)]
        answers = together(*(partial(server.post, f"/v1/tasks/{task}/finish", end) for end in ends))
        assert sorted(answer.status for answer in answers) == [200, 409, 409]
        (winner,) = (end for end, answer in zip(ends, answers, strict=True) if answer.status == 200)
        for answer in answers:
            if answer.status == 409:
                assert answer.json["code"] == 1003
                assert answer.json["payload"] == {"last": 1, "state": "failed", "code": winner["code"]}
        shown = server.get(f"/v1/tasks/{task}").json
        assert {name: shown[name] for name in winner} == winner
        assert server.post(f"/v1/tasks/{task}/finish", winner).status == 200  # it may say so again


def test_one_id_for_many(server: Server, together: Callable[..., list[Answer]]) -> None:
    for number in range(RACES):
        answers = together(*[partial(server.post, "/v1/tasks", {"id": f"job-{number}"})] * THREADS)
        assert sorted(answer.status for answer in answers) == [201, *[409] * (THREADS - 1)]
        assert {answer.json["code"] for answer in answers if answer.status == 409} == {1001}


def test_two_producers_on_one_task_lose_nothing(server: Server) -> None:
    """Each says where it believes the output to end, and learns from the refusal where it does."""
    task, conflicts = server.new_task(), []

    def produce(name: str) -> None:
        last = 0
        for number in range(RACES):
            while True:
                answer = server.post(f"/v1/tasks/{task}/output?first={last}", f"{name} {number}\n")
                if answer.status == 200:
                    break
                assert (answer.status, answer.json["code"]) == (409, 1002)
                assert answer.json["payload"]["last"] > last
                last = answer.json["payload"]["last"]
                conflicts.append(last)
            last = answer.json["last"]

    in_threads(produce, "a", "b")
    output = server.get(f"/v1/tasks/{task}").json["output"]
    assert len(output) == 2 * RACES
    for name in ("a", "b"):
        assert [line for line in output if line.startswith(name)] == [f"{name} {number}" for number in range(RACES)]
    assert conflicts  # else nothing was tested


def test_two_producers_without_first_are_mixed_but_whole(server: Server) -> None:
    task = server.new_task()

    def produce(name: str) -> None:
        for number in range(RACES):
            answer = server.post(f"/v1/tasks/{task}/output", f"{name} {number}\n{name} {number} again\n")
            assert answer.json["last"] == answer.json["first"] + 2

    in_threads(produce, "a", "b")
    output = server.get(f"/v1/tasks/{task}").json["output"]
    assert len(output) == 4 * RACES
    # The lines of one append stay together.
    pairs = list(zip(output[::2], output[1::2], strict=True))
    assert all(second == f"{first} again" for first, second in pairs)
    for name in ("a", "b"):
        mine = [first for first, _ in pairs if first.startswith(name)]
        assert mine == [f"{name} {number}" for number in range(RACES)]


def in_threads(work: Callable[[str], None], *names: str) -> None:
    with ThreadPoolExecutor(len(names)) as pool:
        for future in [pool.submit(work, name) for name in names]:
            future.result(CALL_LIMIT)


# --- falling silent --------------------------------------------------------------


def test_a_lease_that_runs_out(server: Server) -> None:
    task = server.new_task(lease=LEASE)
    assert server.post(f"/v1/tasks/{task}/output", "the last sign of life\n").status == 200
    ended = server.get(f"/v1/tasks/{task}?wait=20").json  # its waiters are told
    assert (ended["state"], ended["finished"], ended["output"]) == ("interrupted", True, ["the last sign of life"])
    assert ended["code"] == 255
    assert ended["error"].startswith("producer lost: ")
    too_late: list[tuple[str, object]] = [("output", "too late\n"), ("heartbeat", None), ("finish", {})]
    for path, body in too_late:
        answer = server.post(f"/v1/tasks/{task}/{path}", body)
        assert (answer.status, answer.json["code"]) == (409, 1003), path
        assert answer.json["payload"] == {"last": 1, "state": "interrupted", "code": 255}
    # A repeat of what stands is still acknowledged: its producer may just not have had the answer.
    assert server.post(f"/v1/tasks/{task}/output?first=0", "the last sign of life\n").status == 200


def test_a_lease_that_is_renewed(server: Server) -> None:
    signs_of_life: list[tuple[str, str | None]] = [("heartbeat", None), ("output", "a line\n"), ("output", "")]
    tasks = [(server.new_task(lease=LEASE), path, body) for path, body in signs_of_life]
    silent = server.new_task(lease=LEASE)
    for _ in range(round(LEASE) + 1):
        for task, path, body in tasks:
            assert server.post(f"/v1/tasks/{task}/{path}", body).status == 200, (path, body)
        server.get(f"/v1/tasks/{task}?wait=1")  # a second passes
    for task, path, body in tasks:
        assert server.get(f"/v1/tasks/{task}").json["state"] == "running", (path, body)
    assert server.get(f"/v1/tasks/{silent}?wait=20").json["state"] == "interrupted"


def test_a_live_append_that_is_quiet_is_a_sign_of_life(server: Server) -> None:
    task = server.new_task(lease=LEASE)
    with Raw(server) as producer:
        producer.ask("POST", f"/v1/tasks/{task}/output", "Transfer-Encoding: chunked").send_chunk(b"begun\n")
        quiet = server.get(f"/v1/tasks/{task}?wait={round(LEASE) + 1}").json
        assert (quiet["state"], quiet["error"]) == ("running", "")
        assert producer.send_chunk(b"done\n").send_chunk(b"").answer().json["last"] == 2
    lost = server.get(f"/v1/tasks/{task}?wait=20").json
    assert lost["state"] == "interrupted"  # now that nobody is there


def test_a_restart_begins_leases_anew(server: Server) -> None:
    present, gone = server.new_task(lease=LEASE), server.new_task(lease=LEASE)
    created = time.monotonic()
    server.kill()
    until(lambda: time.monotonic() > created + LEASE + 0.1, "the leases would have run out")
    server.start()
    assert server.post(f"/v1/tasks/{present}/heartbeat").json == {"cancel_requested": False}
    assert server.post(f"/v1/tasks/{present}/finish", {}).json["state"] == "success"
    restarted = time.monotonic()
    lost = server.get(f"/v1/tasks/{gone}?wait=20").json
    assert lost["state"] == "interrupted"
    assert time.monotonic() < restarted + LEASE + LATE
