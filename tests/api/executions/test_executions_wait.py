"""PROTOCOLS.md, C3: what ends a wait, what it answers, and how it keeps its connection."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from aiohttp import ClientPayloadError

from taskserver.config import Limits, Settings, Timing
from taskserver.model import Scope, Task
from tests.api.executions.conftest import Serve
from tests.api.executions.conversation import JSON, LIMIT, UNKNOWN, Api, Work, refused

BEATING = Settings(timing=Timing(heartbeat=0.05))


@pytest.fixture
async def beating(serve: Serve) -> Api:
    """A client of a server whose heart beats fast."""
    return await serve(BEATING)


@pytest.mark.parametrize(
    ("state", "status"), [("success", "completed"), ("failed", "failed"), ("cancelled", "cancelled")]
)
async def test_the_end_ends_a_wait_and_says_how(api: Api, state: str, status: str) -> None:
    execution_id = await api.create()
    work = await api.claim()
    async with api.waiting(execution_id, timeout=3600) as waiting:
        if state == "cancelled":
            await api.json("POST", f"/v1/runs/{execution_id}/cancel")
            await work.finish("failed")
        else:
            await work.finish(state)
        answer = await asyncio.wait_for(waiting, LIMIT)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == JSON
    assert answer.headers["Cache-Control"] == "no-store"
    found = answer.json
    assert list(found) == ["completed", "execution_id", "status", "duration_ms", "message", "stats"]
    assert (found["completed"], found["execution_id"], found["status"]) == (True, execution_id, status)
    assert found["message"] == f"execution {status}"


async def test_the_stats_count_the_runs_tasks(api: Api) -> None:
    execution_id = await api.create()
    work = await api.claim()
    for index in range(3):
        await work.done("load", index)
    await work.done("load", 3, code=1)
    await work.start(await work.task("load", 4))
    await work.task("load", 5)
    await work.finish("failed")
    stats = (await api.json("POST", f"/{execution_id}/wait"))["stats"]
    assert stats == {
        "execution_id": execution_id,
        "total_messages": 6,
        "completed_messages": 3,
        "failed_messages": 1,
        "in_progress_messages": 2,
        "success_rate": 0.5,
    }


async def test_an_execution_without_tasks_has_a_success_rate_of_zero(api: Api) -> None:
    stats = (await api.json("POST", f"/{await api.ended()}/wait"))["stats"]
    assert (stats["total_messages"], stats["success_rate"]) == (0, 0.0)


async def test_a_task_that_is_tried_again_counts_once(api: Api) -> None:
    execution_id = await api.create()
    work = await api.claim()
    await work.done("load", code=1)
    second = await work.task("load", try_number=2)
    await work.start(second)
    await work.end(second)
    await work.finish()
    answer = await api.json("POST", f"/{execution_id}/wait")
    assert answer["status"] == "completed"
    assert (answer["stats"]["total_messages"], answer["stats"]["success_rate"]) == (1, 1.0)


async def test_what_tasks_do_does_not_end_a_wait(api: Api) -> None:
    execution_id = await api.create()
    async with api.waiting(execution_id) as waiting:
        work = await api.claim()
        await work.done("load")
        await work.task("store")
        assert (await api.events(execution_id, timeout=1))[0].name == "initiated"
        assert not waiting.done()
        await work.finish("success")
        assert (await asyncio.wait_for(waiting, LIMIT)).json["stats"]["total_messages"] == 2


async def test_what_has_ended_is_not_waited_for(api: Api) -> None:
    execution_id = await api.ended("failed")
    answer = await api.json("POST", f"/{execution_id}/wait", body={"timeout": 3600})
    assert (answer["completed"], answer["status"]) == (True, "failed")
    assert 0 <= answer["duration_ms"] < LIMIT * 1000


async def test_when_the_time_is_up_the_answer_is_the_current_state(api: Api) -> None:
    execution_id = await api.create()
    began = time.monotonic()
    answer = await api.json("POST", f"/{execution_id}/wait", body={"timeout": 1.2})
    took = time.monotonic() - began
    assert (answer["completed"], answer["status"]) == (False, "running")
    assert answer["message"] == "the time is up; the execution goes on"
    assert answer["stats"]["total_messages"] == 0
    assert 1150 <= answer["duration_ms"] <= took * 1000 + 1


@pytest.mark.parametrize("headers", [{}, {"Content-Type": JSON}, {"Content-Type": "application/octet-stream"}])
async def test_a_wait_without_a_body_has_the_default_timeout(api: Api, headers: dict[str, str]) -> None:
    answer = await api.json("POST", f"/{await api.ended()}/wait", headers=headers)
    assert answer["completed"]


async def test_all_who_wait_are_told(api: Api) -> None:
    execution_id = await api.create()
    work = await api.claim()
    async with api.waiting(execution_id) as one, api.waiting(execution_id) as two, api.waiting(execution_id) as three:
        await work.finish("success")
        answers = await asyncio.wait_for(asyncio.gather(one, two, three), LIMIT)
    assert [answer.json["status"] for answer in answers] == ["completed"] * 3


async def test_all_who_are_told_at_once_share_one_counting(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    execution_id = await api.create()
    work = await api.claim()
    await work.done("load")
    read = api.services.store.run_tasks
    readings = []

    async def counted(*arguments: Any) -> list[Task]:
        readings.append(arguments)
        return await read(*arguments)

    waiting = [asyncio.ensure_future(api.ask("POST", f"/{execution_id}/wait")) for _ in range(50)]
    await api.waits(50)
    monkeypatch.setattr(api.services.store, "run_tasks", counted)
    await work.finish("success")
    answers = await asyncio.wait_for(asyncio.gather(*waiting), LIMIT)
    assert {answer.json["stats"]["completed_messages"] for answer in answers} == {1}
    assert len(readings) == 1


async def test_the_end_of_another_execution_ends_no_wait(api: Api) -> None:
    first = await api.create()
    work = await api.claim()
    async with api.waiting(first) as waiting:
        await api.ended()
        assert not waiting.done()
        await work.finish("success")
        await asyncio.wait_for(waiting, LIMIT)


@pytest.mark.parametrize("name", [UNKNOWN, "nightly", "%00"])
async def test_a_wait_needs_the_id_of_an_execution(api: Api, name: str) -> None:
    await api.create(tag="nightly")
    refused(await api.ask("POST", f"/{name}/wait", body={}), 404, "execution_not_found", "there is no execution")


async def test_waiting_for_anothers_execution(admin: Api, api: Api) -> None:
    execution_id = await api.ended()
    bob = await admin.with_key("bob")
    refused(await bob.ask("POST", f"/{execution_id}/wait"), 404, "execution_not_found")
    assert (await admin.json("POST", f"/{execution_id}/wait"))["completed"]


# --- heartbeats ----------------------------------------------------------------


async def test_a_wait_that_ends_before_the_first_heartbeat_comes_in_one_piece(api: Api) -> None:
    execution_id = await api.create()
    work = await api.claim()
    async with api.waiting(execution_id) as waiting:
        await work.finish("success")
        answer = await asyncio.wait_for(waiting, LIMIT)
    assert answer.headers["Content-Length"] == str(len(answer.body))
    assert "Transfer-Encoding" not in answer.headers
    assert answer.body.startswith(b"{")


async def test_a_longer_wait_sends_whitespace_before_its_answer(beating: Api) -> None:
    execution_id = await beating.create()
    work = await beating.claim()
    async with beating.request("POST", f"/{execution_id}/wait", body={"timeout": 3600}) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == JSON
        assert response.headers["X-Accel-Buffering"] == "no"
        assert response.headers["Incremental"] == "?1"
        assert response.headers["Cache-Control"] == "no-store"
        beats = [await asyncio.wait_for(response.content.readexactly(1), LIMIT) for _ in range(5)]
        assert beats == [b" "] * 5
        await work.finish("failed", error="no")
        rest = await asyncio.wait_for(response.content.read(), LIMIT)
    answer = json.loads(b"".join(beats) + rest)
    assert (answer["completed"], answer["status"]) == (True, "failed")
    assert rest.strip().startswith(b"{")


async def test_a_longer_wait_ends_when_its_time_is_up(beating: Api) -> None:
    answer = await beating.ask("POST", f"/{await beating.create()}/wait", body={"timeout": 1})
    assert answer.body.startswith(b"  ")
    assert answer.json["completed"] is False
    assert answer.json["duration_ms"] >= 990


# --- what breaks a wait --------------------------------------------------------


async def test_a_key_that_is_revoked_before_the_first_heartbeat(admin: Api, api: Api) -> None:
    async with api.waiting(await api.create()) as waiting:
        await admin.services.keys.revoke(api.key_id)
        refused(await asyncio.wait_for(waiting, LIMIT), 401, "bad_credential")


async def test_a_key_that_is_revoked_after_the_first_heartbeat(beating: Api) -> None:
    ann = await beating.with_key("ann")
    async with ann.request("POST", f"/{await ann.create()}/wait", body={}) as response:
        await asyncio.wait_for(response.content.readexactly(1), LIMIT)
        await beating.services.keys.revoke(ann.key_id)
        with pytest.raises(ClientPayloadError):  # half an answer must not look like a whole one
            await asyncio.wait_for(response.content.read(), LIMIT)
    await beating.waits(0)


async def test_an_execution_that_is_deleted_before_the_first_heartbeat(api: Api) -> None:
    execution_id = await api.create()
    async with api.waiting(execution_id) as waiting:
        assert (await api.ask("DELETE", f"/v1/runs/{execution_id}")).status == 204
        refused(await asyncio.wait_for(waiting, LIMIT), 404, "execution_not_found")


async def test_an_execution_that_is_deleted_after_the_first_heartbeat(beating: Api) -> None:
    execution_id = await beating.create()
    async with beating.request("POST", f"/{execution_id}/wait", body={}) as response:
        await asyncio.wait_for(response.content.readexactly(1), LIMIT)
        await beating.ask("DELETE", f"/v1/runs/{execution_id}")
        with pytest.raises(ClientPayloadError):
            await asyncio.wait_for(response.content.read(), LIMIT)


async def test_a_client_that_leaves_frees_its_place(api: Api) -> None:
    async with api.waiting(await api.create()) as waiting:
        waiting.cancel()
        await api.waits(0)


async def test_a_client_that_leaves_after_a_heartbeat_frees_its_place(beating: Api) -> None:
    async with beating.request("POST", f"/{await beating.create()}/wait", body={}) as response:
        await asyncio.wait_for(response.content.readexactly(1), LIMIT)
        await beating.waits(1)
        response.close()
        await beating.waits(0)


async def test_more_waits_than_the_limit(serve: Serve) -> None:
    api = await serve(Settings(limits=Limits(waiters=1)))
    execution_id = await api.create()
    work = await api.claim()
    async with api.waiting(execution_id) as waiting:
        answer = await api.ask("POST", f"/{execution_id}/wait", body={})
        refused(answer, 429, "too_many_waiters")
        assert 1 <= int(answer.headers["Retry-After"]) <= 5
        await work.finish("success")
        await asyncio.wait_for(waiting, LIMIT)
    assert (await api.json("POST", f"/{execution_id}/wait"))["completed"]


# --- shutdown ------------------------------------------------------------------


async def test_a_shutdown_answers_waits_with_the_current_state(api: Api) -> None:
    execution_id = await api.create()
    async with api.waiting(execution_id, timeout=3600) as waiting:
        api.services.waits.drain()
        answer = await asyncio.wait_for(waiting, LIMIT)
    assert answer.status == 200
    assert answer.headers["Connection"] == "close"
    assert (answer.json["completed"], answer.json["status"]) == (False, "running")
    assert "shutting down" in answer.json["message"]


async def test_a_shutdown_answers_waits_after_a_heartbeat_too(beating: Api) -> None:
    execution_id = await beating.create()
    async with beating.request("POST", f"/{execution_id}/wait", body={"timeout": 3600}) as response:
        await asyncio.wait_for(response.content.readexactly(1), LIMIT)
        beating.services.waits.drain()
        answer = json.loads(await asyncio.wait_for(response.content.read(), LIMIT))
    assert (answer["completed"], answer["status"]) == (False, "running")


async def test_no_wait_begins_during_a_shutdown(api: Api) -> None:
    execution_id = await api.ended()
    api.services.waits.drain()
    answer = await api.ask("POST", f"/{execution_id}/wait", body={})
    refused(answer, 503, "draining", "shutting down")
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["Connection"] == "close"


async def test_a_key_that_may_only_read_may_wait(admin: Api, api: Api) -> None:
    execution_id = await api.ended()
    key, secret = await admin.services.keys.issue("watcher", [Scope.READ], owner="ann")
    watcher = Api(api.client, api.services, secret, key.id)
    assert (await watcher.json("POST", f"/{execution_id}/wait"))["completed"]


async def test_a_run_of_airflows_kind_is_an_execution_too(api: Api) -> None:
    await api.config("etl")
    run = await api.json("POST", "/v1/dags/etl/runs", status=201, body={"conf": {"x": 1}})
    work = await api.claim()
    assert work == Work(api, run["id"], work.claim)
    await work.finish("success")
    assert (await api.json("POST", f"/{run['id']}/wait"))["status"] == "completed"
    assert (await api.get(run["id"]))["config_id"] == await api.config("etl")
