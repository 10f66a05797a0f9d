"""PROTOCOLS.md, A4: a task's life as its producer leads it."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from tests.api.conversation import CONNECT, JSON, Answer, Api, refused

MAX = 2**31 - 1
DEEP = 100_000


async def post(api: Api, path: str, body: Any = None, **more: Any) -> Answer:
    return await api.ask("POST", path, body=body, **more)


class TestCreate:
    async def test_the_answer_is_the_task_and_where_it_is(self, api: Api) -> None:
        answer = await post(api, "/tasks", {"name": "nightly", "labels": {"a": "b"}, "lease": 10})
        assert (answer.status, answer.headers["Content-Type"], answer.headers["Cache-Control"]) == (
            201,
            JSON,
            "no-store",
        )
        task = answer.json
        assert re.fullmatch("[A-Za-z0-9]{16}", task["id"])
        assert answer.headers["Location"] == f"/v1/tasks/{task['id']}"
        assert task == await api.task(task["id"])

    async def test_its_place_is_under_the_prefix_that_was_used(self, api: Api) -> None:
        answer = await post(api.under(CONNECT), "/tasks", {"id": "here"})
        assert answer.headers["Location"] == "/__api__/v1/tasks/here"
        assert (await api.under("").ask("GET", answer.headers["Location"])).status == 200

    async def test_nothing_need_be_said(self, api: Api) -> None:
        for data, headers in ((b"{}", {"Content-Type": "application/json"}), (b"", {}), (None, {}), (b" \n", {})):
            answer = await api.ask("POST", "/tasks", data=data, headers=headers)
            assert answer.status == 201
            assert (answer.json["name"], answer.json["labels"], answer.json["lease"]) == ("", {}, None)

    async def test_ids_do_not_repeat(self, api: Api) -> None:
        ids = await asyncio.gather(*(api.create() for _ in range(50)))
        assert len(set(ids)) == 50

    @pytest.mark.parametrize("task_id", ["a", "a" * 64, "Build.2026-11-20_~x", "0", "-", "...", "task", "finish"])
    async def test_an_id_may_be_chosen(self, api: Api, task_id: str) -> None:
        assert await api.create(id=task_id) == task_id
        assert (await api.task(task_id))["id"] == task_id

    async def test_a_taken_id_is_refused_whoever_has_it(self, admin: Api, api: Api) -> None:
        await api.create("a", id="mine")
        bob = await admin.with_key("bob")
        for other in (api, bob, admin):
            assert refused(await post(other, "/tasks", {"id": "mine"}), 409, 1001, "mine") == {"id": "mine"}
        assert (await api.task("mine"))["output"] == ["a"]

    @pytest.mark.parametrize("task_id", ["", " a", "ü", "\n", "%41", None, 5, ["a"], "/a"])
    async def test_an_id_that_does_not_fit_into_a_url_is_refused(self, api: Api, task_id: Any) -> None:
        answer = await post(api, "/tasks", {"id": task_id})
        if task_id is None:
            assert answer.status == 201
        else:
            refused(answer, 400, 87, "id: ")

    @pytest.mark.parametrize("task_id", ["a/b", "a b", "a\n", "a%2f", "a?b", "a#", "a" * 64 + "x", ".", ".."])
    async def test_an_id_that_only_begins_well_is_refused(self, api: Api, task_id: str) -> None:
        refused(await post(api, "/tasks", {"id": task_id}), 400, 87, "id: ")

    @pytest.mark.parametrize(
        ("wish", "words"),
        [
            ({"name": 5}, ["name: "]),
            ({"name": None}, ["name: "]),
            ({"name": "x" * 201}, ["name: ", "200"]),
            ({"name": "a\0b"}, ["name: ", "NUL"]),
            ({"labels": []}, ["labels: "]),
            ({"labels": {"a": 1}}, ["labels.a"]),
            ({"labels": {"a": "x" * 201}}, ["labels.a", "200"]),
            ({"labels": {"x" * 201: "a"}}, ["200"]),
            ({"labels": {"a": "\0"}}, ["labels.a", "NUL"]),
            ({"labels": {"\0": "a"}}, ["NUL"]),
            ({"labels": {str(number): "" for number in range(33)}}, ["labels: ", "32"]),
            ({"lease": 0}, ["lease: ", " 0 ", "86400"]),
            ({"lease": -1}, ["lease: ", " 0 ", "86400"]),
            ({"lease": 86401}, ["lease: ", "86400"]),
            ({"lease": 10**30}, ["lease: "]),
            ({"lease": "30"}, ["lease: ", "number"]),
            ({"lease": True}, ["lease: ", "number"]),
            ({"lease": "inf"}, ["lease: "]),
            ({"lease": []}, ["lease: "]),
            ({"nmae": "x"}, ["nmae: "]),
            ({"state": "running"}, ["state: "]),
            ({"name": 5, "lease": 0}, ["name: ", "lease: "]),
        ],
    )
    async def test_a_wish_that_cannot_be_met_is_refused_by_name(self, api: Api, wish: Any, words: list[str]) -> None:
        refused(await post(api, "/tasks", wish), 400, 87, *words)
        assert (await api.json("GET", "/tasks"))["tasks"] == []

    async def test_the_bounds_themselves_are_taken(self, api: Api) -> None:
        labels = {f"{number}" + "k" * 198: "v" * 200 for number in range(10, 42)}
        for wish in ({"name": "ü🎈" * 100}, {"labels": labels}, {"lease": 86400}, {"lease": 0.001}, {"name": ""}):
            await api.create(**wish)

    @pytest.mark.parametrize("body", [[], "text", 1, True, None, [{}]])
    async def test_a_body_that_is_no_object_is_refused(self, api: Api, body: Any) -> None:
        headers = {"Content-Type": "application/json"}
        data = b"null" if body is None else None
        for path in ("/tasks", f"/tasks/{await api.create()}/finish", f"/tasks/{await api.create()}/output"):
            refused(await post(api, path, body, data=data, headers=headers), 400, 87)


class TestJson:
    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(b"{", id="cut off"),
            pytest.param(b"{'name': 'x'}", id="single quotes"),
            pytest.param(b'{"name": "x",}', id="trailing comma"),
            pytest.param(b'{"name": "\xff"}', id="invalid UTF-8"),
            pytest.param(b'{"name": "\xed\xa0\x80"}', id="encoded surrogate"),
            pytest.param(b'{"name": "\\ud800"}', id="lone surrogate"),
            pytest.param(b'{"name": "\\udc00\\ud800"}', id="surrogates the wrong way round"),
            pytest.param(b'{"name": "a\nb"}', id="raw newline"),
            pytest.param(b'{"name": "a\x00b"}', id="raw NUL"),
            pytest.param(b'{"lease": NaN}', id="NaN"),
            pytest.param(b'{"lease": Infinity}', id="Infinity"),
            pytest.param(b'{"lease": 01}', id="leading zero"),
            pytest.param(b"{} {}", id="two values"),
            pytest.param(b"\xef\xbb\xbf{}", id="byte order mark"),
            pytest.param("{}".encode("utf-16"), id="UTF-16"),
            pytest.param(b"[" * DEEP + b"]" * DEEP, id="deep arrays"),
            pytest.param(b'{"a":' * DEEP + b"1" + b"}" * DEEP, id="deep objects"),
            pytest.param(b"\0", id="NUL"),
        ],
    )
    async def test_what_is_no_json_is_told_from_what_cannot_be_used(self, api: Api, data: bytes) -> None:
        for path in ("/tasks", f"/tasks/{await api.create()}/finish", f"/tasks/{await api.create()}/output"):
            answer = await post(api, path, data=data, headers={"Content-Type": "application/json"})
            refused(answer, 400, 121, "JSON")

    async def test_of_a_repeated_name_the_last_counts(self, api: Api) -> None:
        data = b'{"name": "first", "name": "last"}'
        answer = await post(api, "/tasks", data=data, headers={"Content-Type": "application/json"})
        assert answer.json["name"] == "last"

    @pytest.mark.parametrize(
        "content_type", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/problem+json"]
    )
    async def test_its_names_are_taken(self, api: Api, content_type: str) -> None:
        answer = await post(api, "/tasks", data=b'{"name": "x"}', headers={"Content-Type": content_type})
        assert answer.json["name"] == "x"

    @pytest.mark.parametrize(
        "content_type",
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/xml", "json", ""],
    )
    async def test_another_content_type_is_refused(self, api: Api, content_type: str) -> None:
        for path in ("/tasks", f"/tasks/{await api.create()}/finish"):
            answer = await post(api, path, data=b'{"code": 1}', headers={"Content-Type": content_type})
            refused(answer, 415, 87, "application/json")

    async def test_without_a_body_the_content_type_does_not_matter(self, api: Api) -> None:
        """aiohttp's client, for one, names application/octet-stream when it posts nothing."""
        for path, status in (("/tasks", 201), (f"/tasks/{await api.create()}/finish", 200)):
            answer = await api.ask("POST", path, headers={"Content-Type": "application/octet-stream"})
            assert answer.status == status

    async def test_a_body_that_is_too_large_is_refused(self, api: Api) -> None:
        limit = api.services.settings.limits.body_bytes
        task_id = await api.create()
        for path in ("/tasks", f"/tasks/{task_id}/finish", f"/tasks/{task_id}/output"):
            data = b'{"name": "' + b"x" * limit + b'"}'
            for body in (data, as_chunks(data)):
                answer = await post(api, path, data=body, headers={"Content-Type": "application/json"})
                refused(answer, 413, 1010, str(limit))
        assert (await api.task(task_id))["state"] == "queued"


