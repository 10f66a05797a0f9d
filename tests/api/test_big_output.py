"""PROTOCOLS.md, A1 and A5: outputs that are larger than a page, and what happens while they are sent."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import aiohttp
import pytest

from taskserver.encoding import encode_lines
from taskserver.model import Outcome, now_us
from tests.api.conversation import Api, refused
from tests.eventually import eventually

LINES = 60_000
LENGTH = 200  # characters a line: 12 MB in all, many pages and more than any buffer between the two ends


def line(number: int) -> str:
    return f"{number:06d} ".ljust(LENGTH, "ü" if number % 7 == 0 else ".")


async def fill(api: Api, *, finish: bool = True) -> str:
    task_id = await api.create()
    store = api.services.store
    for first in range(0, LINES, 5000):
        batch = encode_lines([line(number) for number in range(first, first + 5000)], now_us())
        await store.append(task_id, batch, first, now_us())
    if finish:
        await store.finish(task_id, Outcome(), now_us())
    return task_id


@pytest.mark.parametrize("sealed", [False, True])
async def test_a_whole_output_is_one_answer(api: Api, sealed: bool) -> None:
    task_id = await fill(api)
    if sealed:
        await api.sealed()
    answer = await api.ask("GET", f"/tasks/{task_id}", first=1)
    task = answer.json
    assert (task["last"], task["finished"], len(task["output"])) == (LINES, True, LINES - 1)
    assert task["output"] == [line(number) for number in range(1, LINES)]
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert answer.headers["Cache-Control"] == "no-store"
    # State and count come first, so that a reader of the stream knows them early.
    assert answer.body.index(b'"last":') < answer.body.index(b'"output":')

    text = await api.ask("GET", f"/tasks/{task_id}/output", format="text")
    expected = hashlib.sha256("".join(line(number) + "\n" for number in range(LINES)).encode())
    assert hashlib.sha256(text.body).hexdigest() == expected.hexdigest()


async def test_a_running_tasks_output_is_one_snapshot(api: Api) -> None:
    task_id = await fill(api, finish=False)
    asking = [api.begin("GET", f"/tasks/{task_id}") for _ in range(3)]
    for number in range(100):
        await api.append(task_id, f"late {number}")
    await api.finish(task_id)
    for answer in await asyncio.gather(*asking):
        task = answer.json
        assert len(task["output"]) == task["last"] >= LINES
        assert task["finished"] == (task["state"] == "success")


async def test_head_of_it_has_no_body(api: Api) -> None:
    task_id = await fill(api)
    for path in (f"/tasks/{task_id}", f"/tasks/{task_id}/output"):
        answer = await api.ask("HEAD", path)
        assert (answer.status, answer.body) == (200, b"")


def slow(api: Api, path: str, **query: str) -> Any:
    """A request whose answer the test reads when it likes; the client's end keeps little of it."""
    headers = {"Authorization": f"Key {api.key}"}
    return api.client.get("/v1" + path, params=query, headers=headers, read_bufsize=1024)


@pytest.mark.parametrize(("path", "query"), [("/tasks/{}", {}), ("/tasks/{}/output", {"format": "text"})])
async def test_a_task_deleted_while_it_is_sent_cuts_the_connection(api: Api, path: str, query: dict[str, str]) -> None:
    task_id = await fill(api)
    async with slow(api, path.format(task_id), **query) as response:
        assert response.status == 200
        assert await response.content.readexactly(100)
        await api.delete(task_id)
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()
    refused(await api.ask("GET", path.format(task_id)), 404, 4)


async def test_a_cut_connection_is_no_error_in_the_log(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    task_id = await fill(api)
    async with slow(api, f"/tasks/{task_id}") as response:
        await response.content.readexactly(100)
        await api.delete(task_id)
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()
    assert await api.task(await api.done("a"))
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_slow_reader_gets_everything_and_holds_up_nobody(api: Api) -> None:
    task_id = await fill(api)
    async with slow(api, f"/tasks/{task_id}/output", format="text", follow="true") as response:
        assert await response.content.readline() == (line(0) + "\n").encode()
        # It does not read on; others are served, and so it is later.
        for number in range(20):
            other = await api.done(f"{number}")
            assert await api.lines(other) == [f"{number}"]
        rest = await response.content.read()
    assert rest.count(b"\n") == LINES - 1
    assert rest.endswith((line(LINES - 1) + "\n").encode())


async def test_a_slow_follower_catches_up_with_what_came_meanwhile(api: Api) -> None:
    task_id = await fill(api, finish=False)
    async with slow(api, f"/tasks/{task_id}/output", format="text", follow="true") as response:
        assert await response.content.readline() == (line(0) + "\n").encode()
        await api.append(task_id, "late")
        await api.finish(task_id, output=["end"])
        rest = await response.content.read()
    assert rest.count(b"\n") == LINES + 1
    assert rest.endswith(b"late\nend\n")


async def test_a_reader_that_leaves_costs_nothing_more(api: Api) -> None:
    task_id = await fill(api, finish=False)
    async with slow(api, f"/tasks/{task_id}/output", format="text", follow="true") as response:
        await response.content.readline()
        response.close()
    await eventually(lambda: api.services.waits.count == 0)
    assert (await api.finish(task_id))["finished"]
