"""PROTOCOLS.md, A5: what all streams have in common, and NDJSON."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from taskserver.config import Limits, Memory, Settings
from taskserver.model import Scope
from tests.api.conftest import Serve
from tests.api.conversation import CONNECT, NDJSON, TEXT, V1, Api, refused
from tests.api.stream_client import FORMATS, LIMIT, all_events, lines_of, next_object, objects, opened
from tests.eventually import eventually

TYPES = {"text": TEXT, "ndjson": NDJSON, "sse": "text/event-stream"}
EACH_FORMAT = pytest.mark.parametrize("format_", FORMATS)

ODD = [
    "",
    "   ",
    "10%\r20%\rdone",
    "ends with \r",
    "nul \0 in it",
    "a\u2028b\u2029c\x85d\x0b\x0c\x1c\x1d\x1ee",
    '"quoted" \\ \\n \\u0000',
    "data: x",
    ": comment",
    '",\\n"',
    "\x1b[31mred\x1b[0m",
    "ünïcödé 🎉 \ufeff",
    "x" * 100_000,
    "",
]


async def lines(api: Api, task_id: str, format_: str, **query: Any) -> list[str]:
    """The lines of a stream that ends, in any format."""
    if format_ == "sse":
        return lines_of(await all_events(api, task_id, format="sse", **query))
    answer = await api.ask("GET", f"/tasks/{task_id}/output", format=format_, follow="true", **query)
    assert answer.status == 200
    if format_ == "text":
        return answer.text.split("\n")[:-1]
    *found, end = objects(answer.body)
    assert "finished" in end
    return [item["text"] for item in found]


class TestEveryFormat:
    @EACH_FORMAT
    @pytest.mark.parametrize("memory", [Memory(), Memory(task_bytes=0)], ids=["from memory", "from the store"])
    async def test_lines_come_out_as_they_went_in(self, serve: Serve, format_: str, memory: Memory) -> None:
        api = await serve(Settings(memory=memory))
        task_id = await api.create(*ODD[:5])
        await api.append(task_id, *ODD[5:])
        await api.finish(task_id)
        assert await lines(api, task_id, format_) == ODD
        await api.services.store.seal((await api.services.store.get_task(task_id)).log)
        assert await lines(api, task_id, format_) == ODD

    @EACH_FORMAT
    async def test_they_come_out_so_while_they_are_followed(self, api: Api, format_: str) -> None:
        task_id = await api.create()
        following = asyncio.ensure_future(lines(api, task_id, format_))
        await eventually(lambda: api.services.waits.count == 1)
        for text in ODD:
            await api.append(task_id, text)
        await api.finish(task_id)
        assert await asyncio.wait_for(following, LIMIT) == ODD

    @EACH_FORMAT
    @pytest.mark.parametrize("prefix", [V1, CONNECT])
    async def test_the_headers(self, api: Api, format_: str, prefix: str) -> None:
        task_id = await api.create("a")
        async with opened(api.under(prefix), task_id, format=format_, follow="true") as response:
            assert response.status == 200
            assert response.headers["Content-Type"] == TYPES[format_]
            assert response.headers["Cache-Control"] == "no-store"
            assert response.headers["X-Accel-Buffering"] == "no"
            assert response.headers["Incremental"] == "?1"
            assert "Content-Length" not in response.headers

    @EACH_FORMAT
    async def test_they_come_before_the_first_line(self, api: Api, format_: str) -> None:
        task_id = await api.create()
        async with opened(api, task_id, format=format_, follow="true") as response:
            assert response.status == 200

    @EACH_FORMAT
    async def test_it_begins_where_it_is_told_to(self, api: Api, format_: str) -> None:
        task_id = await api.done(*"abcde")
        assert await lines(api, task_id, format_, first=2) == list("cde")
        assert await lines(api, task_id, format_, first=5) == []
        assert await lines(api, task_id, format_, tail=2) == list("de")
        assert await lines(api, task_id, format_, tail=0) == []
        assert await lines(api, task_id, format_, tail=99) == list("abcde")

    @EACH_FORMAT
    async def test_failures_have_their_true_status(self, admin: Api, api: Api, format_: str) -> None:
        task_id = await api.create("a")
        path = f"/tasks/{task_id}/output"
        for more, status, code in (
            ({"first": 2}, 400, 13),
            ({"first": -1}, 400, 25),
            ({"first": 0, "tail": 1}, 400, 25),
            ({"tail": "x"}, 400, 25),
            ({"follow": "maybe"}, 400, 25),
        ):
            wish: dict[str, Any] = {"follow": "true", **more}
            refused(await api.ask("GET", path, format=format_, **wish), status, code)
        refused(await api.ask("GET", "/tasks/none/output", format=format_, follow="true"), 404, 4)
        bob, writer = await admin.with_key("bob"), await admin.with_key("writer", Scope.WRITE, owner="ann")
        refused(await bob.ask("GET", path, format=format_, follow="true"), 404, 4)
        refused(await writer.ask("GET", path, format=format_, follow="true"), 403, 22)

    @EACH_FORMAT
    async def test_too_many_followers_are_refused_and_a_stream_keeps_its_place(
        self, serve: Serve, format_: str
    ) -> None:
        api = await serve(Settings(limits=Limits(waiters=1)))
        task_id, done = await api.create("a"), await api.done("a")
        async with opened(api, task_id, format=format_, follow="true") as response:
            answer = await api.ask("GET", f"/tasks/{task_id}/output", format=format_, follow="true")
            refused(answer, 429, 1020)
            assert answer.headers["Retry-After"]
            refused(await api.ask("GET", f"/tasks/{task_id}", wait=1), 429, 1020)
            # What has ended needs no place.
            assert await lines(api, done, format_) == ["a"]
            await api.append(task_id, "b")
            await api.finish(task_id)
            body = await asyncio.wait_for(response.content.read(), LIMIT)
        assert body.index(b"a") < body.index(b"b")
        await eventually(lambda: api.services.waits.count == 0)

    @EACH_FORMAT
    async def test_a_client_that_leaves_gives_its_place_back(self, api: Api, format_: str) -> None:
        task_id = await api.create("a")
        async with opened(api, task_id, format=format_, follow="true") as response:
            await response.content.readany()
            assert api.services.waits.count == 1
            response.close()
        await eventually(lambda: api.services.waits.count == 0)

    @EACH_FORMAT
    async def test_a_revoked_key_cuts_it(self, admin: Api, api: Api, format_: str) -> None:
        task_id = await api.create("a")
        async with opened(api, task_id, format=format_, follow="true") as response:
            await response.content.readany()
            await admin.services.keys.revoke(api.key_id)
            with pytest.raises(aiohttp.ClientPayloadError):
                await asyncio.wait_for(response.content.read(), LIMIT)

    @EACH_FORMAT
    @pytest.mark.parametrize("follow", ["true", "false"])
    async def test_a_revoked_key_cuts_a_long_catch_up(self, admin: Api, api: Api, format_: str, follow: str) -> None:
        task_id = await api.create()
        for _ in range(24):
            await api.append(task_id, *["x" * 1000] * 1000)
        async with opened(api, task_id, format=format_, follow=follow) as response:
            await response.content.readexactly(1000)
            await admin.services.keys.revoke(api.key_id)
            with pytest.raises(aiohttp.ClientPayloadError):
                await asyncio.wait_for(response.content.read(), LIMIT)

    @EACH_FORMAT
    async def test_a_deleted_task_cuts_it(self, api: Api, format_: str) -> None:
        now = await api.json("PUT", "/dags/etl", body={})
        run = await api.json("POST", f"/dags/{now['dag_id']}/runs", status=201, body={})
        task = await api.json("POST", f"/runs/{run['id']}/tasks", status=201, body={"task_id": "load"})
        async with opened(api, task["id"], format=format_, follow="true") as response:
            assert (await api.ask("DELETE", f"/runs/{run['id']}")).status == 204
            with pytest.raises(aiohttp.ClientPayloadError):
                await asyncio.wait_for(response.content.read(), LIMIT)

    @EACH_FORMAT
    async def test_a_drain_ends_it_without_an_end(self, api: Api, format_: str) -> None:
        task_id = await api.create("a")
        async with opened(api, task_id, format=format_, follow="true") as response:
            await response.content.readany()
            await eventually(lambda: api.services.waits.count == 1)
            api.services.waits.drain()
            rest = await asyncio.wait_for(response.content.read(), LIMIT)
        assert b"finished" not in rest

    @EACH_FORMAT
    async def test_head_tells_the_headers_and_the_connection_goes_on(self, api: Api, format_: str) -> None:
        running, done = await api.create("a"), await api.done("a")
        head = f"Host: x\r\nAuthorization: Key {api.key}\r\n"
        requests = [
            f"HEAD /v1/tasks/{task_id}/output?format={format_}&follow=true HTTP/1.1\r\n{head}\r\n"
            for task_id in (running, done)
        ]
        last = f"GET /v1/tasks/{done}/output HTTP/1.1\r\n{head}Connection: close\r\n\r\n"
        first, second, third = (await api.raw("".join([*requests, last]).encode())).split(b"HTTP/1.1 200 OK\r\n")[1:]
        for answer in (first, second):
            headers, _, body = answer.partition(b"\r\n\r\n")
            assert TYPES[format_].encode() in headers
            assert body == b""
        assert json.loads(third.partition(b"\r\n\r\n")[2])["output"] == ["a"]
        await eventually(lambda: api.services.waits.count == 0)


class TestNdjson:
    async def test_a_line_is_an_object(self, api: Api) -> None:
        task_id = await api.create()
        rows = [
            {"text": "out", "time": "2026-11-20T19:41:59.830168Z"},
            {"text": "err", "stream": "stderr", "time": "2026-11-20T20:41:59+01:00"},
        ]
        data = "\n".join(json.dumps(row) for row in rows)
        await api.ask("POST", f"/tasks/{task_id}/output", data=data, headers={"Content-Type": NDJSON})
        answer = await api.ask("GET", f"/tasks/{task_id}/output", format="ndjson")
        assert answer.body.split(b"\n")[:2] == [
            b'{"n":0,"text":"out","stream":"stdout","time":"2026-11-20T19:41:59.830168Z"}',
            b'{"n":1,"text":"err","stream":"stderr","time":"2026-11-20T19:41:59.000000Z"}',
        ]

    async def test_lines_come_as_they_are_appended_and_then_the_end(self, api: Api) -> None:
        task_id = await api.create("a")
        async with opened(api, task_id, format="ndjson", follow="true") as response:
            for number, text in enumerate("abc"):
                found = await next_object(response)
                assert (found["n"], found["text"]) == (number, text)
                if text != "c":
                    await api.append(task_id, chr(ord(text) + 1))
            await api.finish(task_id, code=3, error="no disk", output=["last"])
            assert (await next_object(response))["text"] == "last"
            assert await next_object(response) == {"finished": True, "code": 3, "error": "no disk", "last": 4}
            assert await asyncio.wait_for(response.content.read(), LIMIT) == b""

    async def test_without_follow_it_tells_how_the_task_stands(self, api: Api) -> None:
        task_id = await api.create("a", "b")
        answer = await api.ask("GET", f"/tasks/{task_id}/output", format="ndjson", first=1)
        first, end = objects(answer.body)
        assert (first["n"], first["text"]) == (1, "b")
        assert end == {"finished": False, "code": 0, "error": "", "last": 2}
        assert "Incremental" not in answer.headers

    async def test_a_limit_ends_it_and_then_it_tells_no_end_but_where_to_go_on(self, api: Api) -> None:
        task_id = await api.done("a", "b", "c", code=3)
        *lines, end = objects(
            (await api.ask("GET", f"/tasks/{task_id}/output", format="ndjson", first=1, limit=1)).body
        )
        assert [line["text"] for line in lines] == ["b"]
        assert end == {"finished": False, "code": 0, "error": "", "last": 2}
        *lines, end = objects(
            (await api.ask("GET", f"/tasks/{task_id}/output", format="ndjson", first=2, limit=1)).body
        )
        assert ([line["text"] for line in lines], end["finished"], end["code"], end["last"]) == (["c"], True, 3, 3)

    async def test_of_an_empty_output_only_the_end_is_told(self, api: Api) -> None:
        answer = await api.ask("GET", f"/tasks/{await api.done()}/output", format="ndjson", follow="true")
        assert objects(answer.body) == [{"finished": True, "code": 0, "error": "", "last": 0}]

    async def test_the_numbers_are_the_lines_own_wherever_it_begins(self, api: Api) -> None:
        task_id = await api.done(*"abcde")
        answer = await api.ask("GET", f"/tasks/{task_id}/output", format="ndjson", tail=2)
        assert [item.get("n") for item in objects(answer.body)] == [3, 4, None]

    async def test_a_last_event_id_means_nothing_here(self, api: Api) -> None:
        task_id = await api.done("a", "b")
        for format_ in ("ndjson", "text", "json"):
            header = {"Last-Event-ID": "1"}
            answer = await api.ask("GET", f"/tasks/{task_id}/output", format=format_, headers=header)
            assert answer.status == 200
            assert b"a" in answer.body

    async def test_many_followers_of_many_kinds_get_the_same(self, api: Api) -> None:
        task_id = await api.create()
        following = [asyncio.ensure_future(lines(api, task_id, FORMATS[number % 3])) for number in range(30)]
        await eventually(lambda: api.services.waits.count == 30)
        for number in range(0, 200, 4):
            await api.append(task_id, *(f"line {n}" for n in range(number, number + 4)))
        await api.finish(task_id)
        expected = [f"line {number}" for number in range(200)]
        assert await asyncio.wait_for(asyncio.gather(*following), LIMIT) == [expected] * 30