async def as_chunks(data: bytes) -> Any:
    """A body whose length is not told beforehand."""
    for start in range(0, len(data), 1024 * 1024):
        yield data[start : start + 1024 * 1024]


class TestFinish:
    async def test_the_answer_is_the_task_without_output(self, api: Api) -> None:
        task_id = await api.create("a")
        answer = await post(api, f"/tasks/{task_id}/finish", {"code": 3, "error": "boom", "output": ["b"], "first": 1})
        assert (answer.status, answer.headers["Content-Type"], answer.headers["Cache-Control"]) == (
            200,
            JSON,
            "no-store",
        )
        assert answer.json == await api.task(task_id, first=2)
        assert (answer.json["state"], answer.json["last"], answer.json["output"]) == ("failed", 2, [])
        assert await api.lines(task_id) == ["a", "b"]

    async def test_the_same_again_succeeds(self, api: Api) -> None:
        for word in (
            {},
            {"code": 1},
            {"output": ["x"]},
            {"output": ["x"], "first": 0},
            {"result": {"type": "a", "data": 1}},
        ):
            task_id = await api.create()
            first = await api.finish(task_id, **word)
            assert await api.finish(task_id, **word) == first
            assert first["last"] == len(word.get("output", []))  # type: ignore[arg-type]

    async def test_a_default_error_written_out_is_the_same(self, api: Api) -> None:
        task_id = await api.done(code=1)
        error = (await api.task(task_id))["error"]
        assert (await api.finish(task_id, code=1, error=error))["error"] == error

    async def test_anything_else_is_a_conflict_that_says_how_it_ended(self, api: Api) -> None:
        task_id = await api.done("a", "b", code=2, error="boom")
        for word in (
            {},
            {"code": 2},
            {"code": 3, "error": "boom"},
            {"code": 2, "error": "boom", "output": ["x"]},
            {"code": 2, "error": "boom", "output": ["b"], "first": 0},
            {"code": 2, "error": "boom", "result": {"type": "x"}},
        ):
            answer = await post(api, f"/tasks/{task_id}/finish", word)
            assert refused(answer, 409, 1003, "failed") == {"last": 2, "state": "failed", "code": 2}
        assert await api.lines(task_id) == ["a", "b"]

    async def test_output_in_the_wrong_place_is_a_conflict_and_the_task_goes_on(self, api: Api) -> None:
        task_id = await api.create("a")
        answer = await post(api, f"/tasks/{task_id}/finish", {"output": ["x"], "first": 5})
        assert refused(answer, 409, 1002, "5", "1") == {"last": 1}
        assert not (await api.task(task_id))["finished"]

    @pytest.mark.parametrize(
        ("word", "words"),
        [
            ({"code": MAX + 1}, ["code: ", str(MAX), str(-MAX - 1)]),
            ({"code": -MAX - 2}, ["code: "]),
            ({"code": 10**30}, ["code: "]),
            ({"code": "1"}, ["code: "]),
            ({"code": 1.0}, ["code: "]),
            ({"code": True}, ["code: "]),
            ({"code": None}, ["code: "]),
            ({"error": 5}, ["error: "]),
            ({"error": None}, ["error: "]),
            ({"error": "x" * 65_537}, ["error: ", "65536"]),
            ({"error": "\0"}, ["error: ", "NUL"]),
            ({"result": 5}, ["result: "]),
            ({"result": {}}, ["result.type: "]),
            ({"result": {"data": 1}}, ["result.type: "]),
            ({"result": {"type": 5}}, ["result.type: "]),
            ({"result": {"type": "x" * 201}}, ["result.type: ", "200"]),
            ({"result": {"type": "x", "more": 1}}, ["result.more: "]),
            ({"output": "text"}, ["output: "]),
            ({"output": [5]}, ["output.0: "]),
            ({"output": ["a", None]}, ["output.1: "]),
            ({"output": ["a\nb"]}, ["newline"]),
            ({"first": -1}, ["first: ", " 0 "]),
            ({"first": "0"}, ["first: "]),
            ({"cod": 1}, ["cod: "]),
        ],
    )
    async def test_a_word_that_cannot_be_kept_is_refused_by_name(self, api: Api, word: Any, words: list[str]) -> None:
        task_id = await api.create()
        refused(await post(api, f"/tasks/{task_id}/finish", word), 400, 87, *words)
        assert (await api.task(task_id))["state"] == "queued"

    async def test_nulls_stand_for_what_is_not_there(self, api: Api) -> None:
        task_id = await api.create()
        assert (await api.finish(task_id, result=None, output=None, first=None))["state"] == "success"

    async def test_a_result_that_is_too_large_is_refused(self, api: Api) -> None:
        task_id = await api.create()
        limit = api.services.settings.limits.result_bytes
        empty = len(b'{"type":"x","data":""}')
        answer = await post(
            api, f"/tasks/{task_id}/finish", {"result": {"type": "x", "data": "x" * (limit - empty + 1)}}
        )
        refused(answer, 413, 1010, "result", str(limit))
        assert (await api.task(task_id))["state"] == "queued"
        await api.finish(task_id, result={"type": "x", "data": "x" * (limit - empty)})

    @pytest.mark.parametrize("depth", [260, 1000])
    async def test_a_deep_result_is_kept_or_refused(self, api: Api, depth: int) -> None:
        task_id = await api.create()
        data = b'{"result": {"type": "deep", "data": ' + b"[" * depth + b"]" * depth + b"}}"
        answer = await post(api, f"/tasks/{task_id}/finish", data=data, headers={"Content-Type": "application/json"})
        assert answer.status in (200, 400, 413)

    @pytest.mark.parametrize("number", ["1" * 5000, "1e400", "-1e400", "1e-400", "0." + "1" * 5000, "1.0", "-0"])
    async def test_no_number_of_a_result_is_too_much(self, api: Api, number: str) -> None:
        data = b'{"result": {"type": "number", "data": %b}}' % number.encode()
        path = f"/tasks/{await api.create()}/finish"
        answer = await post(api, path, data=data, headers={"Content-Type": "application/json"})
        assert answer.status in (200, 400)
        if answer.status == 200:
            assert answer.json["result"]["data"] == float(number)

    @pytest.mark.parametrize("number", [2**64 + 1, -(2**63) - 1, 12345678901234567890123])
    async def test_a_large_number_of_a_result_is_kept_or_refused(self, api: Api, number: int) -> None:
        task_id = await api.create()
        answer = await post(api, f"/tasks/{task_id}/finish", {"result": {"type": "int", "data": number}})
        if answer.status == 200:
            assert (await api.task(task_id))["result"]["data"] == number
        else:
            refused(answer, 400, 87, "result")


