"""PROTOCOLS.md, A4: what ended long ago is removed, as an admin asks for it."""

from __future__ import annotations

import aiohttp
import pytest

from tests.api.conversation import Api, refused
from tests.api.test_big_output import fill, slow


async def prune(admin: Api, older_than: int, **wish: object) -> dict[str, object]:
    answer: dict[str, object] = await admin.json("POST", "/prune", body={"older_than": older_than, **wish})
    return answer


async def test_only_what_ended_so_long_ago_is_removed(admin: Api, api: Api) -> None:
    done, live = await api.done("a"), await api.create("b")
    assert await prune(admin, 3600) == {"tasks": 0, "runs": 0, "more": False}
    assert await prune(admin, 0, dry_run=True) == {"tasks": 1, "runs": 0, "more": False}
    assert (await api.task(done))["finished"]
    assert await prune(admin, 0) == {"tasks": 1, "runs": 0, "more": False}
    refused(await api.ask("GET", f"/tasks/{done}"), 404, 4)
    assert await api.lines(live) == ["b"]


async def test_a_run_goes_with_its_tasks(admin: Api, api: Api) -> None:
    await api.json("PUT", "/dags/etl", body={})
    run = await api.json("POST", "/dags/etl/runs", status=201, body={})
    task = await api.json("POST", f"/runs/{run['id']}/tasks", status=201, body={"task_id": "load"})
    await api.finish(task["id"])
    assert await prune(admin, 0) == {"tasks": 0, "runs": 0, "more": False}
    await api.json("POST", f"/runs/{run['id']}/finish", body={})
    assert await prune(admin, 0) == {"tasks": 0, "runs": 1, "more": False}
    refused(await api.ask("GET", f"/runs/{run['id']}"), 404, 4)
    refused(await api.ask("GET", f"/tasks/{task['id']}"), 404, 4)


async def test_many_take_more_than_one_call(admin: Api, api: Api) -> None:
    for _ in range(520):
        await api.done()
    first = await prune(admin, 0)
    assert first["more"]
    second = await prune(admin, 0)
    assert not second["more"]
    assert (first["tasks"], second["tasks"]) == (500, 20)


async def test_it_is_for_admins(api: Api) -> None:
    refused(await api.ask("POST", "/prune", body={"older_than": 0}), 403, 22)


@pytest.mark.parametrize(
    ("body", "word"),
    [({}, "older_than"), ({"older_than": -1}, "older_than"), ({"older_than": "1d"}, "older_than"),
     ({"older_than": 1, "dryrun": True}, "dryrun")],
)  # fmt: skip
async def test_a_wrong_wish_is_refused(admin: Api, body: dict[str, object], word: str) -> None:
    refused(await admin.ask("POST", "/prune", body=body), 400, 87, word)


async def test_a_reader_in_the_middle_is_cut_off(admin: Api, api: Api) -> None:
    task_id = await fill(api)
    async with slow(api, f"/tasks/{task_id}/output", format="text") as response:
        assert await response.content.readexactly(100)
        assert (await prune(admin, 0))["tasks"] == 1
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()
    refused(await api.ask("GET", f"/tasks/{task_id}/output"), 404, 4)
