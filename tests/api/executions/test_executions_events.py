"""PROTOCOLS.md, C4: an execution's events, their replay, and how their stream ends."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import ClientPayloadError

from taskserver.config import Limits, Settings, Timing
from tests.api.executions.conftest import Serve
from tests.api.executions.conversation import UNKNOWN, Api, Event, Work, faults, moment, refused
from tests.eventually import eventually

NAMES = ["initiated", "processing", "completed", "initiated", "processing", "failed"]


async def two_tasks(api: Api) -> Work:
    """A run that is worked on: `extract` has succeeded and `load` has failed, which makes six events."""
    await api.create()
    work = await api.claim()
    await work.done("extract")
    await work.done("load", 3, code=1, error="no space")
    return work


async def test_past_events_are_replayed_and_the_end_is_told(api: Api) -> None:
    work = await two_tasks(api)
    await work.finish("failed", error="load failed")
    events = await api.events(work.run)
    assert [event.name for event in events] == [*NAMES, "end"]
    assert [event.id for event in events] == ["1", "2", "3", "4", "5", "6", "6-end"]
    assert [event.data["task_id"] for event in events[:6]] == ["extract"] * 3 + ["load"] * 3
    assert events[6].data == {
        "execution_id": work.run,
        "status": "failed",
        "error_info": {"message": "load failed"},
        "stats": {
            "execution_id": work.run,
            "total_messages": 2,
            "completed_messages": 1,
            "failed_messages": 1,
            "in_progress_messages": 0,
            "success_rate": 0.5,
        },
    }


async def test_each_event_tells_its_tasks_transition(api: Api) -> None:
    work = await two_tasks(api)
    initiated, processing, failed = (await api.events(work.run, timeout=1))[3:6]
    keys = ["execution_id", "task_id", "map_index", "status", "started_at", "completed_at", "duration_ms", "error"]
    assert [list(event.data) for event in (initiated, processing, failed)] == [keys] * 3
    assert (initiated.data["execution_id"], initiated.data["task_id"], initiated.data["map_index"]) == (
        work.run,
        "load",
        3,
    )
    assert (initiated.data["status"], initiated.data["started_at"]) == ("queued", None)
    assert (processing.data["status"], processing.data["completed_at"]) == ("running", None)
    assert (failed.data["status"], failed.data["error"]) == ("failed", "no space")
    took = moment(failed.data["completed_at"]) - moment(failed.data["started_at"])
    assert failed.data["started_at"] == processing.data["started_at"]
    assert failed.data["duration_ms"] == int(took.total_seconds() * 1000)


async def test_cancelled_and_interrupted_tasks_are_events_of_the_name_failed(api: Api) -> None:
    await api.create()
    work = await api.claim()
    await api.json("POST", f"/v1/tasks/{await work.task('cancelled')}/cancel")
    lost = await work.task("lost", lease=0.1)
    await api.json("GET", f"/v1/tasks/{lost}", wait=20)
    await work.finish("failed")
    ends = [(event.name, event.data["status"]) for event in await api.events(work.run) if event.name == "failed"]
    assert ends == [("failed", "cancelled"), ("failed", "interrupted")]


async def test_the_answers_headers(api: Api) -> None:
    work = await two_tasks(api)
    async with api.following(work.run, timeout=1) as stream:
        headers = stream.response.headers
        assert headers["Content-Type"] == "text/event-stream"
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Accel-Buffering"] == "no"
        assert headers["Incremental"] == "?1"
        assert await stream.next() is not None
        assert stream.retry is not None
        assert 1000 <= stream.retry <= 3000


async def test_head_tells_the_headers(api: Api) -> None:
    answer = await api.ask("HEAD", f"/{await api.create()}/events")
    assert (answer.status, answer.headers["Content-Type"], answer.body) == (200, "text/event-stream", b"")
    await api.waits(0)


async def test_events_come_as_they_happen(api: Api) -> None:
    execution_id = await api.create()
    async with api.following(execution_id) as stream:
        await api.waits(1)
        work = await api.claim()
        task = await work.task("load")
        assert await stream.next() == Event("initiated", "1", {**_told(work, "queued")})
        await work.start(task)
        event = await stream.next()
        assert event is not None
        assert (event.name, event.id) == ("processing", "2")
        await work.end(task)
        event = await stream.next()
        assert event is not None
        assert (event.name, event.id) == ("completed", "3")
        await work.finish()
        event = await stream.next()
        assert event is not None
        assert (event.name, event.id, event.data["status"]) == ("end", "3-end", "completed")
        assert await stream.next() is None


def _told(work: Work, status: str) -> dict[str, object]:
    return {
        "execution_id": work.run,
        "task_id": "load",
        "map_index": -1,
        "status": status,
        "started_at": None,
        "completed_at": None,
        "duration_ms": None,
        "error": "",
    }


async def test_all_followers_get_the_same(api: Api) -> None:
    execution_id = await api.create()
    async with api.following(execution_id) as one, api.following(execution_id) as two:
        await api.waits(2)
        work = await api.claim()
        for index in range(20):
            await work.done("load", index)
        await work.finish()
        events = [event async for event in one]
        assert [event async for event in two] == events
    assert [event.id for event in events] == [*map(str, range(1, 61)), "60-end"]


async def test_an_execution_that_ends_without_a_task(api: Api) -> None:
    (event,) = await api.events(await api.ended())
    assert (event.name, event.id, event.data["status"]) == ("end", "0-end", "completed")
    assert event.data["stats"]["total_messages"] == 0


async def test_a_text_with_newlines_stays_one_event(api: Api) -> None:
    await api.create()
    work = await api.claim()
    error = "first\nsecond\r\n\ndata: third\u2028,\n{"
    await work.done("load", code=1, error=error)
    await work.finish()
    events = await api.events(work.run)
    assert [event.name for event in events] == ["initiated", "processing", "failed", "end"]
    assert events[2].data["error"] == error


# --- coming back ---------------------------------------------------------------


@pytest.mark.parametrize("seen", range(7))
async def test_a_reconnect_goes_on_after_the_last_event_seen(api: Api, seen: int) -> None:
    work = await two_tasks(api)
    await work.finish()
    events = await api.events(work.run)
    assert await api.events(work.run, str(seen)) == events[seen:]


async def test_a_reconnect_while_it_runs(api: Api) -> None:
    work = await two_tasks(api)
    async with api.following(work.run, "4") as stream:
        assert [(await stream.next()).id for _ in range(2)] == ["5", "6"]  # type: ignore[union-attr]
        await work.done("store")
        assert [(await stream.next()).id for _ in range(3)] == ["7", "8", "9"]  # type: ignore[union-attr]


async def test_a_reconnect_past_the_end_is_told_to_stay_away(api: Api) -> None:
    work = await two_tasks(api)
    await work.finish()
    answer = await api.ask("GET", f"/{work.run}/events", headers={"Last-Event-ID": "6-end"})
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["Cache-Control"] == "no-store"


async def test_an_end_that_cannot_have_been_seen_is_told(api: Api) -> None:
    work = await two_tasks(api)
    assert [event.name for event in await api.events(work.run, "6-end", timeout=1)] == ["timeout"]
    await work.finish()
    assert [event.id for event in await api.events(work.run, "5-end")] == ["6", "6-end"]


@pytest.mark.parametrize("seen", ["", " "])
async def test_an_empty_last_event_id_is_none(api: Api, seen: str) -> None:
    assert [event.id for event in await api.events(await api.ended(), seen)] == ["0-end"]


@pytest.mark.parametrize("seen", ["x", "-1", "1.5", "7", "7-end", "1-End", "99999999999", "1,2", "٣"])
async def test_a_last_event_id_that_is_none_of_ours(api: Api, seen: str) -> None:
    work = await two_tasks(api)
    answer = await api.ask("GET", f"/{work.run}/events", headers={"Last-Event-ID": seen})
    (fault,) = faults(answer)
    assert (fault["type"], fault["loc"], fault["input"]) == ("value_error", ["header", "last-event-id"], seen)


# --- how a stream ends ---------------------------------------------------------


async def test_when_the_time_is_up_the_stream_says_so_and_ends(api: Api) -> None:
    work = await two_tasks(api)
    events = await api.events(work.run, timeout=1)
    assert [event.name for event in events] == [*NAMES, "timeout"]
    last = events[-1]
    assert last.id is None  # so that a reconnect goes on after the sixth event
    assert (last.data["execution_id"], last.data["status"], last.data["error_info"]) == (work.run, "running", None)
    assert last.data["stats"]["total_messages"] == 2


async def test_a_quiet_stream_sends_comments(serve: Serve) -> None:
    api = await serve(Settings(timing=Timing(heartbeat=0.05)))
    async with api.following(await api.create(), timeout=3600) as stream:
        reading = asyncio.ensure_future(stream.next())
        await eventually(lambda: stream.comments >= 5, "comments")
        reading.cancel()


async def test_a_shutdown_ends_the_stream_without_an_event(api: Api) -> None:
    work = await two_tasks(api)
    async with api.following(work.run, timeout=3600) as stream:
        for _ in range(6):
            await stream.next()
        api.services.waits.drain()
        assert await stream.next() is None
    # A client that comes back meanwhile gets what there is, and will come back again.
    assert [event.name for event in await api.events(work.run)] == NAMES


async def test_a_shutdown_does_not_hide_the_end(api: Api) -> None:
    work = await two_tasks(api)
    await work.finish()
    api.services.waits.drain()
    assert [event.name for event in await api.events(work.run)] == [*NAMES, "end"]


async def test_a_key_that_is_revoked_cuts_the_stream(admin: Api, api: Api) -> None:
    work = await two_tasks(api)
    async with api.following(work.run) as stream:
        await stream.next()
        await admin.services.keys.revoke(api.key_id)
        with pytest.raises(ClientPayloadError):
            [event async for event in stream]
    await admin.waits(0)


async def test_the_deletion_of_the_execution_cuts_the_stream(api: Api) -> None:
    work = await two_tasks(api)
    async with api.following(work.run) as stream:
        await stream.next()
        await api.ask("DELETE", f"/v1/runs/{work.run}")
        with pytest.raises(ClientPayloadError):
            [event async for event in stream]
    answer = await api.ask("GET", f"/{work.run}/events", headers={"Last-Event-ID": "1"})
    refused(answer, 404, "execution_not_found")


async def test_a_client_that_leaves_frees_its_place(api: Api) -> None:
    async with api.following(await api.create()) as stream:
        await api.waits(1)
        stream.response.close()
        await api.waits(0)


async def test_more_streams_than_the_limit(serve: Serve) -> None:
    api = await serve(Settings(limits=Limits(waiters=1)))
    execution_id = await api.create()
    async with api.following(execution_id):
        await api.waits(1)
        answer = await api.ask("GET", f"/{execution_id}/events")
        refused(answer, 429, "too_many_waiters")
        assert 1 <= int(answer.headers["Retry-After"]) <= 5


@pytest.mark.parametrize("name", [UNKNOWN, "nightly"])
async def test_a_stream_needs_the_id_of_an_execution(api: Api, name: str) -> None:
    await api.create(tag="nightly")
    refused(await api.ask("GET", f"/{name}/events"), 404, "execution_not_found", name)