class TestHeartbeatAndCancel:
    async def test_a_heartbeat_tells_whether_to_stop(self, api: Api) -> None:
        task_id = await api.create()
        assert await api.json("POST", f"/tasks/{task_id}/heartbeat") == {"cancel_requested": False}
        assert (await api.task(task_id))["state"] == "running"
        await api.cancel(task_id)
        assert await api.json("POST", f"/tasks/{task_id}/heartbeat") == {"cancel_requested": True}

    async def test_an_append_tells_it_too(self, api: Api) -> None:
        task_id = await api.create("a")
        asked = await api.cancel(task_id)
        assert (asked["state"], asked["cancel_requested"], asked["output"]) == ("running", True, [])
        assert await api.append(task_id, "b") == {"first": 1, "last": 2, "cancel_requested": True}
        ended = await api.finish(task_id, code=143, error="terminated")
        assert (ended["state"], ended["code"], ended["error"]) == ("cancelled", 143, "terminated")

    async def test_a_producer_may_succeed_all_the_same(self, api: Api) -> None:
        task_id = await api.create("a")
        await api.cancel(task_id)
        assert (await api.finish(task_id))["state"] == "success"

    async def test_cancelling_again_or_too_late_changes_nothing(self, api: Api) -> None:
        queued, running, done = await api.create(), await api.create("a"), await api.done()
        for task_id in (queued, running, done):
            first = await api.cancel(task_id)
            assert await api.cancel(task_id) == first
        assert (await api.task(queued))["state"] == "cancelled"
        assert (await api.task(done))["state"] == "success"

    async def test_a_heartbeat_of_an_ended_task_is_refused(self, api: Api) -> None:
        answer = await post(api, f"/tasks/{await api.done('a')}/heartbeat")
        assert refused(answer, 409, 1003) == {"last": 1, "state": "success", "code": 0}

    async def test_heartbeats_keep_a_task_alive(self, api: Api) -> None:
        kept, lost = await api.create(lease=60), await api.create(lease=0.01)
        await api.json("POST", f"/tasks/{kept}/heartbeat")
        assert (await api.task(lost, wait=20))["state"] == "interrupted"
        assert (await api.task(kept))["state"] == "running"
        refused(await post(api, f"/tasks/{lost}/heartbeat"), 409, 1003, "interrupted")
        refused(await post(api, f"/tasks/{lost}/finish", {}), 409, 1003, "interrupted")

    async def test_what_they_carry_is_ignored(self, api: Api) -> None:
        task_id = await api.create()
        for path in ("heartbeat", "cancel"):
            answer = await post(api, f"/tasks/{task_id}/{path}", data=b"{broken", headers={"Content-Type": "x/y"})
            assert answer.status == 200


class TestDelete:
    async def test_an_ended_task_is_gone(self, api: Api) -> None:
        task_id = await api.done("a")
        answer = await api.ask("DELETE", f"/tasks/{task_id}")
        assert (answer.status, answer.body) == (204, b"")
        for method, path in (("GET", ""), ("GET", "/output"), ("DELETE", ""), ("POST", "/finish"), ("POST", "/cancel")):
            refused(await api.ask(method, f"/tasks/{task_id}{path}"), 404, 4)
        assert (await api.json("GET", "/tasks"))["tasks"] == []

    async def test_a_task_that_goes_on_is_refused(self, api: Api) -> None:
        for task_id in (await api.create(), await api.create("a")):
            refused(await api.ask("DELETE", f"/tasks/{task_id}"), 409, 1004, "finished")
            assert (await api.task(task_id))["id"] == task_id

    async def test_its_id_can_be_used_again(self, api: Api) -> None:
        await api.create("old", "older", id="again")
        await api.finish("again")
        await api.delete("again")
        await api.create("new", id="again")
        assert await api.lines("again") == ["new"]
        assert (await api.output("again"))["output"] == ["new"]
