"""PROTOCOLS.md, A1: state and output of one task."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.api.conversation import CONNECT, JSON, V1, Api, refused

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
NO_NUMBERS = ["x", "", "1.0", "1e3", "0x10", "1_0", "%D9%A3", "99999999999999999999", "NaN", "null", "%00", "1%0A"]
FIELDS: dict[str, Any] = {
    "id": str,
    "name": str,
    "state": str,
    "finished": bool,
    "code": int,
    "error": str,
    "last": int,
    "labels": dict,
    "created_at": str,
    "started_at": (str, type(None)),
    "finished_at": (str, type(None)),
    "lease": (float, type(None)),
    "cancel_requested": bool,
    "run": (dict, type(None)),
    "result": (dict, type(None)),
    "output": list,
}


def check_fields(task: dict[str, Any]) -> None:
    assert list(task) == list(FIELDS)
    for name, kind in FIELDS.items():
        assert isinstance(task[name], kind), (name, task[name])
    assert type(task["code"]) is type(task["last"]) is int
    for name in ("created_at", "started_at", "finished_at"):
        assert task[name] is None or TIME.fullmatch(task[name])


async def test_a_tasks_story_as_its_reader_sees_it(api: Api) -> None:
    task_id = await api.create(name="nightly", lease=30.5, labels={"branch": "main"})
    queued = await api.task(task_id)
    check_fields(queued)
    assert queued["id"] == task_id
    assert re.fullmatch("[A-Za-z0-9]{16}", task_id)
    assert (queued["name"], queued["labels"], queued["lease"]) == ("nightly", {"branch": "main"}, 30.5)
    assert (queued["state"], queued["finished"], queued["code"], queued["error"]) == ("queued", False, 0, "")
    assert (queued["last"], queued["output"], queued["result"]) == (0, [], None)
    assert (queued["started_at"], queued["finished_at"], queued["cancel_requested"]) == (None, None, False)

    await api.append(task_id, "one", "two")
    running = await api.task(task_id)
    check_fields(running)
    assert (running["state"], running["finished"], running["result"]) == ("running", False, None)
    assert (running["last"], running["output"]) == (2, ["one", "two"])
    assert running["created_at"] == queued["created_at"] <= running["started_at"]

    await api.finish(task_id, result={"type": "text", "data": {"answer": 42}}, output=["three"])
    ended = await api.task(task_id)
    check_fields(ended)
    assert (ended["state"], ended["finished"], ended["code"], ended["error"]) == ("success", True, 0, "")
    assert ended["result"] == {"type": "text", "data": {"answer": 42}}
    assert ended["output"] == ["one", "two", "three"]
    assert ended["started_at"] == running["started_at"] <= ended["finished_at"]


@pytest.mark.parametrize("path", ["/tasks/{}", "/experimental/tasks/{}"])
@pytest.mark.parametrize("prefix", [V1, CONNECT])
async def test_all_its_addresses_answer_the_same(api: Api, prefix: str, path: str) -> None:
    task_id = await api.done("one", "two", code=3, error="boom", result={"type": "x", "data": [1]})
    answer = await api.under(prefix).ask("GET", path.format(task_id), first=1)
    assert answer.status == 200
    assert answer.json == await api.task(task_id, first=1)
    assert answer.json["output"] == ["two"]
    assert answer.headers["Content-Type"] == JSON
    assert answer.headers["Cache-Control"] == "no-store"
    assert "X-Deprecated-Endpoint" not in answer.headers


async def test_first_chooses_the_lines_and_last_counts_them_all(api: Api) -> None:
    task_id = await api.create("a", "b", "c")
    for first, expected in [(0, ["a", "b", "c"]), (1, ["b", "c"]), (2, ["c"]), (3, [])]:
        task = await api.task(task_id, first=first)
        assert (task["output"], task["last"]) == (expected, 3)


async def test_following_by_last_gets_every_line_once(api: Api) -> None:
    task_id, first, seen = await api.create(), 0, []
    for number in range(5):
        await api.append(task_id, *(f"{number}.{part}" for part in range(number)))
        task = await api.task(task_id, first=first)
        seen += task["output"]
        first = task["last"]
    await api.finish(task_id, output=["end"])
    task = await api.task(task_id, first=first)
    assert task["finished"]
    assert [*seen, *task["output"]] == await api.lines(task_id)
    assert task["last"] == len(seen) + 1


@pytest.mark.parametrize("state", ["queued", "running", "finished"])
async def test_first_beyond_the_output_is_told_from_other_mistakes(api: Api, state: str) -> None:
    task_id = await api.create(*([] if state == "queued" else ["a", "b"]))
    if state == "finished":
        await api.finish(task_id)
    last = 0 if state == "queued" else 2
    for path in (f"/tasks/{task_id}", f"/experimental/tasks/{task_id}", f"/tasks/{task_id}/output"):
        for first in (last + 1, 2**32 - 1):
            # At once: a wait would only tell the client later.
            answer = await api.ask("GET", path, first=first, wait=20)
            assert refused(answer, 400, 13, "first", str(first), str(last)) == {"last": last}


@pytest.mark.parametrize(
    ("path", "name", "low", "high"),
    [
        ("/tasks/{}", "first", 0, 2**32 - 1),
        ("/tasks/{}", "wait", 0, 20),
        ("/tasks/{}/output", "first", 0, 2**32 - 1),
        ("/tasks/{}/output", "tail", 0, 2**32 - 1),
        ("/tasks/{}/output", "wait", 0, 55),
        ("/tasks/{}/output", "limit", 1, 10_000),
        ("/tasks", "limit", 1, 500),
    ],
)
async def test_a_number_out_of_bounds_is_refused_with_its_name_and_bounds(
    api: Api, path: str, name: str, low: int, high: int
) -> None:
    task_id = await api.create()
    for wrong in (*NO_NUMBERS, str(low - 1), str(high + 1)):
        answer = await api.ask("GET", f"{path.format(task_id)}?{name}={wrong}")
        refused(answer, 400, 25, f"{name}: ", f" {low} ", f" {high}")


async def test_the_bounds_themselves_are_taken(api: Api) -> None:
    task_id = await api.done()
    for query in ({"wait": 0}, {"wait": 20}, {"first": 0}, {"wait": 20, "first": 0}):
        assert (await api.task(task_id, **query))["finished"]


async def test_two_mistakes_are_told_at_once(api: Api) -> None:
    answer = await api.ask("GET", f"/tasks/{await api.create()}", first=-1, wait=21)
    refused(answer, 400, 25, "first: ", "wait: ")


async def test_unknown_query_parameters_are_ignored_and_of_repeated_ones_the_first_counts(api: Api) -> None:
    task_id = await api.create("a", "b", "c")
    assert (await api.task(task_id, foo=1, First=7))["output"] == ["a", "b", "c"]
    answer = await api.ask("GET", f"/tasks/{task_id}?first=2&first=x&first=1")
    assert answer.json["output"] == ["c"]


async def test_an_unknown_task_is_not_found(api: Api) -> None:
    for task_id in ("nosuchtask", "a%2Fb", "%00", "%FF", "%F0%9F%8E%88", "x" * 3000, "a%20b", "a'b"):
        for path in (f"/tasks/{task_id}", f"/tasks/{task_id}/output", f"/experimental/tasks/{task_id}"):
            refused(await api.ask("GET", path, wait=20), 404, 4)


async def test_an_id_may_come_percent_encoded(api: Api) -> None:
    await api.create("x", id="a.b-c_d~E")
    for written in ("a.b-c_d~E", "a%2Eb%2Dc%5Fd%7EE", "%61.b-c_d%7eE"):
        assert (await api.task(written))["output"] == ["x"]
        assert (await api.output(written))["output"] == ["x"]
        assert (await api.append(written, "x", first=0)) == {"first": 0, "last": 1, "cancel_requested": False}


async def test_a_get_without_a_body_may_name_a_content_type(api: Api) -> None:
    task_id = await api.create("x")
    for content_type in ("application/json", "text/plain", "nonsense", "application/x-www-form-urlencoded"):
        for path in (f"/tasks/{task_id}", f"/tasks/{task_id}/output", "/tasks"):
            answer = await api.ask("GET", path, headers={"Content-Type": content_type})
            assert answer.status == 200, (path, content_type)


async def test_a_gets_body_is_ignored(api: Api) -> None:
    task_id = await api.create("x")
    answer = await api.ask("GET", f"/tasks/{task_id}", data=b"{broken", headers={"Content-Type": "application/json"})
    assert answer.json["output"] == ["x"]


async def test_head_tells_what_get_would(api: Api) -> None:
    task_id = await api.done("x" * 1000)
    for path in (f"/tasks/{task_id}", f"/experimental/tasks/{task_id}", f"/tasks/{task_id}/output", "/tasks"):
        head, get = await api.ask("HEAD", path), await api.ask("GET", path)
        assert (head.status, head.body) == (200, b"")
        for name in ("Content-Type", "Cache-Control", "Content-Length"):
            assert head.headers[name] == get.headers[name]
    assert (await api.ask("HEAD", "/tasks/none")).status == 404
    assert (await api.ask("HEAD", f"/tasks/{task_id}", first=9)).status == 400


@pytest.mark.parametrize(
    ("word", "state", "code", "error"),
    [
        ({}, "success", 0, ""),
        ({"code": 1}, "failed", 1, "task failed with code 1"),
        ({"code": 2, "error": ""}, "failed", 2, "task failed with code 2"),
        ({"code": -15, "error": "terminated"}, "failed", -15, "terminated"),
        ({"code": 2**31 - 1, "error": "e" * 65_536}, "failed", 2**31 - 1, "e" * 65_536),
    ],
)
async def test_a_failure_is_never_without_an_error(
    api: Api, word: dict[str, Any], state: str, code: int, error: str
) -> None:
    task = await api.task(await api.done(**word))
    assert (task["state"], task["code"], task["error"], task["finished"]) == (state, code, error, True)


async def test_a_cancelled_and_an_interrupted_task_have_a_code_and_an_error(api: Api) -> None:
    cancelled = await api.create()
    await api.cancel(cancelled)
    task = await api.task(cancelled)
    assert (task["state"], task["code"], task["finished"]) == ("cancelled", 130, True)
    assert task["error"]

    lost = await api.create(lease=0.01)
    task = await api.task(lost, wait=20)
    assert (task["state"], task["code"], task["finished"]) == ("interrupted", 255, True)
    assert task["error"].startswith("producer lost: ")


@pytest.mark.parametrize(
    "data", [None, True, 0, -1.5, "text", "", [], {}, [1, [2, [3]]], {"a": {"b": None}}, 2**53, 2**63, "\u2028\0ü🎈"]
)
async def test_a_result_is_given_back_as_it_came(api: Api, data: Any) -> None:
    result = {"type": "any", "data": data}
    assert (await api.task(await api.done(result=result)))["result"] == result


async def test_a_result_may_leave_out_its_data(api: Api) -> None:
    assert (await api.task(await api.done(result={"type": "none"})))["result"] == {"type": "none", "data": None}
