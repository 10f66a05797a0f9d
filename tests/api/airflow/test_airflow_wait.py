"""PROTOCOLS.md, B3: waiting for a run."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from taskserver.api.airflow.audience import RunEnd
from taskserver.config import Limits, Settings
from taskserver.errors import StoreUnavailable
from tests.api.airflow.conversation import DAG, Airflow, Work, detail, encoded, path_of
from tests.api.conftest import Serve
from tests.api.conversation import Answer
from tests.eventually import LIMIT, eventually

RUNNING, SUCCESS = {"state": "running"}, {"state": "success"}


# --- lines -----------------------------------------------------------------------


async def test_a_run_that_has_ended_is_told_in_one_line(airflow: Airflow) -> None:
    work = await airflow.begin("a")
    await work.done("a", "Hello World!")
    await work.finish()
    assert await work.wait() == [{"state": "success", "results": {"a": "Hello World!"}}]


async def test_the_state_is_told_at_once_and_each_interval(airflow: Airflow) -> None:
    await airflow.dag()
    run = await airflow.trigger()
    async with Work(airflow, "", run["dag_run_id"], "").waiting(interval=0.05) as lines:
        assert await lines.next() == await lines.next() == {"state": "queued"}
        claimed = await airflow.api.json("POST", "/runs/claim", body={})
        work = Work(airflow, claimed["id"], claimed["run_id"], claimed["claim"])
        while (line := await lines.next()) != RUNNING:
            assert line == {"state": "queued"}
        begun = time.monotonic()
        assert [await lines.next() for _ in range(4)] == [RUNNING] * 4
        assert time.monotonic() - begun > 0.1, "never more often than each 50 ms"
        await work.finish()
        seen = [line async for line in lines]
        assert seen[-1] == SUCCESS
        assert all(line == RUNNING for line in seen[:-1])


@pytest.mark.parametrize("text", ["1e-9", "0.001"])
async def test_a_tiny_interval_is_served_slower(airflow: Airflow, text: str) -> None:
    work = await airflow.begin()
    async with work.open(f"{work.path}/wait?interval={text}") as response:
        begun = time.monotonic()
        for _ in range(4):
            await response.content.readline()
        assert time.monotonic() - begun > 0.1


@pytest.mark.parametrize("text", ["inf", "1e300", "5", "%2B5", "%205%20", "x&interval=60"])
async def test_the_end_is_told_at_once_whatever_the_interval(airflow: Airflow, text: str) -> None:
    work = await airflow.begin()
    async with work.open(f"{work.path}/wait?interval={text}") as response:
        assert await response.content.readline() == b'{"state":"running"}\n'
        await work.finish("failed")
        assert await asyncio.wait_for(response.content.read(), LIMIT) == b'{"state":"failed"}\n'


@pytest.mark.parametrize("state", ["failed", "success"])
async def test_results_are_told_with_either_end(airflow: Airflow, state: str) -> None:
    work = await airflow.begin("a")
    async with work.waiting() as lines:
        assert await lines.next() == RUNNING
        await work.done("a", 1)
        await work.finish(state)
        assert [line async for line in lines] == [{"state": state, "results": {"a": 1}}]


async def test_a_cancelled_run_has_failed(airflow: Airflow) -> None:
    await airflow.dag()
    run = await airflow.trigger()
    async with Work(airflow, "", run["dag_run_id"], "").waiting() as lines:
        assert await lines.next() == {"state": "queued"}
        found = await airflow.api.services.store.find_run(DAG, run["dag_run_id"])
        await airflow.api.json("POST", f"/runs/{found.id}/cancel")
        assert [line async for line in lines] == [{"state": "failed"}]


# --- results ---------------------------------------------------------------------


async def test_which_results(airflow: Airflow) -> None:
    work = await airflow.begin("b", "a", "null", "late", mapped=("m",))
    await work.done("b", {"x": [1]})
    await work.done("a", 0)
    await work.done("null", None)
    await work.done("plain", "not marked")
    await work.task("late")
    for index in (2, 0, 1):
        await work.done("m", index, map_index=index)
    await work.finish()

    async def results(**query: Any) -> Any:
        (line,) = await work.wait(**query)
        assert line["state"] == "success"
        assert line.get("results", ...) != {}
        return line.get("results")

    assert await results() == {"a": 0, "b": {"x": [1]}}
    assert list(await results()) == ["a", "b"]
    assert await results(result=["plain", "m", "plain", "a", "none"]) == {"a": 0, "m": [0, 1, 2], "plain": "not marked"}
    assert await results(result=["null", "late", "none"]) is None
    assert await results(result="") is None
    assert await results(result=["", "plain"]) == {"plain": "not marked"}
    assert await results(result=["..", "a/b", "%", "\N{SNOWMAN}", "'"]) is None


async def test_a_mapped_task_is_a_list_even_of_one(airflow: Airflow) -> None:
    work = await airflow.begin("m", mapped=("m",))
    await work.done("m", "x", map_index=7)
    await work.finish()
    assert await work.wait() == [{"state": "success", "results": {"m": ["x"]}}]


async def test_of_several_tries_the_last_one_counts(airflow: Airflow) -> None:
    work = await airflow.begin("a")
    await work.done("a", "first")
    task = await work.task("a", try_number=2)
    await airflow.api.finish(task, result={"type": "json", "data": "second"})
    await work.finish()
    assert await work.wait() == [{"state": "success", "results": {"a": "second"}}]


async def test_a_failed_tasks_value_counts_too(airflow: Airflow) -> None:
    work = await airflow.begin("a")
    await work.done("a", "half", code=1)
    await work.finish(None)
    assert await work.wait() == [{"state": "failed", "results": {"a": "half"}}]


async def test_results_may_be_huge_and_nested_deeply(airflow: Airflow) -> None:
    huge = "x" * (2**20 - 1000)
    nested: Any = 1
    for _ in range(250):
        nested = [nested]
    work = await airflow.begin("a", "b", "c", mapped=("c",))
    async with work.waiting() as lines:
        assert await lines.next() == RUNNING
        await work.done("a", huge)
        await work.done("b", nested)
        await work.done("c", nested, map_index=0)
        await work.finish()
        told = await asyncio.wait_for(lines.response.content.read(), LIMIT)  # longer than a line may be for readline
    assert told.startswith(b'{"state":"success","results":{"a":"xxx')
    assert told.count(b"[") == 250 + 251
    assert len(told) > len(huge)
    assert told.endswith(b"}}\n")


# --- many ------------------------------------------------------------------------


async def test_all_waiters_are_told_at_once_and_their_connections_live_on(airflow: Airflow) -> None:
    work = await airflow.begin("a")
    token = await airflow.login("ann", airflow.api.key)
    colleague = await airflow.with_key("colleague", owner="ann")
    callers = [airflow, airflow.bearing(token), colleague]
    queries = ["interval=60", "interval=1000", "interval=60&result=b", "interval=60&result="]
    readers = [
        await _connect(callers[number % 3], f"{work.path}/wait?{queries[number % 4]}", f"{work.path}/wait?interval=9")
        for number in range(120)
    ]
    for reader, _ in readers:
        assert (await _chunk(reader)) == b'{"state":"running"}\n'
    await work.done("a", 1)
    await work.done("b", 2)
    await work.finish()
    ends = [{"a": 1}, {"a": 1}, {"b": 2}, None]
    for number, (reader, writer) in enumerate(readers):
        expected = b'{"state":"success"}\n'
        if (results := ends[number % 4]) is not None:
            expected = f'{{"state":"success","results":{results}}}\n'.replace("'", '"').replace(": ", ":").encode()
        assert await _chunk(reader) == expected
        assert await _chunk(reader) == b"", "the body's end"
        await reader.readuntil(b"\r\n\r\n")  # the head of the answer to the request that was sent behind the first one
        assert await _chunk(reader) == b'{"state":"success","results":{"a":1}}\n'
        assert await _chunk(reader) == b""
        writer.close()
    await work.waits(0)


async def _connect(caller: Airflow, *paths: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection with these requests sent one behind the other, and the first answer's head read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", caller.api.client.port)
    for path in paths:
        lines = f"GET /api/v2{path} HTTP/1.1\r\nHost: x\r\nAuthorization: {caller.headers['Authorization']}\r\n\r\n"
        writer.write(lines.encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LIMIT)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-type" not in head.lower()
    assert b"Transfer-Encoding: chunked\r\n" in head
    return reader, writer


async def _chunk(reader: asyncio.StreamReader) -> bytes:
    """The next chunk of a chunked body; empty at its end."""
    size = int(await asyncio.wait_for(reader.readline(), LIMIT), 16)
    data = await reader.readexactly(size)
    assert await reader.readexactly(2) == b"\r\n"
    return data


@pytest.mark.usefixtures("one_process")
async def test_no_tick_reads_the_store(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    work = await airflow.begin()
    async with work.waiting(interval=0.05) as lines:
        assert await lines.next() == RUNNING

        async def read(*_: object) -> Any:
            raise StoreUnavailable("the database failed")

        monkeypatch.setattr(airflow.api.services.store, "_query", read)
        assert [await lines.next() for _ in range(5)] == [RUNNING] * 5


async def test_who_leaves_is_forgotten(airflow: Airflow) -> None:
    work = await airflow.begin()
    async with work.waiting() as stays:
        assert await stays.next() == RUNNING
        async with work.waiting() as leaves:
            assert await leaves.next() == RUNNING
            await work.waits(2)
            leaves.response.close()
        await work.waits(1)
        await work.finish()
        assert [line async for line in stays] == [SUCCESS]
    await work.waits(0)


async def test_more_than_the_limit_are_refused(serve: Serve) -> None:
    airflow = Airflow(await serve(Settings(limits=Limits(waiters=2))))
    work = await airflow.begin()
    async with work.waiting() as first, work.waiting() as second:
        assert await first.next() == await second.next() == RUNNING
        answer = await airflow.ask("GET", f"{work.path}/wait?interval=1")
        assert "waiting" in detail(answer, 429)
        assert 1 <= int(answer.headers["Retry-After"]) <= 5
        await work.finish()
        assert [line async for line in first] == [line async for line in second] == [SUCCESS]


async def test_a_wait_without_anybody_to_tell_it_finds_the_end_itself(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it does so at its own pace: a line each interval, and the last one at once."""

    async def look(_: RunEnd) -> Any:
        raise StoreUnavailable("the database failed")

    monkeypatch.setattr(RunEnd, "look", look)
    work = await airflow.begin("a")
    async with work.waiting(interval=0.05) as fast, work.waiting(interval=3600) as slow:
        assert await slow.next() == RUNNING
        for _ in range(5):
            assert await fast.next() == RUNNING
        await work.done("a", 1)
        await work.finish()
        for lines in (fast, slow):
            seen = [line async for line in lines]
            assert seen[-1] == {"state": "success", "results": {"a": 1}}
            assert len(seen) < 200  # a wait that does not pause would have thousands


