"""Answers that are written before their handlers go on: what may happen at the same moment."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from taskserver.model import Outcome, now_us
from taskserver.web import seats
from taskserver.web.streaming import Part, write_part
from tests.api.conversation import Answer, Api, refused
from tests.eventually import eventually
from tests.unit.wire import Client, Wire

MANY = 60
PATHS = ("/tasks/{}?first=1&wait=20", "/tasks/{}/output?first=1&wait=55")
BOTH = pytest.mark.parametrize("path", PATHS)


@pytest.fixture
def wire(api: Api) -> Wire:
    """The server, for clients whose bytes the test writes."""
    port = api.client.port
    assert port is not None
    return Wire(port, None)


def ask(client: Client, api: Api, path: str, *headers: str, **how: str) -> None:
    client.ask(api.prefix + path, f"Authorization: Key {api.key}", *headers, **how)


async def waits(api: Api, count: int) -> None:
    """Return when so many requests wait."""
    await eventually(lambda: api.services.waits.count == count, f"{count} open waits")


def polls(api: Api, path: str, count: int = MANY) -> list[asyncio.Task[Answer]]:
    """So many requests for the same."""
    return [api.begin("GET", path) for _ in range(count)]


# --- connections -----------------------------------------------------------------


@BOTH
async def test_the_connection_serves_what_was_asked_behind_the_poll(api: Api, wire: Wire, path: str) -> None:
    task_id = await api.create("a")
    async with wire.connect() as client:
        for target in (path.format(task_id), f"/tasks/{task_id}", f"/tasks/{task_id}/output?first=0"):
            ask(client, api, target)
        await waits(api, 1)
        await api.finish(task_id, output=["b"])
        assert [json.loads((await client.answer()).body)["output"] for _ in range(3)] == [["b"], ["a", "b"], ["a", "b"]]
        ask(client, api, f"/tasks/{task_id}")
        assert json.loads((await client.answer()).body)["finished"]


@BOTH
async def test_whoever_asks_differently_is_told_all_the_same(api: Api, wire: Wire, path: str) -> None:
    task_id = await api.create("a")
    target = path.format(task_id)
    usual = polls(api, target, 2)
    async with wire.connect() as old, wire.connect() as closing, wire.connect() as head:
        ask(old, api, target, version="1.0")
        ask(closing, api, target, "Connection: close")
        ask(head, api, target, method="HEAD")
        await waits(api, 5)
        await api.finish(task_id)
        for client in (old, closing):
            assert json.loads((await client.answer()).body)["finished"]
            assert await client.rest() == b""
        body = (await usual[0]).body
        assert (await head.answer(head_only=True)).headers["Content-Length"] == str(len(body))
    assert (await usual[1]).body == body
    await waits(api, 0)


async def test_a_preference_is_told_back(api: Api) -> None:
    task_id = await api.create()
    asking = [
        api.begin("GET", f"/tasks/{task_id}/output", headers={"Prefer": f"wait={wait}"}) for wait in (20, 20, 30, 99)
    ]
    await waits(api, 4)
    await api.append(task_id, "a")
    applied = [(await answer).headers["Preference-Applied"] for answer in asking]
    assert applied == ["wait=20", "wait=20", "wait=30", "wait=55"]


@BOTH
async def test_those_who_left_do_not_keep_the_others_waiting(api: Api, wire: Wire, path: str) -> None:
    task_id = await api.create("a")
    asking = polls(api, path.format(task_id), 3)
    async with wire.connect() as client:
        ask(client, api, path.format(task_id))
        await waits(api, 4)
        client.leave()
        # The server may or may not have noticed it by now.
        await api.finish(task_id)
        assert all([(await answer).json["finished"] for answer in asking])
    await waits(api, 0)


# --- races -----------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("turns", [0, 1, 3, 10, 30, 100, 300])
async def test_an_end_while_waiters_come(api: Api, path: str, turns: int) -> None:
    task_id = await api.create("a")

    async def finish() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await api.finish(task_id, output=["b"])

    asking = polls(api, path.format(task_id))
    await finish()
    for answer in await asyncio.wait_for(asyncio.gather(*asking), 15):
        assert (answer.json["finished"], answer.json["output"]) == (True, ["b"])
    await waits(api, 0)


async def test_pollers_miss_no_line_and_get_none_twice(api: Api) -> None:
    task_id = await api.create()
    lines = [str(number) for number in range(300)]

    async def poll() -> list[str]:
        seen: list[str] = []
        while not (page := await api.output(task_id, first=len(seen), wait=55))["finished"]:
            seen += page["output"]
        return seen + page["output"]  # type: ignore[no-any-return]

    polling = [asyncio.ensure_future(poll()) for _ in range(20)]
    for number in range(0, 300, 3):
        await api.append(task_id, *lines[number : number + 3])
    await api.finish(task_id)
    for seen in await asyncio.wait_for(asyncio.gather(*polling), 60):
        assert seen == lines


@BOTH
async def test_a_key_that_is_revoked_with_the_end(admin: Api, api: Api, path: str) -> None:
    bob = await admin.with_key("bob", owner="ann")
    task_id = await api.create("a")
    mine, bobs = polls(api, path.format(task_id), 20), polls(bob, path.format(task_id), 20)
    await waits(api, 40)
    await asyncio.gather(api.finish(task_id), admin.services.keys.revoke(bob.key_id))
    assert all([(await answer).json["finished"] for answer in mine])
    for answer in await asyncio.gather(*bobs):
        if answer.status == 200:  # told before the key was revoked
            assert answer.json["finished"]
        else:
            refused(answer, 401, 30)


@BOTH
async def test_a_revoked_key_hears_nothing_of_what_comes_later(admin: Api, api: Api, path: str) -> None:
    bob = await admin.with_key("bob", owner="ann")
    task_id = await api.create("a")
    mine, bobs = polls(api, path.format(task_id), 5), polls(bob, path.format(task_id), 5)
    await waits(api, 10)
    await admin.services.keys.revoke(bob.key_id)
    for answer in await asyncio.gather(*bobs):
        refused(answer, 401, 30)
    assert not any(answer.done() for answer in mine)
    await api.finish(task_id)
    assert all([(await answer).json["finished"] for answer in mine])


@BOTH
async def test_a_task_that_is_deleted_under_its_waiters(api: Api, path: str) -> None:
    task_id = await api.create("a")
    asking = polls(api, path.format(task_id))
    await waits(api, MANY)
    store = api.services.store
    await asyncio.gather(store.finish(task_id, Outcome(), now_us()), store.delete_task(task_id))
    for answer in await asyncio.gather(*asking):
        if answer.status == 200:
            assert answer.json["finished"]
        else:
            refused(answer, 404, 4)
    await waits(api, 0)


@BOTH
async def test_an_id_that_is_used_again_tells_its_new_owner_only(admin: Api, path: str) -> None:
    ann, bob = await admin.with_key("ann"), await admin.with_key("bob")
    await ann.create("a", id="same")
    asking = polls(ann, path.format("same"), 5)
    await waits(ann, 5)
    await ann.cancel("same")
    await ann.finish("same", code=1)
    for answer in await asyncio.gather(*asking):
        assert answer.json["finished"]
    await ann.delete("same")
    await bob.create("secret", "another", id="same")
    theirs = polls(bob, path.format("same").replace("first=1", "first=2"), 2)
    await waits(bob, 2)
    refused(await ann.ask("GET", path.format("same")), 404, 4)
    await bob.finish("same")
    assert all([(await answer).json["finished"] for answer in theirs])


@BOTH
async def test_a_shutdown_answers_all_at_once_and_says_that_it_closes(api: Api, path: str) -> None:
    task_id = await api.create("a")
    asking = polls(api, path.format(task_id))
    await waits(api, MANY)
    api.services.waits.drain()
    for answer in await asyncio.gather(*asking):
        assert (answer.json["finished"], answer.headers["Connection"]) == (False, "close")


@BOTH
async def test_the_end_of_many_does_not_keep_others_waiting(api: Api, path: str) -> None:
    task_id, other = await api.create("a"), await api.create("b")
    asking = polls(api, path.format(task_id))
    await waits(api, MANY)
    await api.finish(task_id)
    assert await api.lines(other) == ["b"]
    assert all([(await answer).json["finished"] for answer in asking])


# --- followers -------------------------------------------------------------------


async def test_a_follower_that_does_not_read_costs_a_bounded_buffer(
    api: Api, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffered: list[int] = []
    told: list[bool] = []
    write = write_part

    def spy(request: Any, part: Part) -> bool:
        told.append(write(request, part))
        buffered.append(request.transport.get_write_buffer_size())
        return told[-1]

    monkeypatch.setattr(seats, "write_part", spy)
    task_id = await api.create()
    line = "x" * 50_000
    async with wire.connect(receive_buffer=4096) as slow, wire.connect() as quick:
        for client in (slow, quick):
            ask(client, api, f"/tasks/{task_id}/output?format=text&follow=true")
            await client.head()
        await waits(api, 2)
        for _ in range(200):
            await api.append(task_id, line)
            assert await quick.chunk() == line.encode() + b"\n"
        assert max(buffered) < 1_000_000
        assert told.count(False) >= 1
        await api.finish(task_id)
        assert await quick.chunk() == b""
        body = b""
        while chunk := await slow.chunk():
            body += chunk
        assert body == (line.encode() + b"\n") * 200


@pytest.mark.parametrize("format_", ["text", "ndjson", "sse"])
async def test_those_who_follow_in_one_format_get_the_same_bytes(api: Api, wire: Wire, format_: str) -> None:
    task_id = await api.create("before")
    path = f"/tasks/{task_id}/output?format={format_}&follow=true&first=1"
    async with wire.connect() as one, wire.connect() as two, wire.connect() as old:
        ask(old, api, path, version="1.0")
        for client in (one, two):
            ask(client, api, path)
            await client.head()
        await waits(api, 3)
        if format_ == "sse":  # what each gets for itself: when to come back
            assert (await one.chunk()).startswith(b"retry: ")
            assert (await two.chunk()).startswith(b"retry: ")
        heard = b""
        for text in ("a", "b", "c"):
            await api.append(task_id, text)
            chunk = await one.chunk()
            assert chunk == await two.chunk()
            heard += chunk
        await api.finish(task_id, output=["d"])
        while chunk := await one.chunk():
            assert chunk == await two.chunk()
            heard += chunk
        assert await two.chunk() == b""
        for client in (one, two):  # the connection lives on
            ask(client, api, f"/tasks/{task_id}")
            assert json.loads((await client.answer()).body)["finished"]
        assert (await old.rest()).endswith(heard)
    await waits(api, 0)
