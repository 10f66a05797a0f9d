"""PROTOCOLS.md, C5: what an execution consisted of."""

from __future__ import annotations

import pytest

from tests.api.executions.conversation import UNKNOWN, Api, refused


async def test_the_tasks_in_the_order_of_their_start(api: Api) -> None:
    execution_id = await api.create()
    work = await api.claim()
    late, waiting, early = await work.task("late"), await work.task("waiting"), await work.task("early", 7)
    await work.start(early)
    await work.start(late)
    await work.end(early, code=2, error="broken")
    lineage = await api.json("GET", f"/{execution_id}/lineage")
    assert (lineage["execution_id"], lineage["total"]) == (execution_id, 3)
    entries = lineage["entries"]
    assert [entry["id"] for entry in entries] == [early, late, waiting]
    assert list(entries[0]) == [
        "id", "try_number", "execution_id", "task_id", "map_index", "status", "started_at", "completed_at",
        "duration_ms", "error",
    ]  # fmt: skip
    assert [(entry["task_id"], entry["map_index"], entry["status"]) for entry in entries] == [
        ("early", 7, "failed"),
        ("late", -1, "running"),
        ("waiting", -1, "queued"),
    ]
    assert (entries[0]["error"], entries[1]["completed_at"], entries[2]["started_at"]) == ("broken", None, None)


async def test_an_entry_is_what_its_last_event_told(api: Api) -> None:
    execution_id = await api.create()
    work = await api.claim()
    await work.done("load")
    (entry,) = (await api.json("GET", f"/{execution_id}/lineage"))["entries"]
    event = (await api.events(execution_id, timeout=1))[2]
    assert {name: entry[name] for name in event.data} == event.data


async def test_every_try_is_an_entry(api: Api) -> None:
    execution_id = await api.create()
    work = await api.claim()
    await work.done("load", code=1)
    await work.start(await work.task("load", try_number=2))
    entries = (await api.json("GET", f"/{execution_id}/lineage"))["entries"]
    assert [(entry["try_number"], entry["status"]) for entry in entries] == [(1, "failed"), (2, "running")]


async def test_the_output_of_an_entry_can_be_read(api: Api) -> None:
    execution_id = await api.create()
    work = await api.claim()
    await work.end(await work.task("load"), output=["one", "two"])
    (entry,) = (await api.json("GET", f"/{execution_id}/lineage"))["entries"]
    assert (await api.json("GET", f"/v1/tasks/{entry['id']}"))["output"] == ["one", "two"]


async def test_limit_bounds_the_entries_and_total_tells_how_many_there_are(api: Api) -> None:
    execution_id = await api.create()
    work = await api.claim()
    for index in range(120):
        await work.task("load", index)
    lineage = await api.json("GET", f"/{execution_id}/lineage")
    assert (len(lineage["entries"]), lineage["total"]) == (100, 120)
    lineage = await api.json("GET", f"/{execution_id}/lineage", limit=2)
    assert [entry["map_index"] for entry in lineage["entries"]] == [0, 1]
    assert len((await api.json("GET", f"/{execution_id}/lineage", limit=1000))["entries"]) == 120


async def test_an_execution_without_tasks(api: Api) -> None:
    execution_id = await api.create()
    assert await api.json("GET", f"/{execution_id}/lineage") == {
        "execution_id": execution_id,
        "entries": [],
        "total": 0,
    }


@pytest.mark.parametrize("name", [UNKNOWN, "nightly"])
async def test_a_lineage_needs_the_id_of_an_execution(admin: Api, api: Api, name: str) -> None:
    execution_id = await api.create(tag="nightly")
    refused(await api.ask("GET", f"/{name}/lineage"), 404, "execution_not_found", name)
    bob = await admin.with_key("bob")
    refused(await bob.ask("GET", f"/{execution_id}/lineage"), 404, "execution_not_found", execution_id)
