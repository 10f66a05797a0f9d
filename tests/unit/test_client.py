"""TaskClient against a real server: every call, and every kind of refusal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone

import pytest

from taskserver.api.tasks.room import CODES
from taskserver.client import ApiError, OutputPage, TaskClient, Unreachable
from taskserver.client.answers import APPEND_CONFLICT, TASK_FINISHED
from taskserver.errors import AppendConflict, TaskFinished
from tests.server import Server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[TaskClient]:
    """An admin's client."""
    async with TaskClient(server.url, server.key) as client:
        yield client


async def refused(call: object) -> ApiError:
    """The ApiError that a call ends with."""
    with pytest.raises(ApiError) as caught:
        await call  # type: ignore[misc]
    return caught.value


async def test_a_task_from_its_beginning_to_its_end(client: TaskClient) -> None:
    task = await client.create("build", lease=60, labels={"branch": "main"})
    assert (task.name, task.state, task.lease, task.labels) == ("build", "queued", 60, {"branch": "main"})
    assert task.created_at is not None
    assert abs(datetime.now(timezone.utc) - task.created_at) < timedelta(minutes=5)

    appended = await client.append(task.id, ["one", "two"], first=0)
    assert (appended.first, appended.last, appended.cancel_requested) == (0, 2, False)
    assert await client.append(task.id, ["one", "two"], first=0) == appended
    await client.append_ndjson(task.id, b'{"text": "three", "stream": "stderr"}\n')
    assert await client.heartbeat(task.id) is False

    asked = await client.cancel(task.id)
    assert (asked.state, asked.cancel_requested) == ("running", True)
    assert await client.heartbeat(task.id) is True
    assert (await client.append(task.id, ["four"])).cancel_requested is True

    result = {"type": "text", "data": {"answer": 42}}
    ended = await client.finish(task.id, 3, "stopped", result=result, lines=["five"], first=4)
    assert await client.finish(task.id, 3, "stopped", result=result, lines=["five"], first=4) == ended

    seen = await client.get(task.id)
    assert list(seen.output) == ["one", "two", "three", "four", "five"]
    assert (seen.state, seen.finished, seen.code, seen.error) == ("cancelled", True, 3, "stopped")
    assert (seen.result, seen.last) == (result, 5)
    assert (await client.get(task.id, first=4)).output == ["five"]

    await client.delete(task.id)
    assert (await refused(client.get(task.id))).status == 404


async def test_output_in_pages(client: TaskClient) -> None:
    task = await client.create()
    await client.append(task.id, ["one", "two", "three"])

    assert await client.output(task.id) == OutputPage(0, 3, ["one", "two", "three"], False)
    assert await client.output(task.id, first=1, limit=1) == OutputPage(1, 2, ["two"], False)
    assert await client.output(task.id, tail=1) == OutputPage(2, 3, ["three"], False)
    assert await client.output(task.id, first=3) == OutputPage(3, 3, [], False)


async def test_follow_and_wait_see_a_task_to_its_end(client: TaskClient) -> None:
    task = await client.create()
    following = asyncio.create_task(collect(client, task.id))
    waiting = asyncio.create_task(client.wait(task.id))
    lines = [str(number) for number in range(30_000)]
    for start in range(0, len(lines), 5_000):
        await client.append(task.id, lines[start : start + 5_000])
    await client.finish(task.id, 1)

    pages = await following
    assert [line for page in pages for line in page.lines] == lines
    assert [page.first for page in pages] == [0, *[page.last for page in pages[:-1]]]
    ended = await waiting
    assert (ended.finished, ended.code, ended.last, ended.output) == (True, 1, 30_000, ())


async def test_follow_begins_at_a_cursor(client: TaskClient) -> None:
    task = await client.create()
    await client.finish(task.id, lines=["one", "two", "three"])

    assert [page.lines for page in await collect(client, task.id, 2)] == [["three"]]
    assert await collect(client, task.id, 3) == []


