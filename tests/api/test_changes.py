"""PROTOCOLS.md, A7: watching which tasks change."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent, aconnect_sse

from taskserver.api.tasks import changes as module
from taskserver.config import Limits, Settings, Timing
from tests.api.conftest import Serve
from tests.api.conversation import Api, refused
from tests.api.stream_client import CUT, LIMIT, Events
from tests.eventually import eventually

PRODUCING = "/tasks/{}/output"


@contextlib.asynccontextmanager
async def watching(api: Api, last_id: str | None = None, **query: Any) -> AsyncIterator[Events]:
    """What changes, through httpx-sse."""
    headers = {"Authorization": f"Key {api.key}"}
    if last_id is not None:
        headers["Last-Event-ID"] = last_id
    base = str(api.client.make_url(api.prefix))
    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=LIMIT) as client:
        async with aconnect_sse(client, "GET", "/changes", params=query) as source:
            assert source.response.status_code == 200
            yield Events(source)


async def begin(events: Events) -> str:
    """The id of the first event, which tells to read everything."""
    event = await events.next()
    assert (event.event, event.data) == ("reset", "{}")
    return event.id


async def told(events: Events) -> dict[str, Any]:
    """What the next event tells."""
    event = await events.next()
    assert event.event == "changes"
    news: dict[str, Any] = json.loads(event.data)
    assert list(news) == ["tasks", "runs", "deleted", "more"]
    return news


async def until_told(events: Events, **states: str) -> list[ServerSentEvent]:
    """Read events until each task was told to be in its state; in the order of the last word on each."""
    found: list[ServerSentEvent] = []
    left = dict(states)
    while left:
        event = await events.next()
        found.append(event)
        for task in json.loads(event.data).get("tasks", ()):
            if left.get(task["id"]) == task["state"]:
                del left[task["id"]]
    return found


async def test_a_task_is_told_as_the_list_has_it(api: Api) -> None:
    async with watching(api) as events:
        assert events.response.headers["Content-Type"] == "text/event-stream"
        assert events.response.headers["Cache-Control"] == "no-store"
        await begin(events)
        task_id = await api.create(name="make", labels={"a": "b"})
        news = await told(events)
        assert news["tasks"] == (await api.json("GET", "/tasks"))["tasks"]
        assert (news["runs"], news["deleted"], news["more"]) == ([], [], False)
        await api.append(task_id, "a")
        assert (await told(events))["tasks"][0]["state"] == "running"
        await api.finish(task_id, code=3)
        assert (await told(events))["tasks"] == (await api.json("GET", "/tasks"))["tasks"]
        await api.delete(task_id)
        assert (await told(events))["deleted"] == [task_id]


async def test_lines_of_output_are_no_change(api: Api) -> None:
    async with watching(api) as events:
        await begin(events)
        chatty = await api.create()
        await until_told(events, **{chatty: "queued"})
        await api.append(chatty, "a")
        await until_told(events, **{chatty: "running"})
        for _ in range(5):
            await api.append(chatty, "b")
        other = await api.create()
        news = await told(events)
        assert [task["id"] for task in news["tasks"]] == [other]


async def test_each_is_told_of_its_own(admin: Api) -> None:
    ann, bob = await admin.with_key("ann"), await admin.with_key("bob")
    async with watching(ann) as anns, watching(bob) as bobs, watching(admin) as all_of_them:
        for events in (anns, bobs, all_of_them):
            await begin(events)
        hers = await ann.create()
        his = await bob.create()
        assert [task["id"] for task in (await told(anns))["tasks"]] == [hers]
        assert [task["id"] for task in (await told(bobs))["tasks"]] == [his]
        await until_told(all_of_them, **{hers: "queued", his: "queued"})


@pytest.mark.usefixtures("one_process")
async def test_it_resumes_after_an_event(api: Api) -> None:
    async with watching(api) as staying:
        start = await begin(staying)
        async with watching(api) as leaving:
            await begin(leaving)
            first = await api.create()
            last_id = (await until_told(leaving, **{first: "queued"}))[-1].id
        second = await api.create()
        await until_told(staying, **{second: "queued"})
        async with watching(api, last_id) as back:
            assert [task["id"] for task in (await told(back))["tasks"]] == [second]
        async with watching(api, since=start) as back:
            assert [task["id"] for task in (await told(back))["tasks"]] == [first, second]
        async with watching(api, last_id, since=start) as back:
            assert [task["id"] for task in (await told(back))["tasks"]] == [second]


FOREIGN = ["", "x", "-", "00000000-0", "{epoch}-99", "{epoch}--1", "{epoch}-" + "9" * 40, "é"]


@pytest.mark.parametrize("last_id", FOREIGN)
async def test_who_may_have_missed_something_is_told_so(api: Api, last_id: str) -> None:
    async with watching(api) as staying:
        epoch = (await begin(staying)).partition("-")[0]
        async with watching(api, since=last_id.replace("{epoch}", epoch)) as events:
            await begin(events)
            task_id = await api.create()
            assert [task["id"] for task in (await told(events))["tasks"]] == [task_id]


@pytest.mark.usefixtures("one_process")
async def test_what_happened_while_nobody_watched_is_not_told_but_a_reset_is(api: Api) -> None:
    async with watching(api) as events:
        last_id = await begin(events)
    await eventually(lambda: api.services.waits.count == 0, "the end of the stream")
    await api.create()
    async with watching(api, last_id) as events:
        assert await begin(events) != last_id


@pytest.mark.usefixtures("one_process")
async def test_of_very_many_the_newest_are_told(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TOLD", 2)
    async with watching(api) as staying:
        start = await begin(staying)
        made = [await api.create() for _ in range(4)]
        async with watching(api, start) as events:
            news = await told(events)
            assert ([task["id"] for task in news["tasks"]], news["more"]) == (made[2:], True)


async def test_a_run_and_its_tasks(admin: Api) -> None:
    ann = await admin.with_key("ann")
    await ann.json("PUT", "/dags/nightly", body={"tasks": [{"task_id": "load"}]})
    run = (await ann.json("POST", "/dags/nightly/runs", status=201, body={}))["id"]
    async with watching(ann, run=run) as events, watching(ann) as everything:
        await begin(events)
        await begin(everything)
        await ann.create(name="another")
        task = await ann.json("POST", f"/runs/{run}/tasks", status=201, body={"task_id": "load"})
        assert [told_of["id"] for told_of in (await told(events))["tasks"]] == [task["id"]]
        await ann.finish(task["id"])
        await ann.json("POST", f"/runs/{run}/finish", body={})
        while not (ended := (await told(events))["runs"]) or not ended[0]["finished"]:
            pass
        shown = await ann.json("GET", f"/runs/{run}")
        del shown["tasks"]
        assert ended == [shown]
        await until_told(everything, **{task["id"]: "success"})
        assert (await ann.ask("DELETE", f"/runs/{run}")).status == 204
        assert run in (await told(events))["deleted"]
    bob = await admin.with_key("bob")
    refused(await bob.ask("GET", "/changes", run=run), 404, 4)


async def test_a_runs_heartbeats_are_no_change(api: Api) -> None:
    await api.json("PUT", "/dags/nightly", body={})
    await api.json("POST", "/dags/nightly/runs", status=201, body={})
    claimed = await api.json("POST", "/runs/claim", body={})
    await eventually(lambda: api.services.feed._timer is None, "the wake-up for the claim")
    async with watching(api, run=claimed["id"]) as events:
        await begin(events)
        await api.json("POST", f"/runs/{claimed['id']}/heartbeat", body={"claim": claimed["claim"]})
        assert not (await told(events))["runs"][0]["finished"], "not known to the feed before"
        await api.json("POST", f"/runs/{claimed['id']}/heartbeat", body={"claim": claimed["claim"]})
        await api.json("POST", f"/runs/{claimed['id']}/finish", body={"claim": claimed["claim"], "state": "success"})
        assert (await told(events))["runs"][0]["state"] == "success"


async def test_revocation_cuts_it_and_shutdown_ends_it(admin: Api) -> None:
    ann, bob = await admin.with_key("ann"), await admin.with_key("bob")
    async with watching(ann) as anns, watching(bob) as bobs:
        await begin(anns)
        await begin(bobs)
        await eventually(lambda: admin.services.waits.count == 2, "both wait")
        await admin.json("DELETE", "/keys/ann")
        with pytest.raises(CUT):
            await anns.rest()
        admin.services.waits.drain()
        assert await bobs.rest() == []
    await eventually(lambda: admin.services.waits.count == 0, "nobody waits")


async def test_a_quiet_stream_shows_that_it_lives(serve: Serve) -> None:
    api = await (await serve(Settings(timing=Timing(heartbeat=0.01)))).with_key("ann")
    url = str(api.client.make_url("/v1/changes"))
    async with httpx.AsyncClient(timeout=LIMIT) as client:
        async with client.stream("GET", url, headers={"Authorization": f"Key {api.key}"}) as response:
            lines = response.aiter_lines()
            found = [await asyncio.wait_for(anext(lines), LIMIT) for _ in range(20)]
            assert found.count(":") >= 3


async def test_there_is_a_limit_and_a_question_must_make_sense(serve: Serve) -> None:
    api = await serve(replace(Settings(), limits=Limits(waiters=1)))
    refused(await api.ask("GET", "/changes", run="x"), 400, 25, "run")
    async with watching(api) as events:
        await begin(events)
        refused(await api.ask("GET", "/changes"), 429, 1020)
    await eventually(lambda: api.services.waits.count == 0, "the end of the stream")
    assert (await api.ask("HEAD", "/changes")).status == 200
