"""The released ``rsconnect-python`` follows our tasks as it follows Posit Connect's deployments."""

from __future__ import annotations

import time

import pytest
from rsconnect.api import RSConnectClient, RSConnectServer
from rsconnect.exception import RSConnectException

from tests.clients.conftest import EARLY, LINES, Produce, requests_for
from tests.conftest import every_way_to_serve
from tests.server import Server

LIMIT = 60  # seconds after which the client gives up


@pytest.fixture
def client(server: Server, key: str) -> RSConnectClient:
    return RSConnectClient(RSConnectServer(server.url, key))


@every_way_to_serve
def test_it_follows_a_running_task_to_its_end_with_one_request(
    server: Server, client: RSConnectClient, produce: Produce
) -> None:
    uid, seen = produce(), list[str]()
    log, task = client.wait_for_task(uid, seen.append, timeout=LIMIT, poll_wait=20)
    assert log is None
    assert seen == LINES
    assert task["finished"] is True
    assert (task["code"], task["error"], task["last"]) == (0, "", len(LINES))
    assert requests_for(server, uid) == 1


def test_short_waits_bring_every_line_once(server: Server, client: RSConnectClient, produce: Produce) -> None:
    uid = produce()
    began = time.monotonic()
    seen, task = client.wait_for_task(uid, None, timeout=LIMIT, poll_wait=1)
    took = time.monotonic() - began
    assert seen == LINES
    assert task["output"] != LINES  # the last answer had only what was new
    assert requests_for(server, uid) <= 1 + int(took + EARLY)


def test_it_shows_the_result(client: RSConnectClient, produce: Produce) -> None:
    seen, task = client.wait_for_task(
        produce(LINES[:2], result={"type": "url", "data": "http://example.org/"}), None, timeout=LIMIT, poll_wait=20
    )
    assert seen == [*LINES[:2], "http://example.org/ (url)"]
    assert task["result"] == {"type": "url", "data": "http://example.org/"}


def test_a_failed_task_raises(client: RSConnectClient, produce: Produce) -> None:
    seen: list[str] = []
    with pytest.raises(RSConnectException, match=r"Task exited with status 7\."):
        client.wait_for_task(produce(LINES[:3], code=7, error="the build broke"), seen.append, timeout=LIMIT)
    assert seen == [*LINES[:3], "Error from Connect server: the build broke"]


def test_a_failed_task_is_told_of_where_it_shall_not_raise(client: RSConnectClient, produce: Produce) -> None:
    seen, task = client.wait_for_task(produce([], code=1), None, timeout=LIMIT, raise_on_error=False)
    assert seen is not None
    assert seen[0].startswith("Error from Connect server: ")
    assert seen[1] == "Task failed. Task exited with status 1."
    assert task["code"] == 1


def test_it_looks_at_a_task_once(server: Server, client: RSConnectClient) -> None:
    uid = server.new_task()
    server.post(f"/v1/tasks/{uid}/output", "zero\none\ntwo\n")
    task = client.task_get(uid, first=1)
    assert (task["output"], task["last"], task["finished"]) == (["one", "two"], 3, False)
    assert (task["status"], task["last_status"]) == (["one", "two"], 3)  # as rsconnect-jupyter knows them


def test_it_gives_up_when_its_user_does(server: Server, client: RSConnectClient) -> None:
    with pytest.raises(RSConnectException, match="Task aborted"):
        client.wait_for_task(server.new_task(), None, abort_func=lambda: True, timeout=LIMIT)


def test_no_such_task(client: RSConnectClient) -> None:
    with pytest.raises(RSConnectException, match=r"reported an error .*there is no task 'CmsfmnfDDyRUrsAc'") as caught:
        client.task_get("CmsfmnfDDyRUrsAc")
    assert caught.value.status == 404


def test_a_wrong_key(server: Server) -> None:
    client = RSConnectClient(RSConnectServer(server.url, "tsk_" + "x" * 43))
    with pytest.raises(
        RSConnectException, match=r"reported an error .*API key is unknown, revoked or expired"
    ) as caught:
        client.task_get(server.new_task())
    assert caught.value.status == 401


def test_no_key(server: Server) -> None:
    client = RSConnectClient(RSConnectServer(server.url, None))
    with pytest.raises(RSConnectException, match=r"reported an error .*send an API key") as caught:
        client.wait_for_task(server.new_task(), None, timeout=LIMIT)
    assert caught.value.status == 401


def test_bad_parameters(server: Server, client: RSConnectClient) -> None:
    uid = server.new_task()
    with pytest.raises(
        RSConnectException, match=r"reported an error .*first: is 1, but the output has 0 lines"
    ) as caught:
        client.task_get(uid, first=1)
    assert caught.value.status == 400
    with pytest.raises(
        RSConnectException, match=r"reported an error .*wait: must be an integer from 0 to 20"
    ) as caught:
        client.task_get(uid, wait=21)
    assert caught.value.status == 400
