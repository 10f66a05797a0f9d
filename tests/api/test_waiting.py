"""PROTOCOLS.md, A1 and A5: what ends a wait and what does not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskserver.config import Limits, Settings, Timing
from taskserver.model import Outcome, Scope, now_us
from tests.api.conftest import Serve
from tests.api.conversation import Api, refused
from tests.eventually import eventually

# Both long polls, each with its longest wait: what ends early was ended by something.
TASK, OUTPUT = "/tasks/{}", "/tasks/{}/output"
LONGEST = {TASK: 20, OUTPUT: 55}
BOTH = pytest.mark.parametrize("path", [TASK, OUTPUT])


async def test_new_output_does_not_end_the_wait_for_a_tasks_end(api: Api) -> None:
    task_id = await api.create("a")
    async with api.waiting(f"/tasks/{task_id}", wait=20) as waiting:
        for text in "bc":
            await api.append(task_id, text)
            assert (await api.output(task_id, first=0, wait=55))["output"][-1] == text
        assert not waiting.done()
        await api.finish(task_id, output=["d"])
    task = (await waiting).json
    # Had it been answered earlier, it would show less.
    assert (task["finished"], task["output"], task["last"]) == (True, ["a", "b", "c", "d"], 4)


async def test_new_output_ends_the_wait_for_output(api: Api) -> None:
    task_id = await api.create("a")
    async with api.waiting(f"/tasks/{task_id}/output", first=1, wait=55) as waiting:
        await api.append(task_id, "b", "c")
    assert (await waiting).json == {"first": 1, "last": 3, "finished": False, "output": ["b", "c"]}


async def test_an_append_of_nothing_ends_no_wait(api: Api) -> None:
    task_id = await api.create()
    async with api.waiting(f"/tasks/{task_id}/output", wait=55) as waiting:
        await api.append(task_id)
        await api.json("POST", f"/tasks/{task_id}/heartbeat")
        await api.task(task_id)
        assert not waiting.done()
        await api.append(task_id, "a")
    assert (await waiting).json["output"] == ["a"]


async def test_another_tasks_output_and_end_do_not_end_a_wait(api: Api) -> None:
    task_id = await api.create()
    async with (
        api.waiting(f"/tasks/{task_id}/output", wait=55) as output,
        api.waiting(f"/tasks/{task_id}", wait=20) as end,
    ):
        await api.done("x")
        assert not output.done()
        assert not end.done()
        await api.finish(task_id)
    assert (await end).json["finished"]


@BOTH
@pytest.mark.parametrize("word", [{}, {"code": 3, "error": "boom"}, {"output": ["last words"]}])
async def test_the_end_ends_a_wait(api: Api, path: str, word: dict[str, Any]) -> None:
    task_id = await api.create("a")
    async with api.waiting(path.format(task_id), first=1, wait=LONGEST[path]) as waiting:
        await api.finish(task_id, **word)
    answer = (await waiting).json
    assert (answer["finished"], answer["output"]) == (True, word.get("output", []))


@BOTH
async def test_cancelling_a_queued_task_ends_a_wait(api: Api, path: str) -> None:
    task_id = await api.create()
    async with api.waiting(path.format(task_id), wait=LONGEST[path]) as waiting:
        await api.cancel(task_id)
    assert (await waiting).json["finished"]


async def test_a_lost_producer_ends_all_waits(serve: Serve) -> None:
    api = await serve(Settings(timing=Timing(deaf=1)))  # a server that stood still loses nobody
    task_id = await api.create(lease=1.5)
    async with (
        api.waiting(TASK.format(task_id), wait=20) as end,
        api.waiting(OUTPUT.format(task_id), wait=55) as output,
    ):
        pass
    assert (await end).json["state"] == "interrupted"
    assert (await output).json["finished"]


@BOTH
async def test_the_deletion_of_a_task_ends_a_wait(api: Api, path: str) -> None:
    task_id = await api.create()
    async with api.waiting(path.format(task_id), wait=LONGEST[path]) as waiting:
        store = api.services.store
        # In one moment, so that the wait finds the task gone, or just ended.
        await asyncio.gather(store.finish(task_id, Outcome(), now_us()), store.delete_task(task_id))
    answer = await waiting
    if answer.status == 200:
        assert answer.json["finished"]
    else:
        refused(answer, 404, 4)


@BOTH
async def test_the_time_ends_a_wait_with_the_current_state(api: Api, path: str) -> None:
    task_id = await api.create("a")
    began = asyncio.get_running_loop().time()
    answer = await api.json("GET", path.format(task_id), first=1, wait=1)
    assert asyncio.get_running_loop().time() - began > 0.9
    assert (answer["finished"], answer["output"], answer["last"]) == (False, [], 1)


@BOTH
async def test_what_is_there_already_is_not_waited_for(api: Api, path: str) -> None:
    task_id = await api.done("a")
    assert (await api.json("GET", path.format(task_id), first=1, wait=LONGEST[path]))["finished"]
    running = await api.create("a")
    assert (await api.output(running, wait=55))["output"] == ["a"]


@BOTH
async def test_a_drain_answers_all_waits_with_the_current_state(api: Api, path: str) -> None:
    task_id = await api.create("a")
    asking = [api.begin("GET", path.format(task_id), first=1, wait=LONGEST[path]) for _ in range(50)]
    await eventually(lambda: api.services.waits.count == 50)
    api.services.waits.drain()
    for answer in await asyncio.gather(*asking):
        assert answer.status == 200
        assert answer.headers["Connection"] == "close"
        assert (answer.json["finished"], answer.json["output"], answer.json["last"]) == (False, [], 1)
    # Nobody is made to wait by a server that goes.
    assert not (await api.json("GET", path.format(task_id), first=1, wait=LONGEST[path]))["finished"]


@BOTH
async def test_a_revoked_key_ends_its_own_waits_only(admin: Api, path: str) -> None:
    ann = await admin.with_key("ann")
    again = await admin.with_key("again", owner="ann")
    task_id = await ann.create()
    async with again.waiting(path.format(task_id), wait=LONGEST[path]) as stays:
        async with ann.waiting(path.format(task_id), wait=LONGEST[path]) as waiting:
            await admin.json("DELETE", "/keys/ann")
        refused(await waiting, 401, 30)
        assert not stays.done()
        await again.finish(task_id)
    assert (await stays).json["finished"]


async def test_an_expired_key_ends_its_waits(admin: Api) -> None:
    task_id = await admin.create()
    ann = await admin.with_key("ann", Scope.ADMIN, seconds=1.5)
    async with (
        ann.waiting(TASK.format(task_id), wait=20) as end,
        ann.waiting(OUTPUT.format(task_id), wait=55) as output,
    ):
        pass
    refused(await end, 401, 30)
    refused(await output, 401, 30)
    refused(await ann.ask("GET", f"/tasks/{task_id}"), 401, 30)


@BOTH
async def test_a_wait_that_loses_its_wakeup_looks_again_by_itself(
    serve: Serve, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await serve(Settings(timing=Timing(reread=0.05)))
    monkeypatch.setattr(api.services.wakeup, "publish", lambda topics: None)  # from here on nobody is woken
    task_id = await api.create()
    async with api.waiting(path.format(task_id), wait=LONGEST[path]) as waiting:
        await api.finish(task_id, output=["a"])
    answer = (await waiting).json
    assert (answer["finished"], answer["output"]) == (True, ["a"])


@BOTH
async def test_a_client_that_leaves_ends_its_wait(api: Api, path: str) -> None:
    task_id = await api.create()
    for _ in range(5):
        asking = api.begin("GET", path.format(task_id), wait=LONGEST[path])
        await eventually(lambda: api.services.waits.count == 1)
        asking.cancel()
        await eventually(lambda: api.services.waits.count == 0)


@BOTH
async def test_too_many_waits_are_refused_and_others_go_on(serve: Serve, path: str) -> None:
    api = await serve(Settings(limits=Limits(waiters=2)))
    task_id = await api.create("a")
    address, wait = path.format(task_id), LONGEST[path]
    async with api.waiting(address, first=1, wait=wait) as one, api.waiting(address, first=1, wait=wait) as other:
        answer = await api.ask("GET", address, first=1, wait=wait)
        refused(answer, 429, 1020, "2")
        assert int(answer.headers["Retry-After"]) > 0
        assert (await api.ask("GET", address)).status == 200
        await api.finish(task_id)
    assert (await one).json["finished"]
    assert (await other).json["finished"]
    assert api.services.waits.count == 0


@BOTH
async def test_head_waits_as_get_does(api: Api, path: str) -> None:
    task_id = await api.create()
    asking = api.begin("HEAD", path.format(task_id), wait=LONGEST[path])
    await eventually(lambda: api.services.waits.count == 1)
    await api.finish(task_id)
    assert (await asking).status == 200


async def test_many_waiters_of_one_task_get_the_same(api: Api) -> None:
    task_id = await api.create()
    ends = [api.begin("GET", f"/tasks/{task_id}", wait=20) for _ in range(50)]
    outputs = [api.begin("GET", f"/tasks/{task_id}/output", wait=55) for _ in range(50)]
    await eventually(lambda: api.services.waits.count == 100)
    await api.append(task_id, "a", "b")
    assert {answer.body for answer in await asyncio.gather(*outputs)} == {
        b'{"first":0,"last":2,"finished":false,"output":["a",\n"b"]}'
    }
    await api.finish(task_id)
    assert len({answer.body for answer in await asyncio.gather(*ends)}) == 1


class TestPrefer:
    """RFC 7240: ``Prefer: wait=N`` in the place of the parameter."""

    @pytest.mark.parametrize("header", ["wait=55", "WAIT=55", "respond-async, wait=55", 'wait="55"', "wait = 55; x=y"])
    async def test_it_waits(self, api: Api, header: str) -> None:
        task_id = await api.create()
        async with api.waiting(f"/tasks/{task_id}/output", headers={"Prefer": header}) as waiting:
            await api.append(task_id, "a")
        assert (await waiting).json["output"] == ["a"]
        assert (await waiting).headers["Preference-Applied"] == "wait=55"

    async def test_a_longer_wait_than_allowed_is_cut_and_said(self, api: Api) -> None:
        task_id = await api.done()
        answer = await api.ask("GET", f"/tasks/{task_id}/output", headers={"Prefer": "wait=100000"})
        assert (answer.status, answer.headers["Preference-Applied"]) == (200, "wait=55")

    @pytest.mark.parametrize("header", ["wait", "wait=", "wait=x", "wait=-1", "await=5", "return=minimal", ""])
    async def test_what_is_no_wait_is_ignored(self, api: Api, header: str) -> None:
        task_id = await api.create()
        answer = await api.ask("GET", f"/tasks/{task_id}/output", headers={"Prefer": header})
        assert (answer.status, answer.json["output"]) == (200, [])
        assert "Preference-Applied" not in answer.headers

    async def test_the_parameter_beats_it(self, api: Api) -> None:
        task_id = await api.create()
        answer = await api.ask("GET", f"/tasks/{task_id}/output", wait=0, headers={"Prefer": "wait=55"})
        assert (answer.status, answer.json["output"]) == (200, [])
        assert "Preference-Applied" not in answer.headers