# --- what is no end --------------------------------------------------------------


async def test_a_deleted_run_breaks_its_waits_off(airflow: Airflow) -> None:
    work = await airflow.begin()
    async with work.waiting() as slow, work.waiting(interval=0.05) as fast:
        assert await slow.next() == await fast.next() == RUNNING
        await work.delete()
        assert await slow.breaks_off() == []
        assert set(map(str, await fast.breaks_off())) <= {str(RUNNING)}
    assert "was not found" in detail(await airflow.ask("GET", work.path + "/wait?interval=1"), 404)
    await work.waits(0)


async def test_a_revoked_key_breaks_its_waits_off_and_no_others(airflow_admin: Airflow, airflow: Airflow) -> None:
    work = await airflow.begin()
    colleague = await airflow_admin.with_key("colleague", owner="ann")
    theirs = Work(colleague, work.id, work.run_id, work.claim)
    by_token = Work(airflow.bearing(await airflow.login("ann", airflow.api.key)), work.id, work.run_id, work.claim)
    async with work.waiting() as mine, by_token.waiting() as token, theirs.waiting() as other:
        assert await mine.next() == await token.next() == await other.next() == RUNNING
        await airflow_admin.api.json("DELETE", f"/keys/{airflow.api.key_id}")
        assert await mine.breaks_off() == await token.breaks_off() == []
        await airflow_admin.api.json("POST", f"/runs/{work.id}/finish", body={"claim": work.claim, "state": "success"})
        assert [line async for line in other] == [SUCCESS]


