"""An execution's events with httpx-sse: a run is followed to its end, whatever happens to the server meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest
from httpx_sse import ServerSentEvent, connect_sse

from tests.clients.worker import IDS, NAMES, Worker
from tests.conftest import every_way_to_serve
from tests.server import Server

LIMIT = 30.0  # seconds without a byte; a heartbeat comes each 15


@pytest.fixture
def worker(server: Server) -> Worker:
    return Worker(server)


@contextmanager
def following(
    server: Server, key: str, execution_id: str, last: str | None = None
) -> Iterator[Iterator[ServerSentEvent]]:
    """The events behind the last one that was seen, as the library reads them."""
    headers = {"Authorization": f"Bearer {key}"}
    if last is not None:
        headers["Last-Event-ID"] = last
    with httpx.Client(base_url=server.url, headers=headers, timeout=LIMIT) as client:
        with connect_sse(client, "GET", f"/api/v1/executions/{execution_id}/events") as source:
            assert source.response.status_code == 200
            yield source.iter_sse()


@every_way_to_serve
def test_a_run_is_followed_from_its_first_task_to_its_end(server: Server, key: str, worker: Worker) -> None:
    execution_id = worker.create_execution()
    with following(server, key, execution_id) as events:
        assert worker.claim_run() == execution_id
        task = worker.create("extract")
        event = next(events)
        assert (event.event, event.id, event.json()["status"]) == ("initiated", "1", "queued")
        assert event.retry is None or 1000 <= event.retry <= 3000
        worker.append(task, "begin")
        event = next(events)
        assert (event.event, event.id, event.json()["status"]) == ("processing", "2", "running")
        worker.append(task, "more output is no event")
        worker.end(task)
        event = next(events)
        assert (event.event, event.id, event.json()["status"]) == ("completed", "3", "success")
        worker.finish()
        event = next(events)
        assert (event.event, event.id, event.json()["status"]) == ("end", "3-end", "completed")
        assert list(events) == []


def test_a_run_that_has_ended_is_replayed(server: Server, key: str, worker: Worker) -> None:
    execution_id = worker.create_execution()
    worker.do_all()
    with following(server, key, execution_id) as stream:
        events = list(stream)
    assert [event.event for event in events] == NAMES
    assert [event.id for event in events] == IDS
    stats = json.loads(events[-1].data)["stats"]
    assert (stats["total_messages"], stats["completed_messages"], stats["success_rate"]) == (4, 4, 1.0)


@pytest.mark.parametrize("seen", [1, 3, 8, 15])
@pytest.mark.parametrize("end", [Server.kill, Server.stop])
def test_a_reader_of_a_server_that_is_restarted_loses_and_repeats_nothing(
    server: Server, key: str, worker: Worker, seen: int, end: Callable[[Server], int]
) -> None:
    execution_id = worker.create_execution()
    worker.claim_run()
    events: list[ServerSentEvent] = []
    with following(server, key, execution_id) as stream:
        for index in range(5):
            worker.do("load", index)
        while len(events) < seen:
            events.append(next(stream))
        end(server)
        try:
            events += stream  # what was under way already
        except httpx.TransportError:
            pass
    server.start()
    # The second half happens while the reader is away.
    for index in range(5, 10):
        worker.do("load", index)
    with following(server, key, execution_id, events[-1].id) as stream:
        events += [next(stream) for _ in range(30 - len(events))]
        worker.finish()
        events += stream
    assert [event.id for event in events] == [*map(str, range(1, 31)), "30-end"]
    assert [event.json()["map_index"] for event in events[:30]] == [index for index in range(10) for _ in range(3)]
    assert [event.event for event in events] == ["initiated", "processing", "completed"] * 10 + ["end"]


def test_a_reader_who_has_seen_all_but_the_end_is_told_the_end(server: Server, key: str, worker: Worker) -> None:
    execution_id = worker.create_execution()
    worker.do_all()
    server.kill()
    server.start()
    with following(server, key, execution_id, "15") as stream:
        assert [event.id for event in stream] == ["15-end"]


def test_a_reader_who_has_seen_the_end_is_told_to_stay_away(server: Server, key: str, worker: Worker) -> None:
    execution_id = worker.create_execution()
    worker.do_all()
    headers = {"Authorization": f"Bearer {key}", "Last-Event-ID": "15-end"}
    answer = httpx.get(f"{server.url}/api/v1/executions/{execution_id}/events", headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")
