"""PROTOCOLS.md, A5: searching a task's output."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from taskserver.config import KIB, MAX_SEARCH_LENGTH, Searching, Settings
from taskserver.model import Scope
from tests.api.conversation import JSON, Answer, Api, refused

Serve = Callable[[Settings], Awaitable[Api]]


async def ask(api: Api, task_id: str, **query: Any) -> Answer:
    return await api.ask("GET", f"/tasks/{task_id}/output/search", **query)


async def search(api: Api, task_id: str, q: str, **query: Any) -> Any:
    return await api.json("GET", f"/tasks/{task_id}/output/search", q=q, **query)


class TestFinds:
    async def test_the_lines_that_hold_a_text(self, api: Api) -> None:
        task_id = await api.create("an error", "fine", "Error: error", "error")
        answer = await ask(api, task_id, q="error")
        assert (answer.headers["Content-Type"], answer.headers["Cache-Control"]) == (JSON, "no-store")
        assert list(answer.json) == ["first", "next", "last", "finished", "count", "lines"]
        assert answer.json == {"first": 0, "next": 4, "last": 4, "finished": False, "count": 3, "lines": [0, 2, 3]}

    @pytest.mark.parametrize("sealed", [False, True])
    async def test_in_live_and_in_sealed_output(self, api: Api, sealed: bool) -> None:
        lines = [f'{n} "quoted" back\\slash\ttab ✓ {"needle" if n % 100 == 7 else "hay"}' for n in range(1000)]
        task_id = await api.done(*lines)
        if sealed:
            await api.sealed()
        found = await search(api, task_id, "NEEDLE")
        assert (found["lines"], found["finished"]) == (list(range(7, 1000, 100)), True)
        for text in ('"quoted"', "back\\slash", "slash\ttab", "✓ "):
            assert (await search(api, task_id, text, limit=0))["count"] == 1000, text
        for text in ("\\t", "u2713", "\\\\"):  # how JSON writes them is nobody's business
            assert (await search(api, task_id, text))["lines"] == [], text

    async def test_case_counts_if_wanted(self, api: Api) -> None:
        task_id = await api.create("Error", "error", "ÜBER", "über", "Straße", "ΣΑΣ")
        assert (await search(api, task_id, "error"))["lines"] == [0, 1]
        assert (await search(api, task_id, "Error", case="true"))["lines"] == [0]
        assert (await search(api, task_id, "Über"))["lines"] == [2, 3]
        assert (await search(api, task_id, "STRASSE"))["lines"] == [4]
        assert (await search(api, task_id, "σας"))["lines"] == [5]

    async def test_colours_are_no_text(self, api: Api) -> None:
        task_id = await api.create("er\x1b[31mror\x1b[0m", "\x1b]0;error\x07title", "[31m")
        assert (await search(api, task_id, "error"))["lines"] == [0]
        assert (await search(api, task_id, "[31m"))["lines"] == [2]

    async def test_what_a_progress_bar_overwrote(self, api: Api) -> None:
        task_id = await api.create("10%\r50%\r100%")
        assert (await search(api, task_id, "50%"))["lines"] == [0]

    async def test_a_text_not_a_pattern(self, api: Api) -> None:
        task_id = await api.create("a.c", "abc", "(a+)+$")
        assert (await search(api, task_id, "a.c"))["lines"] == [0]
        assert (await search(api, task_id, "(a+)+$"))["lines"] == [2]

    async def test_nothing_across_lines(self, api: Api) -> None:
        task_id = await api.done("first", "second")
        await api.sealed()
        assert (await search(api, task_id, "firstsecond"))["count"] == 0


class TestPages:
    async def test_a_page_ends_with_its_last_match(self, api: Api) -> None:
        task_id = await api.done(*("yes" if n % 3 else "no" for n in range(30)))
        seen: list[int] = []
        first, finished = 0, False
        while not finished:
            page = await search(api, task_id, "yes", first=first, limit=7)
            assert (page["first"], page["count"]) == (first, len(page["lines"]))
            assert len(page["lines"]) <= 7
            seen += page["lines"]
            first, finished = page["next"], page["finished"]
        assert (seen, first) == ([n for n in range(30) if n % 3], 30)

    async def test_a_limit_of_zero_only_counts(self, api: Api) -> None:
        task_id = await api.done(*["yes"] * 3000)
        page = await search(api, task_id, "yes", limit=0)
        assert page == {"first": 0, "next": 3000, "last": 3000, "finished": True, "count": 3000, "lines": []}

    async def test_a_request_looks_at_a_bounded_part(self, serve: Serve) -> None:
        api = await serve(Settings(searching=Searching(scan_bytes=64 * KIB)))
        lines = [f"{n:06} {'x' * 90}" for n in range(10_000)]
        task_id = await api.create()
        for start in range(0, len(lines), 500):
            await api.append(task_id, *lines[start : start + 500])
        await api.finish(task_id)
        await api.sealed()
        found, first, requests, finished = list[int](), 0, 0, False
        while not finished:
            page = await search(api, task_id, "99 ", first=first)
            found, first, finished = found + page["lines"], page["next"], page["finished"]
            requests += 1
        assert found == list(range(99, 10_000, 100))
        assert requests >= 3  # 1 MB in pages of 256 KiB

    async def test_it_goes_on_where_a_running_task_went_on(self, api: Api) -> None:
        task_id = await api.create("a", "b")
        page = await search(api, task_id, "c")
        assert (page["next"], page["finished"]) == (2, False)
        await api.append(task_id, "c")
        await api.finish(task_id)
        page = await search(api, task_id, "c", first=page["next"])
        assert (page["lines"], page["next"], page["finished"]) == ([2], 3, True)

    async def test_no_output_at_all(self, api: Api) -> None:
        page = await search(api, await api.create(), "x")
        assert page == {"first": 0, "next": 0, "last": 0, "finished": False, "count": 0, "lines": []}

    async def test_many_at_once_all_get_their_answer(self, api: Api) -> None:
        task_id = await api.done(*["a", "b"] * 1000)
        pages = await asyncio.gather(*(search(api, task_id, "a", limit=0) for _ in range(20)))
        assert [page["count"] for page in pages] == [1000] * 20


class TestRefusals:
    @pytest.mark.parametrize(
        ("query", "name"),
        [
            ({}, "q"),
            ({"q": ""}, "q"),
            ({"q": "x" * (MAX_SEARCH_LENGTH + 1)}, "q"),
            ({"q": "a\nb"}, "q"),
            ({"q": "x", "limit": -1}, "limit"),
            ({"q": "x", "limit": 10_001}, "limit"),
            ({"q": "x", "first": -1}, "first"),
            ({"q": "x", "case": "perhaps"}, "case"),
        ],
    )
    async def test_a_bad_parameter_is_named(self, api: Api, query: dict[str, Any], name: str) -> None:
        refused(await ask(api, await api.create("x"), **query), 400, 25, name)

    async def test_beyond_the_output(self, api: Api) -> None:
        assert refused(await ask(api, await api.create("x"), q="x", first=2), 400, 13) == {"last": 1}

    async def test_another_owners_task_does_not_exist(self, admin: Api, api: Api) -> None:
        bob = await admin.with_key("bob")
        refused(await ask(bob, await api.create("secret"), q="secret"), 404, 4)

    async def test_it_needs_the_scope_read(self, admin: Api) -> None:
        writer = await admin.with_key("writer", Scope.WRITE)
        refused(await ask(writer, await writer.create("x"), q="x"), 403, 22)
