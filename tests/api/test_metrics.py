"""PROTOCOLS.md, "Metrics" and "Request ids"."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from dataclasses import replace
from urllib.parse import quote

import pytest
from prometheus_client.parser import text_string_to_metric_families

from taskserver.config import Settings, Timing
from taskserver.errors import StoreUnavailable
from taskserver.model import Scope
from tests.api.conftest import Serve
from tests.api.conversation import Answer, Api
from tests.api.work import CLAIM, add_task, claimed, queued, run_of
from tests.eventually import eventually

Figures = dict[tuple[str, ...], float]


def figures(answer: Answer) -> Figures:
    """The samples by name and label values, in the order of the labels' names."""
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = text_string_to_metric_families(answer.text)
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


async def scrape(api: Api) -> Figures:
    return figures(await api.under("").ask("GET", "/metrics"))


async def risen(api: Api, before: Figures) -> Figures:
    """What has changed, and by how much."""
    now = await scrape(api)
    return {name: value - before.get(name, 0) for name, value in now.items() if value != before.get(name, 0)}


# --- who may read it -------------------------------------------------------------


async def test_a_key_that_may_read_is_needed(admin: Api) -> None:
    reader = await admin.with_key("prometheus", Scope.READ)
    writer = await admin.with_key("ci", Scope.WRITE)
    assert await scrape(reader)
    assert (await writer.under("").ask("GET", "/metrics")).status == 403
    async with admin.client.get("/metrics") as answer:
        assert (answer.status, await answer.json()) == (401, {"error": "send an API key: Authorization: Key XXXX"})
    bearer = {"Authorization": f"Bearer {reader.key}"}
    async with admin.client.get("/metrics", headers=bearer) as answer:
        assert answer.status == 200


async def test_the_operator_can_open_it_to_all(serve: Serve) -> None:
    admin = await serve(Settings(metrics="open"))
    async with admin.client.get("/metrics") as answer:
        assert answer.status == 200
        assert "taskserver_build_info" in await answer.text()


async def test_it_names_no_task_and_nobody(admin: Api) -> None:
    ann = await admin.with_key("ann-the-user")
    task_id = await ann.create("a line", name="task-name", labels={"label": "value"})
    told = (await ann.under("").ask("GET", "/metrics")).text
    for word in (task_id, ann.key, ann.key_id, "ann-the-user", "root", "a line", "task-name", "label="):
        assert word not in told


# --- what it tells ---------------------------------------------------------------


async def test_appends_lines_and_bytes(api: Api) -> None:
    before = await scrape(api)
    task_id = await api.create("a", "bc")
    await api.append(task_id, "d", first=2)
    await api.append(task_id, "d", first=2)  # the answer got lost
    await api.finish(task_id, output=["the end"])
    change = await risen(api, before)
    assert change["taskserver_appends_total",] == 4
    assert change["taskserver_lines_total",] == 5
    assert change["taskserver_line_bytes_total",] == len('"a",\n"bc"') + 2 * len('"d"') + len('"the end"')
    assert change["taskserver_commit_operations_count",] >= 5
    assert change["taskserver_commit_seconds_sum",] > 0
    assert change["taskserver_requests_total", "tasks", "200"] == 4
    assert change["taskserver_requests_total", "tasks", "201"] == 1
    assert change["taskserver_request_duration_seconds_count", "tasks"] == 5


async def test_live_tasks_are_counted_by_state(api: Api) -> None:
    await asyncio.gather(api.create(), api.create("a"), api.create("b"), api.done("c"))
    told = await scrape(api)
    states = {name[1]: value for name, value in told.items() if name[0] == "taskserver_live_tasks"}
    assert states == {"queued": 1, "running": 2}


async def test_refusals_are_counted_in_their_room(api: Api) -> None:
    before = await scrape(api)
    await api.ask("GET", "/tasks/none")
    await api.ask("GET", "/nothing")
    await api.under("/api/v2").ask("GET", "/dags/x/dagRuns/y")
    await api.under("/api/v1/executions").ask("GET", "/z")
    await api.under("").ask("GET", "/nothing")
    change = {name[1:]: value for name, value in (await risen(api, before)).items() if "requests_total" in name[0]}
    assert change.pop(("other", "200")) == 1  # the scrape before
    assert change == {("tasks", "404"): 2, ("airflow", "404"): 1, ("executions", "404"): 1, ("other", "404"): 1}