async def test_a_key_that_expires_breaks_its_waits_off(airflow_admin: Airflow) -> None:
    work = await (await airflow_admin.with_key("ann")).begin()
    short = await airflow_admin.with_key("short", owner="ann", seconds=1)
    async with Work(short, work.id, work.run_id, work.claim).waiting() as lines:
        assert await lines.next() == RUNNING
        assert await lines.breaks_off() == []


async def test_a_shutdown_is_no_end(airflow: Airflow) -> None:
    work = await airflow.begin()
    async with work.waiting() as lines:
        assert await lines.next() == RUNNING
        airflow.api.services.waits.drain()
        assert await lines.breaks_off() == [RUNNING]
    answer = await airflow.ask("GET", f"{work.path}/wait?interval=1")
    assert "shutting down" in detail(answer, 503)
    assert answer.headers["Retry-After"] == "1"


async def test_results_that_cannot_be_read_are_no_end(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    work = await airflow.begin("a")

    async def read(*_: object) -> Any:
        raise StoreUnavailable("the database failed")

    async with work.waiting() as lines:
        assert await lines.next() == RUNNING
        monkeypatch.setattr(airflow.api.services.store, "run_tasks", read)
        await work.finish()
        assert await lines.breaks_off() == []
    assert "failed" in detail(await airflow.ask("GET", f"{work.path}/wait?interval=1"), 503)


# --- HTTP ------------------------------------------------------------------------


async def test_an_old_client_is_told_without_chunks(airflow: Airflow) -> None:
    work = await airflow.begin()
    lines = f"GET /api/v2{work.path}/wait?interval=60 HTTP/1.0\r\nAuthorization: Bearer {airflow.api.key}\r\n\r\n"
    asking = asyncio.ensure_future(airflow.api.raw(lines.encode()))
    await work.waits(1)
    await work.finish()
    head, _, body = (await asking).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body == b'{"state":"running"}\n{"state":"success"}\n'


async def test_a_head_request_does_not_wait(airflow: Airflow) -> None:
    work = await airflow.begin()
    for _ in range(2):
        answer: Answer = await airflow.ask("HEAD", f"{work.path}/wait?interval=60")
        assert (answer.status, answer.body) == (200, b"")
        assert "Content-Type" not in answer.headers
        await work.finish()


async def test_a_reader_that_does_not_read_is_told_in_the_end(airflow: Airflow) -> None:
    work = await airflow.begin("a")
    reader, writer = await _connect(airflow, f"{work.path}/wait?interval=60")
    waits = airflow.api.services.waits
    await work.done("a", "x" * (2**20 - 1000))
    await work.finish()
    await eventually(lambda: waits.count == 0, "the end of the wait")
    assert await _chunk(reader) == b'{"state":"running"}\n'
    assert len(await _chunk(reader)) > 2**20 - 1000
    assert await _chunk(reader) == b""
    writer.close()


async def test_ids_are_percent_encoded(airflow: Airflow) -> None:
    await airflow.dag()
    run_id = "a+b:c~d.e"
    await airflow.trigger(dag_run_id=run_id)
    claimed = await airflow.api.json("POST", "/runs/claim", body={})
    await airflow.api.json(
        "POST", f"/runs/{claimed['id']}/finish", body={"claim": claimed["claim"], "state": "success"}
    )
    for written in (run_id, encoded(run_id), run_id.replace("+", "%2B"), run_id.replace(":", "%3a")):
        answer = await airflow.ask("GET", f"/dags/{DAG}/dagRuns/{written}/wait?interval=1")
        assert answer.body == b'{"state":"success"}\n'
    assert path_of(run_id).endswith("a%2Bb%3Ac~d%2Ee")
