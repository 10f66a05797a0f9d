"""RunClient and SyncClient against a real server; the test is the worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from taskserver.client import ApiError, RunClient, RunFailed, RunInfo, SyncClient
from tests.server import Server

SECRET = "the worker's secret word"


@pytest.fixture
async def client(server: Server) -> AsyncIterator[RunClient]:
    async with RunClient(server.url, server.key) as client:
        await client.put_dag("etl", [{"task_id": "load", "result": True}], retries=1, display_name="Load")
        yield client


async def claimed(client: RunClient, secret: str = SECRET) -> RunInfo:
    run = await client.claim(["etl"], secret, wait=20)
    assert run is not None
    return run


async def work(client: RunClient, value: Any = 84, state: str = "success", secret: str = SECRET) -> RunInfo:
    """Claim a run, do its task and end it."""
    run = await claimed(client, secret)
    task = await client.create_task(run.id, "load", claim=secret, lease=30)
    await client.tasks.append(task.id, ["loading", "loaded"])
    await client.tasks.finish(task.id, result={"type": "json", "data": value})
    return await client.finish(run.id, secret, state, "" if state == "success" else "because")


async def test_a_run_is_triggered_waited_for_and_its_result_taken(client: RunClient) -> None:
    run = await client.trigger("etl", {"n": 1}, tag="nightly", note="a note")
    assert (run.dag_id, run.state, run.conf) == ("etl", "queued", {"n": 1})
    assert (await client.wait(run.id, timeout=0)).finished is False
    waiting = asyncio.create_task(client.result(run.id))
    await work(client)
    assert await waiting == 84
    assert await client.result(run.id, "load") == 84
    seen = await client.wait(run.id)
    assert (seen.state, seen.results) == ("success", {"load": 84})
    assert [task.name for task in (await client.get(run.id)).tasks] == ["load"]


async def test_a_call_is_both_in_one(client: RunClient) -> None:
    calling = asyncio.create_task(client.call("etl", {"n": 2}))
    await work(client)
    assert (await calling).results == {"load": 84}
    late = await client.call("etl", timeout=0)
    assert (late.finished, late.state) == (False, "queued")


async def test_the_same_key_is_the_same_run(client: RunClient) -> None:
    one, again = [await client.trigger("etl", idempotency_key="order-4711") for _ in range(2)]
    other = await client.trigger("etl")
    assert one.id == again.id != other.id


async def test_failures_have_a_type(client: RunClient) -> None:
    run = await client.trigger("etl")
    with pytest.raises(asyncio.TimeoutError, match="is queued after 0 s"):
        await client.result(run.id, timeout=0)
    await work(client, state="failed")
    with pytest.raises(RunFailed, match="failed: because") as failed:
        await client.result(run.id)
    assert failed.value.run.results == {"load": 84}
    with pytest.raises(ApiError, match="there is no dag 'none'"):
        await client.trigger("none")


async def test_a_result_must_be_named_if_there_is_not_just_one(client: RunClient) -> None:
    await client.put_dag("etl", [{"task_id": "load"}])
    run = await client.trigger("etl")
    await work(client)
    with pytest.raises(LookupError, match="has 0 results"):
        await client.result(run.id)


async def test_a_run_is_tailed_to_its_end(client: RunClient) -> None:
    run = await client.trigger("etl")
    tailing = asyncio.create_task(collect(client, run.id))
    await work(client)
    assert await tailing == [("load", -1, "loading"), ("load", -1, "loaded")]


async def collect(client: RunClient, run: str) -> list[tuple[str, int, str]]:
    return [(line.task_id, line.map_index, line.text) async for line in client.tail(run)]


async def test_a_worker_keeps_gives_back_and_hears_a_cancel(client: RunClient) -> None:
    run = await client.trigger("etl")
    assert (await claimed(client)).id == (await claimed(client)).id == run.id
    assert await client.heartbeat(run.id, SECRET) is False
    assert (await client.release(run.id, SECRET)).state == "queued"
    assert (await claimed(client)).attempt == 2
    await client.cancel(run.id)
    assert await client.heartbeat(run.id, SECRET) is True
    assert (await client.finish(run.id, SECRET, "failed", "stopped")).state == "cancelled"
    assert await client.claim(["etl"], SECRET) is None


def test_without_asyncio(server: Server) -> None:
    async def prepared() -> None:
        async with RunClient(server.url, server.key) as client:
            await client.put_dag("etl", [{"task_id": "load", "result": True}])

    async def worked() -> None:
        async with RunClient(server.url, server.key) as client:
            await work(client)

    asyncio.run(prepared())
    with SyncClient(server.url, server.key) as client:
        run = client.trigger("etl", {"n": 1})
        asyncio.run(worked())
        assert [line.text for line in client.tail(run.id)] == ["loading", "loaded"]
        assert client.result(run.id) == 84
        assert client.wait(run.id, timeout=1).state == "success"
        assert client.call("etl", timeout=0).state == "queued"
    client.close()