async def test_what_waits_is_told_by_room_and_kind_and_not_timed(api: Api) -> None:
    task_id = await api.create("a")
    run_id = await claimed(api)
    task = await add_task(api, run_id)
    airflow, executions = api.under("/api/v2"), api.under("/api/v1/executions")
    dag_run = f"/dags/etl/dagRuns/{quote((await run_of(api, run_id))['run_id'])}"
    before = await scrape(api)
    waits = {
        ("tasks", "poll"): [
            api.begin("GET", f"/tasks/{task_id}", wait=20),
            api.begin("GET", f"/tasks/{task_id}/output", first=1, wait=20),
            api.begin("GET", f"/tasks/{task_id}", wait=20, headers={"Connection": "close"}),
        ],
        ("tasks", "stream"): [api.begin("GET", f"/tasks/{task_id}/output", follow="true", format="text")],
        ("tasks", "claim"): [api.begin("POST", "/runs/claim", body={}, wait=20)],
        ("airflow", "wait"): [airflow.begin("GET", f"{dag_run}/wait", interval=1)],
        ("airflow", "log"): [
            airflow.begin("GET", f"{dag_run}/taskInstances/extract/logs/1", headers={"Accept": "application/x-ndjson"})
        ],
        ("executions", "wait"): [executions.begin("POST", f"/{run_id}/wait", body={})],
        ("executions", "events"): [executions.begin("GET", f"/{run_id}/events", timeout=20)],
    }
    everybody = [asking for some in waits.values() for asking in some]
    try:
        await eventually(lambda: api.services.waits.count == len(everybody), "the waits")
        change = await risen(api, before)
        told = {name[:0:-1]: value for name, value in change.items() if name[0] == "taskserver_waiters"}
        assert told == {which: len(some) for which, some in waits.items()}

        await api.finish(task_id, output=["b"])
        await api.finish(task["id"])
        await api.json("POST", f"/runs/{run_id}/finish", body={"claim": CLAIM})
        await queued(api, "another")
        for asking in everybody:
            assert (await asking).status == 200
    finally:
        for asking in everybody:
            asking.cancel()
    change = await risen(api, before)
    assert not any(name[0] == "taskserver_waiters" for name in change)
    assert change["taskserver_wake_seconds_count",] >= len(everybody)
    assert change["taskserver_request_duration_seconds_sum", "tasks"] < 20
    for room in ("airflow", "executions"):
        assert ("taskserver_request_duration_seconds_count", room) not in change


async def test_who_leaves_while_waiting_is_counted(api: Api) -> None:
    task_id = await api.create("a")
    before = await scrape(api)
    with contextlib.suppress(asyncio.CancelledError):
        async with api.waiting(f"/tasks/{task_id}", wait=20) as asking:
            asking.cancel()
    await eventually(lambda: api.services.waits.count == 0, "the end of the wait")
    assert (await risen(api, before))["taskserver_requests_total", "tasks", "499"] == 1


async def test_lost_producers_are_counted(serve: Serve) -> None:
    admin = await serve(Settings(timing=replace(Timing(), reaper=0.01)))
    before = await scrape(admin)
    task_id = await admin.create(lease=0.05)
    await admin.task(task_id, wait=20)
    assert (await risen(admin, before))["taskserver_lease_expiries_total", "task"] == 1


async def test_a_store_that_fails_leaves_the_other_figures(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> None:
        raise StoreUnavailable("the disk is gone")

    monkeypatch.setattr(api.services.store, "count_live_tasks", fail)
    told = await scrape(api)
    assert not any(name[0] == "taskserver_live_tasks" for name in told)
    assert ("taskserver_waiters", "poll", "tasks") in told


# --- request ids -----------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/tasks/none", "/api/v2/dags/x", "/auth/x", "/api/v1/executions/x", "/x"])
async def test_each_failure_tells_the_requests_id(api: Api, path: str) -> None:
    root = api.under("")
    named = await root.ask("GET", path, headers={"X-Request-ID": "proxy-7/a:1"})
    assert (named.status, named.headers["X-Request-ID"]) == (404, "proxy-7/a:1")
    one, another = [(await root.ask("GET", path)).headers["X-Request-ID"] for _ in range(2)]
    assert one != another
    assert uuid.UUID(one).version == uuid.UUID(another).version == 4


async def test_a_bug_of_ours_tells_it_too(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(api.services.store, "list_tasks", broken)
    answer = await api.ask("GET", "/tasks", headers={"X-Request-ID": "seven"}, limit=3)
    assert (answer.status, answer.json["payload"]) == (500, {"request_id": "seven"})
    (record,) = caplog.records
    assert record.fields == {"request_id": "seven", "method": "GET", "path": "/v1/tasks"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("theirs", ["", " ", "a b", "x" * 129, "-a", 'a"b', "a\tb", "ü", "{x}"])
async def test_an_id_that_could_be_mistaken_for_something_else_is_not_taken(api: Api, theirs: str) -> None:
    answer = await api.ask("GET", "/tasks/none", headers={"X-Request-ID": theirs})
    assert uuid.UUID(answer.headers["X-Request-ID"]).version == 4


async def test_a_success_carries_none(api: Api) -> None:
    assert "X-Request-ID" not in (await api.ask("GET", "/tasks", headers={"X-Request-ID": "a"})).headers
