"""The released ``posit-sdk`` follows our tasks as it follows Posit Connect's."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from posit.connect import Client  # type: ignore[import-untyped]
from posit.connect.errors import ClientError  # type: ignore[import-untyped]

from tests.clients.conftest import EARLY, LINES, PACE, Produce, requests_for
from tests.conftest import every_way_to_serve
from tests.server import Server


@pytest.fixture
def client(server: Server, key: str) -> Iterator[Client]:
    with Client(server.url, key) as client:
        yield client


@every_way_to_serve
def test_it_follows_a_running_task_to_its_end_with_one_request(
    server: Server, client: Client, produce: Produce
) -> None:
    task = client.tasks.get(produce(result={"type": "answer", "data": {"n": 42}}))
    assert not task.is_finished
    assert (task.error_code, task.error_message) == (None, None)
    began = time.monotonic()
    task.wait_for(wait=20)
    assert time.monotonic() - began < 20  # the end of the task ended the wait
    assert task.is_finished
    assert task["output"] == LINES
    assert (task.error_code, task.error_message) == (0, "")
    assert task["last"] == len(LINES)
    assert task["result"] == {"type": "answer", "data": {"n": 42}}
    assert requests_for(server, task["id"]) == 2  # the first look, and one wait


def test_short_waits_cost_one_request_each(server: Server, client: Client, produce: Produce) -> None:
    task = client.tasks.get(produce())
    began = time.monotonic()
    task.wait_for(wait=1)
    took = time.monotonic() - began
    assert task["output"] == LINES
    assert took > (len(LINES) - 1) * PACE - 1  # it was there while the lines came
    assert requests_for(server, task["id"]) <= 2 + int(took + EARLY)


def test_it_gives_up_when_it_is_told_to(server: Server, client: Client) -> None:
    task = client.tasks.get(server.new_task())
    with pytest.raises(TimeoutError):
        task.wait_for(wait=1, max_attempts=2)
    assert requests_for(server, task["id"]) == 3


def test_it_reads_from_a_line_on(server: Server, client: Client) -> None:
    uid = server.new_task()
    server.post(f"/v1/tasks/{uid}/output", "zero\none\ntwo\n")
    task = client.tasks.get(uid, first=2)
    assert (task["output"], task["last"]) == (["two"], 3)
    task.update(first=3)
    assert (task["output"], task["last"]) == ([], 3)


@every_way_to_serve
def test_it_reads_a_large_output_whole(server: Server, client: Client) -> None:
    uid, lines = server.new_task(), [f"{number:06d} {'x' * 80}" for number in range(100_000)]
    for start in range(0, len(lines), 50_000):
        server.post(f"/v1/tasks/{uid}/output?first={start}", "\n".join(lines[start : start + 50_000]))
    server.post(f"/v1/tasks/{uid}/finish", {})
    assert client.tasks.get(uid)["output"] == lines


def test_a_failed_task_has_its_code_and_error(client: Client, produce: Produce) -> None:
    task = client.tasks.get(produce(LINES[:3], code=7, error="the build broke"))
    task.wait_for(wait=20)
    assert (task.error_code, task.error_message) == (7, "the build broke")
    assert task["output"] == LINES[:3]


def test_a_failure_without_words_gets_some(client: Client, produce: Produce) -> None:
    task = client.tasks.get(produce([], code=1))
    task.wait_for(wait=20)
    assert task.error_code == 1
    assert task.error_message


def test_no_such_task(client: Client) -> None:
    with pytest.raises(ClientError) as caught:
        client.tasks.get("CmsfmnfDDyRUrsAc")
    error = caught.value
    assert (error.http_status, error.error_code, error.payload) == (404, 4, None)
    assert "CmsfmnfDDyRUrsAc" in error.error_message


def test_a_wrong_key(server: Server) -> None:
    uid = server.new_task()
    with Client(server.url, "tsk_" + "x" * 43) as client:
        with pytest.raises(ClientError) as caught:
            client.tasks.get(uid)
    assert (caught.value.http_status, caught.value.error_code) == (401, 30)
    assert "API key" in caught.value.error_message


@every_way_to_serve
def test_a_key_that_is_revoked_meanwhile(server: Server, client: Client, produce: Produce) -> None:
    task = client.tasks.get(produce())
    server.call("DELETE", "/v1/keys/reader")
    with pytest.raises(ClientError) as caught:
        task.wait_for(wait=20)
    assert (caught.value.http_status, caught.value.error_code) == (401, 30)


@pytest.mark.parametrize(
    ("arguments", "status", "code", "words"),
    [
        ({"wait": 21}, 400, 25, "wait"),
        ({"wait": -1}, 400, 25, "wait"),
        ({"first": -1}, 400, 25, "first"),
        ({"first": 2}, 400, 13, "first"),
    ],
)
def test_bad_parameters(
    server: Server, client: Client, arguments: dict[str, int], status: int, code: int, words: str
) -> None:
    uid = server.new_task()
    server.post(f"/v1/tasks/{uid}/output", "the only line\n")
    with pytest.raises(ClientError) as caught:
        client.tasks.get(uid, **arguments)
    assert (caught.value.http_status, caught.value.error_code) == (status, code)
    assert words in caught.value.error_message
