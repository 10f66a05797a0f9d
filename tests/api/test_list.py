"""PROTOCOLS.md, A4: lists of tasks."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.api.conversation import CONNECT, JSON, Api, refused


async def names(api: Api, **query: Any) -> list[str]:
    return [task["name"] for task in (await api.json("GET", "/tasks", **query))["tasks"]]


@pytest.fixture
async def filled(api: Api) -> Api:
    """Ann, who has four tasks."""
    await api.create(name="a", labels={"branch": "main", "os": "linux"})
    await api.create("line", name="b", labels={"branch": "main"})
    await api.finish(await api.create(name="c", labels={"branch": "a=b, c&d"}))
    await api.finish(await api.create(name="d"), code=1)
    return api


async def test_each_is_a_task_without_output_and_result(api: Api) -> None:
    task_id = await api.done("a", "b", code=2, error="boom", result={"type": "x"})
    answer = await api.ask("GET", "/tasks")
    assert (answer.headers["Content-Type"], answer.headers["Cache-Control"]) == (JSON, "no-store")
    whole = await api.task(task_id)
    del whole["output"], whole["result"]
    assert answer.json == {"tasks": [whole], "cursor": None}
    assert (await api.under(CONNECT).ask("GET", "/tasks")).json == answer.json


async def test_of_nothing_is_empty(api: Api) -> None:
    assert await api.json("GET", "/tasks") == {"tasks": [], "cursor": None}


async def test_the_newest_comes_first(filled: Api) -> None:
    assert await names(filled) == ["d", "c", "b", "a"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("state=queued", "a"),
        ("state=running", "b"),
        ("state=success", "c"),
        ("state=failed", "d"),
        ("state=cancelled", ""),
        ("state=interrupted", ""),
        ("name=b", "b"),
        ("name=B", ""),
        ("name=", ""),
        ("label=branch=main", "ba"),
        ("label=branch%3Dmain", "ba"),
        ("label=branch=main&label=os=linux", "a"),
        ("label=branch=main&label=branch=dev", ""),
        pytest.param(
            "label=branch=dev&label=branch=main",
            "",
        ),
        ("label=branch=a%3Db%2C%20c%26d", "c"),
        ("label=branch=", ""),
        ("name=b&state=queued", ""),
        ("text=A%3DB&name=c", "c"),
        ("text=BRANCH%3Dmain", "ba"),
        ("text=", "dcba"),
        ("text=nothing", ""),
        ("unknown=1", "dcba"),
    ],
)
async def test_filters_match_exactly_and_all_of_them(filled: Api, query: str, expected: str) -> None:
    found = (await filled.json("GET", f"/tasks?{query}"))["tasks"]
    assert "".join(task["name"] for task in found) == expected


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("state=done", ["state: ", "queued", "interrupted"]),
        ("state=", ["state: "]),
        ("state=RUNNING", ["state: "]),
        ("label=branch", ["label", "key=value"]),
        ("label==main", ["label", "key=value"]),
        ("label=", ["label", "key=value"]),
        ("text=" + "x" * 201, ["text: ", "200"]),
        ("text=%00", ["text: ", "NUL"]),
        ("limit=0", ["limit: ", " 1 ", "500"]),
        ("limit=501", ["limit: ", " 1 ", "500"]),
        ("cursor=x", ["cursor: "]),
        ("cursor=", ["cursor: "]),
        ("cursor=%C3%BC", ["cursor: "]),
        ("cursor=%00", ["cursor: "]),
        ("cursor=AAAA", ["cursor: "]),
        ("cursor=" + base64.urlsafe_b64encode(b"\xff" * 6).decode(), ["cursor: "]),
        ("cursor=" + "A" * 1000, ["cursor: "]),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused_by_name(filled: Api, query: str, words: list[str]) -> None:
    refused(await filled.ask("GET", f"/tasks?{query}"), 400, 25, *words)


async def test_pages_are_not_shifted_by_new_tasks(filled: Api) -> None:
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 3}
    while True:
        page = await filled.json("GET", "/tasks", **query)
        seen += [task["name"] for task in page["tasks"]]
        if page["cursor"] is None:
            break
        query["cursor"] = page["cursor"]
        await filled.create(name="new")
    assert seen == ["d", "c", "b", "a"]


async def test_the_last_page_may_be_full(filled: Api) -> None:
    page = await filled.json("GET", "/tasks", limit=2)
    assert page["cursor"] is not None
    page = await filled.json("GET", "/tasks", limit=2, cursor=page["cursor"])
    assert ([task["name"] for task in page["tasks"]], page["cursor"]) == (["b", "a"], None)


async def test_the_limit_is_fifty_unless_told(api: Api) -> None:
    for number in range(51):
        await api.create(name=str(number))
    page = await api.json("GET", "/tasks")
    assert len(page["tasks"]) == 50
    assert await names(api, cursor=page["cursor"]) == ["0"]
    assert len(await names(api, limit=500)) == 51


async def test_others_tasks_are_not_in_it_and_do_not_shift_its_pages(admin: Api, filled: Api) -> None:
    bob = await admin.with_key("bob")
    await bob.create(name="bob's", labels={"branch": "main"})
    assert await names(bob) == ["bob's"]
    assert await names(filled) == ["d", "c", "b", "a"]
    assert await names(filled, label="branch=main") == ["b", "a"]
    page = await filled.json("GET", "/tasks", limit=4)
    assert page["cursor"] is None
    assert await names(bob, cursor=(await admin.json("GET", "/tasks", limit=1))["cursor"]) == []
    assert await names(admin) == ["bob's", "d", "c", "b", "a"]


async def test_it_shows_a_tasks_present_state(api: Api) -> None:
    task_id = await api.create()
    for state, step in [("queued", None), ("running", api.append), ("success", api.finish)]:
        if step is not None:
            await step(task_id)
        (task,) = (await api.json("GET", "/tasks"))["tasks"]
        assert task["state"] == state
    await api.delete(task_id)
    assert await names(api) == []