async def test_a_wait_that_is_over_returns_the_task_as_it_is(client: TaskClient) -> None:
    task = await client.create()
    waited = await client.wait(task.id, timeout=0.1)
    assert (waited.finished, waited.state) == (False, "queued")


async def test_lists_come_in_pages(client: TaskClient) -> None:
    tasks = [await client.create(f"task {number}", labels={"odd": str(number % 2)}) for number in range(5)]

    page = await client.list_tasks(limit=3)
    assert [task.name for task in page.tasks] == ["task 4", "task 3", "task 2"]
    rest = await client.list_tasks(limit=3, cursor=page.cursor)
    assert ([task.name for task in rest.tasks], rest.cursor) == (["task 1", "task 0"], None)
    assert [task.name for task in (await client.list_tasks(labels={"odd": "1"})).tasks] == ["task 3", "task 1"]
    assert [task.id for task in (await client.list_tasks(name="task 2")).tasks] == [tasks[2].id]
    await client.cancel(tasks[0].id)
    assert [task.id for task in (await client.list_tasks(state="cancelled")).tasks] == [tasks[0].id]


async def test_keys(client: TaskClient, server: Server) -> None:
    key = await client.create_key("ci", ["read"], owner="team", expires_in=3600)
    assert (key.name, key.owner, key.scopes, key.revoked_at) == ("ci", "team", ["read"], None)
    assert key.secret is not None
    assert key.secret not in repr(key)
    assert key.expires_at is not None
    async with TaskClient(server.url, key.secret) as reader:
        assert (await reader.list_tasks()).tasks == []
        assert (await refused(reader.create("x"))).status == 403
        revoked = await client.revoke_key("ci")
        assert (revoked.id, revoked.revoked_at is None, revoked.secret) == (key.id, False, None)
        assert (await refused(reader.list_tasks())).status == 401
    assert [known.name for known in await client.list_keys()] == ["admin", "ci"]


async def test_refusals_carry_all_that_the_server_says(client: TaskClient) -> None:
    task = await client.create(task_id="mine")
    await client.append(task.id, ["one"])

    conflict = await refused(client.append(task.id, ["two"], first=0))
    assert (conflict.status, conflict.code, conflict.payload) == (409, APPEND_CONFLICT, {"last": 1})
    assert str(conflict) == conflict.message
    await client.finish(task.id)
    ended = await refused(client.append(task.id, ["two"]))
    assert (ended.status, ended.code) == (409, TASK_FINISHED)
    assert ended.payload == {"last": 1, "state": "success", "code": 0}
    beyond = await refused(client.output(task.id, first=2))
    assert (beyond.status, beyond.code, beyond.message) == (
        400, 13, "first: is 2, but the output has 1 lines so far",
    )  # fmt: skip
    assert (await refused(client.create(task_id="mine"))).payload == {"id": "mine"}
    assert (await refused(client.get("no such/task?x=1"))).code == 4


def test_the_codes_are_the_servers() -> None:
    assert (CODES[AppendConflict], CODES[TaskFinished]) == (APPEND_CONFLICT, TASK_FINISHED)


async def test_a_key_that_nobody_knows(server: Server) -> None:
    async with TaskClient(server.url + "/", "x" * 40) as stranger:
        error = await refused(stranger.list_tasks())
    assert (error.status, error.code) == (401, 30)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "ftp://127.0.0.1", "http://", "http://x/?a=1", "http://x/#y"])
def test_a_url_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="server's URL"):
        TaskClient(url, "x" * 40)


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "ключ"])
def test_a_key_that_is_none_is_refused_at_once(key: str) -> None:
    with pytest.raises(ValueError, match="API key"):
        TaskClient("http://127.0.0.1:8080", key)


async def test_without_a_server_it_is_unreachable(server: Server) -> None:
    server.kill()
    async with TaskClient(server.url, "x" * 40) as client:
        with pytest.raises(Unreachable, match="Connection refused"):
            await client.list_tasks()


async def collect(client: TaskClient, task_id: str, first: int = 0) -> list[OutputPage]:
    """All pages of a ``follow``."""
    return [page async for page in client.follow(task_id, first=first)]
