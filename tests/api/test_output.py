"""PROTOCOLS.md, A5: output alone, in pages and as text."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from taskserver.config import MAX_OUTPUT_LIMIT
from taskserver.model import Scope
from tests.api.conversation import CONNECT, JSON, TEXT, V1, Answer, Api, refused
from tests.eventually import eventually


async def text(api: Api, task_id: str, **query: Any) -> Answer:
    return await api.ask("GET", f"/tasks/{task_id}/output", format="text", **query)


class TestPages:
    async def test_a_page_says_where_it_begins_and_where_the_next_one_does(self, api: Api) -> None:
        task_id = await api.create("a", "b", "c")
        answer = await api.ask("GET", f"/tasks/{task_id}/output", first=1)
        assert list(answer.json) == ["first", "last", "finished", "output"]
        assert answer.json == {"first": 1, "last": 3, "finished": False, "output": ["b", "c"]}
        assert (answer.headers["Content-Type"], answer.headers["Cache-Control"]) == (JSON, "no-store")

    @pytest.mark.parametrize("prefix", [V1, CONNECT])
    async def test_it_is_the_same_under_both_prefixes(self, api: Api, prefix: str) -> None:
        task_id = await api.done("a")
        assert (await api.under(prefix).output(task_id))["output"] == ["a"]

    async def test_pages_lead_through_the_output(self, api: Api) -> None:
        expected = [f"line {number}" for number in range(25)]
        task_id = await api.done(*expected)
        seen: list[str] = []
        first, finished, pages = 0, False, 0
        while not finished:
            page = await api.output(task_id, first=first, limit=10, wait=55)
            assert page["first"] == first
            assert page["last"] == first + len(page["output"])
            seen += page["output"]
            first, finished, pages = page["last"], page["finished"], pages + 1
        assert (seen, pages) == (expected, 3)

    @pytest.mark.parametrize("sealed", [False, True])
    async def test_finished_is_told_on_the_last_page_only(self, api: Api, sealed: bool) -> None:
        task_id = await api.done("a", "b", "c", "d")
        if sealed:
            await api.sealed()
        for first, limit, finished in [(0, 3, False), (0, 4, True), (3, 1, True), (2, 1, False), (4, 1, True)]:
            page = await api.output(task_id, first=first, limit=limit)
            assert (page["last"], page["finished"]) == (min(4, first + limit), finished)

    async def test_of_an_empty_output_is_empty(self, api: Api) -> None:
        queued, done = await api.create(), await api.done()
        assert await api.output(queued) == {"first": 0, "last": 0, "finished": False, "output": []}
        assert await api.output(done, wait=55) == {"first": 0, "last": 0, "finished": True, "output": []}

    async def test_the_limits_are_a_thousand_and_ten_thousand(self, api: Api) -> None:
        task_id = await api.done(*map(str, range(MAX_OUTPUT_LIMIT + 5)))
        assert (await api.output(task_id))["last"] == 1000
        assert (await api.output(task_id, limit=MAX_OUTPUT_LIMIT))["last"] == MAX_OUTPUT_LIMIT

    async def test_a_page_of_long_lines_may_be_shorter_but_not_empty(self, api: Api) -> None:
        lines = [f"{number}" + "x" * 500_000 for number in range(12)]
        task_id = await api.done(*lines)
        seen: list[str] = []
        while len(seen) < len(lines):
            page = await api.output(task_id, first=len(seen), limit=10)
            assert 0 < len(page["output"]) <= 10
            seen += page["output"]
        assert seen == lines
        assert page["finished"]

    async def test_while_more_is_there_nobody_waits(self, api: Api) -> None:
        task_id = await api.create("a", "b")
        for _ in range(3):
            assert (await api.output(task_id, limit=1, wait=55))["output"] == ["a"]


class TestTail:
    @pytest.mark.parametrize(("tail", "first"), [(0, 5), (1, 4), (3, 2), (5, 0), (6, 0), (2**32 - 1, 0)])
    async def test_it_starts_so_many_lines_before_the_end(self, api: Api, tail: int, first: int) -> None:
        for task_id in (await api.create(*"abcde"), await api.done(*"abcde")):
            page = await api.output(task_id, tail=tail)
            assert (page["first"], page["last"], page["output"]) == (first, 5, list("abcde")[first:])
            assert (await text(api, task_id, tail=tail)).text == "".join(f"{line}\n" for line in "abcde"[first:])

    async def test_of_an_empty_output_is_empty(self, api: Api) -> None:
        assert (await api.output(await api.create(), tail=10))["output"] == []

    async def test_scrolling_up_and_on_from_there_meets_every_line(self, api: Api) -> None:
        task_id = await api.create(*"abcdefg")
        page = await api.output(task_id, tail=3)
        up = await api.output(task_id, first=page["first"] - 3, limit=3)
        assert up["output"] + page["output"] == list("bcdefg")
        await api.append(task_id, "h")
        assert (await api.output(task_id, first=page["last"]))["output"] == ["h"]

    async def test_the_next_line_can_be_waited_for(self, api: Api) -> None:
        task_id = await api.create("a")
        async with api.waiting(f"/tasks/{task_id}/output", tail=0, wait=55) as waiting:
            await api.append(task_id, "b")
        assert (await waiting).json == {"first": 1, "last": 2, "finished": False, "output": ["b"]}

    async def test_beside_first_it_is_refused(self, api: Api) -> None:
        answer = await api.ask("GET", f"/tasks/{await api.create()}/output", tail=1, first=0)
        refused(answer, 400, 25, "tail: ", "first")

    async def test_of_anothers_task_is_not_found(self, admin: Api, api: Api) -> None:
        bob = await admin.with_key("bob")
        task_id = await bob.create("a")
        refused(await api.ask("GET", f"/tasks/{task_id}/output", tail=1), 404, 4)


class TestFormat:
    @pytest.mark.parametrize(
        ("accept", "expected"),
        [
            ("", JSON),
            ("*/*", JSON),
            ("application/json", JSON),
            ("text/plain", TEXT),
            ("TEXT/Plain; charset=utf-8", TEXT),
            ("text/html, text/plain", TEXT),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", JSON),
            ("application/json, text/plain", JSON),
            ("text/plain, application/json", TEXT),
            ("image/png", JSON),
            ("nonsense,,;", JSON),
        ],
    )
    async def test_accept_chooses_it(self, api: Api, accept: str, expected: str) -> None:
        task_id = await api.done("a")
        answer = await api.ask("GET", f"/tasks/{task_id}/output", headers={"Accept": accept})
        assert answer.headers["Content-Type"] == expected

    @pytest.mark.parametrize(
        "accept", ["text/plain;q=0.1, application/json", "text/plain;q=0", "text/plain; q=0.5, */*"]
    )
    async def test_accept_has_weights(self, api: Api, accept: str) -> None:
        """RFC 9110, 12.5.1: what has a higher weight is preferred, and 0 is "not acceptable"."""
        answer = await api.ask("GET", f"/tasks/{await api.done('a')}/output", headers={"Accept": accept})
        assert answer.headers["Content-Type"] == JSON

    async def test_the_parameter_beats_accept(self, api: Api) -> None:
        task_id = await api.done("a")
        for name, accept, expected in [("json", "text/plain", JSON), ("text", "application/json", TEXT)]:
            answer = await api.ask("GET", f"/tasks/{task_id}/output", format=name, headers={"Accept": accept})
            assert answer.headers["Content-Type"] == expected

    @pytest.mark.parametrize("name", ["xml", "", "TEXT", "text/plain"])
    async def test_an_unknown_one_is_refused(self, api: Api, name: str) -> None:
        answer = await api.ask("GET", f"/tasks/{await api.create()}/output", format=name)
        refused(answer, 400, 25, "format: ", "json", "text")


class TestText:
    async def test_each_line_has_a_newline(self, api: Api) -> None:
        task_id = await api.create("a", "", 'ü🎈 "\\ \t\r', "<b>")
        answer = await text(api, task_id)
        assert answer.text == 'a\n\nü🎈 "\\ \t\r\n<b>\n'
        assert (answer.headers["Content-Type"], answer.headers["Cache-Control"]) == (TEXT, "no-store")
        assert (await text(api, task_id, first=3)).text == "<b>\n"
        assert (await text(api, task_id, first=4)).text == ""

    async def test_of_an_empty_output_is_empty(self, api: Api) -> None:
        for task_id in (await api.create(), await api.done()):
            answer = await text(api, task_id)
            assert (answer.status, answer.body) == (200, b"")

    async def test_it_is_not_paged_unless_a_limit_says_so(self, api: Api) -> None:
        task_id = await api.done(*map(str, range(5000)))
        assert (await text(api, task_id)).text == "".join(f"{number}\n" for number in range(5000))
        assert (await text(api, task_id, first=7, limit=3)).text == "7\n8\n9\n"
        assert (await text(api, task_id, first=4999, limit=3)).text == "4999\n"

    async def test_escape_codes_are_left_out_on_request(self, api: Api) -> None:
        task_id = await api.done("\x1b[31mred\x1b[0m", "10%\r20%", "\x1b]0;title\x07plain ✓")
        assert (await text(api, task_id, escapes="false")).text == "red\n10%\r20%\nplain ✓\n"
        assert (await text(api, task_id, escapes="false", follow="true")).text == "red\n10%\r20%\nplain ✓\n"
        assert (await text(api, task_id, first=2)).text == "\x1b]0;title\x07plain ✓\n"

    async def test_without_follow_it_does_not_wait(self, api: Api) -> None:
        task_id = await api.create("a")
        for follow in ("false", "0"):
            assert (await text(api, task_id, follow=follow)).text == "a\n"


class TestFollow:
    @contextlib.asynccontextmanager
    async def following(self, api: Api, task_id: str, **query: str | int) -> AsyncIterator[aiohttp.ClientResponse]:
        """A stream that has begun."""
        headers = {"Authorization": f"Key {api.key}"}
        parameters = {"format": "text", "follow": "true", **query}
        async with api.client.get(f"/v1/tasks/{task_id}/output", params=parameters, headers=headers) as response:
            assert response.status == 200
            yield response

    async def test_lines_come_as_they_are_appended_until_the_end(self, api: Api) -> None:
        task_id = await api.create("a")
        async with self.following(api, task_id) as stream:
            assert stream.headers["Content-Type"] == TEXT
            assert stream.headers["Cache-Control"] == "no-store"
            assert stream.headers["X-Accel-Buffering"] == "no"
            assert stream.headers["Incremental"] == "?1"
            assert await stream.content.readline() == b"a\n"
            for number in range(5):
                await api.append(task_id, f"line {number}", "and more")
                assert await stream.content.readline() == f"line {number}\n".encode()
                assert await stream.content.readline() == b"and more\n"
            await api.finish(task_id, output=["end"])
            assert await stream.content.read() == b"end\n"

    async def test_its_headers_come_before_the_first_line(self, api: Api) -> None:
        task_id = await api.create()
        async with self.following(api, task_id) as stream:
            await api.append(task_id, "a")
            assert await stream.content.readline() == b"a\n"

    async def test_of_a_finished_task_it_ends_at_once(self, api: Api) -> None:
        task_id = await api.done("a", "b")
        for first, expected in ((0, b"a\nb\n"), (2, b"")):
            async with self.following(api, task_id, first=first) as stream:
                assert await stream.content.read() == expected

    async def test_it_can_begin_with_the_tail(self, api: Api) -> None:
        task_id = await api.create("a", "b")
        async with self.following(api, task_id, tail=1) as stream:
            await api.finish(task_id, output=["c"])
            assert await stream.content.read() == b"b\nc\n"

    async def test_failures_have_their_true_status(self, admin: Api, api: Api) -> None:
        task_id = await api.create("a")
        bob = await admin.with_key("bob")
        refused(await text(api, "none", follow="true"), 404, 4)
        refused(await text(bob, task_id, follow="true"), 404, 4)
        refused(await text(api, task_id, follow="true", first=5), 400, 13)
        refused(await text(api, task_id, follow="maybe"), 400, 25, "follow: ")

    @pytest.mark.parametrize("ending", ["finish", "cancel"])
    async def test_every_end_ends_it(self, api: Api, ending: str) -> None:
        task_id = await api.create()
        async with self.following(api, task_id) as stream:
            await (api.finish(task_id, code=1) if ending == "finish" else api.cancel(task_id))
            assert await stream.content.read() == b""

    async def test_a_lost_producer_ends_it(self, api: Api) -> None:
        async with self.following(api, await api.create(lease=0.3)) as stream:
            assert await stream.content.read() == b""

    async def test_a_drain_ends_it(self, api: Api) -> None:
        task_id = await api.create("a")
        async with self.following(api, task_id) as stream:
            assert await stream.content.readline() == b"a\n"
            api.services.waits.drain()
            assert await stream.content.read() == b""

    async def test_a_revoked_key_cuts_it(self, admin: Api, api: Api) -> None:
        task_id = await api.create("a")
        async with self.following(api, task_id) as stream:
            assert await stream.content.readline() == b"a\n"
            await eventually(lambda: api.services.waits.count == 1)
            await admin.json("DELETE", "/keys/ann")
            with pytest.raises(aiohttp.ClientPayloadError):
                await stream.content.read()

    async def test_an_expired_key_cuts_it(self, admin: Api) -> None:
        task_id = await admin.create("a")
        short = await admin.with_key("short", Scope.ADMIN, seconds=1.5)
        async with self.following(short, task_id) as stream:
            assert await stream.content.readline() == b"a\n"
            with pytest.raises(aiohttp.ClientPayloadError):
                await stream.content.read()

    async def test_a_client_that_leaves_ends_it(self, api: Api) -> None:
        task_id = await api.create("a")
        async with self.following(api, task_id) as stream:
            assert await stream.content.readline() == b"a\n"
            await eventually(lambda: api.services.waits.count == 1)
            stream.close()
            await eventually(lambda: api.services.waits.count == 0)

    async def test_many_followers_get_the_same(self, api: Api) -> None:
        task_id = await api.create("a")

        async def follow() -> bytes:
            async with self.following(api, task_id) as stream:
                return await stream.content.read()

        followers = [asyncio.ensure_future(follow()) for _ in range(30)]
        await eventually(lambda: api.services.waits.count == 30)
        for number in range(20):
            await api.append(task_id, str(number))
        await api.finish(task_id)
        expected = "".join(f"{line}\n" for line in ["a", *range(20)]).encode()
        assert set(await asyncio.gather(*followers)) == {expected}

    async def test_head_does_not_follow(self, api: Api) -> None:
        task_id = await api.create("a")
        answer = await api.ask("HEAD", f"/tasks/{task_id}/output", format="text", follow="true")
        assert (answer.status, answer.body, answer.headers["Incremental"]) == (200, b"", "?1")
