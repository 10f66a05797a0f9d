"""TaskClient and answers that are none, come late, or say "later"."""

from __future__ import annotations

import asyncio
import time
from math import inf

import pytest
from aiohttp import web

from taskserver.client import ApiError, Backoff, TaskClient, Unreachable, insist, is_transient
from tests.scripted import CUT, HALF, answer, refusal, scripted

KEY = "x" * 40
TASK = {
    "id": "t", "name": "", "state": "success", "finished": True, "code": 0, "error": "", "last": 3, "labels": {},
    "created_at": "2026-11-20T19:41:59.830168Z", "started_at": None, "finished_at": None,
    "lease": None, "cancel_requested": False, "result": None, "output": [],
}  # fmt: skip


def page(first: int, lines: list[str], finished: bool = False) -> web.Response:
    """A page of output."""
    return answer({"first": first, "last": first + len(lines), "finished": finished, "output": lines})


async def test_follow_resumes_at_its_cursor_whatever_comes_between() -> None:
    troubles = [CUT, refusal(502), refusal(503, retry_after=0), refusal(504), refusal(429, retry_after=0)]
    async with scripted(
        page(0, ["a", "b"]), *troubles, page(2, ["c"]), page(3, []), CUT, page(3, ["d"], finished=True)
    ) as script:
        async with TaskClient(script.url, KEY) as client:
            pages = [page async for page in client.follow("t")]

    assert [line for page in pages for line in page.lines] == ["a", "b", "c", "d"]
    cursors = [request.split("first=")[1].split("&")[0] for request in script.requests]
    assert list(dict.fromkeys(cursors)) == ["0", "2", "3"]
    assert all("wait=55" in request for request in script.requests)


async def test_wait_lives_through_trouble_too_and_asks_for_no_output() -> None:
    running = {**TASK, "state": "running", "finished": False, "last": 5}
    async with scripted(
        CUT, page(3, []), refusal(503), answer(running), CUT, answer({**running, "output": ["x"]}), answer(TASK)
    ) as script:
        async with TaskClient(script.url, KEY) as client:
            task = await client.wait("t")

    assert (task.finished, task.output) == (True, ())
    asked = [request for request in script.requests if "output" not in request]
    assert asked[0] == "GET /v1/tasks/t?first=3&wait=0"
    assert asked[-1] == "GET /v1/tasks/t?first=5&wait=20"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 500, 507])
async def test_what_waiting_does_not_heal_ends_a_follow(status: int) -> None:
    async with (
        scripted(page(0, ["a"]), refusal(status, 99, "because")) as script,
        TaskClient(script.url, KEY) as client,
    ):
        following = client.follow("t")
        assert (await anext(following)).lines == ["a"]
        with pytest.raises(ApiError, match="because") as caught:
            await anext(following)
    assert (caught.value.status, caught.value.code, len(script.requests)) == (status, 99, 2)


async def test_patience_has_an_end() -> None:
    async with scripted(refusal(503, error="starting")) as script, TaskClient(script.url, KEY) as client:
        with pytest.raises(ApiError, match="starting"):
            await anext(client.follow("t", patience=0.3))
        with pytest.raises(ApiError, match="starting"):
            await client.wait("t", timeout=0.2)
    assert len(script.requests) >= 4


async def test_patience_begins_with_the_first_failure() -> None:
    asked = 0

    async def poll() -> str:
        nonlocal asked
        asked += 1
        if asked == 1:
            await asyncio.sleep(0.3)
            raise Unreachable("the server was restarted")
        return "answer"

    assert await insist(poll, 0.2) == "answer"
    for patience, deadline in ((0, inf), (None, time.monotonic() + 0.2)):
        asked = 0
        with pytest.raises(Unreachable):
            await insist(poll, patience, deadline=deadline)


async def test_an_answer_that_breaks_off_is_none() -> None:
    async with scripted(CUT, CUT, HALF) as script, TaskClient(script.url, KEY) as client:
        with pytest.raises(Unreachable):
            await client.create()
        for _ in range(2):
            with pytest.raises(Unreachable):
                await client.list_tasks()


@pytest.mark.parametrize(
    ("given", "status", "message"),
    [
        (web.Response(status=502, text="<html>Bad Gateway</html>"), 502, "HTTP 502 Bad Gateway"),
        (web.Response(status=404, text="nothing here"), 404, "HTTP 404 Not Found"),
        (answer(["not", "ours"], 400), 400, "HTTP 400 Bad Request"),
        (web.Response(status=302, headers={"Location": "/elsewhere"}), 302, "HTTP 302 Found"),
        (web.Response(text="<html>Welcome!</html>"), 200, "does not answer like a taskserver"),
        (answer({"hello": "world"}), 200, "does not answer like a taskserver"),
        (answer(None), 200, "does not answer like a taskserver"),
    ],
)
async def test_an_answer_of_somebody_else_is_an_error_of_its_own(
    given: web.Response, status: int, message: str
) -> None:
    async with scripted(given) as script, TaskClient(script.url, KEY) as client:
        with pytest.raises(ApiError, match=message) as caught:
            await client.get("t")
    assert (caught.value.status, caught.value.code, len(script.requests)) == (status, 0, 1)


async def test_a_url_may_end_in_a_path() -> None:
    async with scripted(answer(TASK)) as script, TaskClient(script.url + "/tasks/", KEY) as client:
        await client.get("t")
        assert client.task_url("t") == f"{script.url}/tasks/v1/tasks/t"
    assert script.requests == ["GET /tasks/v1/tasks/t?first=0&wait=0"]


def test_which_errors_time_heals() -> None:
    assert is_transient(Unreachable("gone"))
    assert [status for status in range(400, 600) if is_transient(ApiError(status, 0, ""))] == [429, 502, 503, 504]
    assert not is_transient(ValueError())


def test_pauses_double_up_to_their_cap_with_jitter_below() -> None:
    backoff = Backoff(first=1.0, cap=5.0)
    for expected in (1.0, 2.0, 4.0, 5.0, 5.0):
        assert expected / 2 <= backoff.next() <= expected


def test_a_servers_wish_for_a_pause_is_obeyed_up_to_the_cap() -> None:
    backoff = Backoff(first=0.1, cap=5.0)
    assert backoff.next(2.0) == 2.0
    assert backoff.next(1000.0) == 5.0
