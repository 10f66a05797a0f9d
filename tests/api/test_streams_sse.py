"""PROTOCOLS.md, A5: server-sent events: ids, resuming, retry, heartbeats and the end."""

from __future__ import annotations

import asyncio
import json

import pytest

from taskserver.config import MAX_LINE_NUMBER, Settings, Timing
from taskserver.streams import RETRY_MS
from tests.api.conftest import Serve
from tests.api.conversation import Api, refused
from tests.api.stream_client import CUT, LIMIT, all_events, events, lines_of, opened

PATH = "/tasks/{}/output"
SSE = {"Accept": "text/event-stream"}


class TestEvents:
    async def test_lines_come_as_they_are_appended_and_then_the_end(self, api: Api) -> None:
        task_id = await api.create("a", "b")
        async with events(api, task_id) as stream:
            first = await stream.next()
            assert (first.event, first.id, json.loads(first.data)) == ("output", "2", ["a", "b"])
            await api.append(task_id, "c")
            second = await stream.next()
            assert (second.event, second.id, json.loads(second.data)) == ("output", "3", ["c"])
            await api.finish(task_id, code=3, error="no\ndisk", output=["d"])
            third, end = await stream.rest()
        assert (third.event, third.id, json.loads(third.data)) == ("output", "4", ["d"])
        assert (end.event, end.id) == ("end", "4-end")
        assert json.loads(end.data) == {
            "state": "failed",
            "finished": True,
            "code": 3,
            "error": "no\ndisk",
            "last": 4,
        }

    @pytest.mark.parametrize(
        ("word", "state"), [({}, "success"), ({"code": 1}, "failed"), (None, "cancelled"), ("lease", "interrupted")]
    )
    async def test_the_end_tells_the_state(self, api: Api, word: object, state: str) -> None:
        task_id = await api.create(**({"lease": 0.2} if word == "lease" else {}))
        if isinstance(word, dict):
            await api.finish(task_id, **word)
        elif word is None:
            await api.cancel(task_id)
        (end,) = await all_events(api, task_id)
        assert json.loads(end.data)["state"] == state

    async def test_it_always_follows(self, api: Api) -> None:
        task_id = await api.create("a")
        async with events(api, task_id, follow="false") as stream:
            await stream.next()
            await api.finish(task_id)
            assert [event.event for event in await stream.rest()] == ["end"]

    async def test_it_is_told_when_to_come_back(self, api: Api) -> None:
        task_id = await api.done("a")
        moments = {(await all_events(api, task_id))[0].retry for _ in range(8)}
        assert all(moment is not None and RETRY_MS[0] <= moment <= RETRY_MS[1] for moment in moments)
        assert len(moments) > 1

    async def test_a_large_output_is_told_in_parts(self, api: Api) -> None:
        task_id = await api.create()
        texts = [f"{number} {'x' * 1000}" for number in range(2000)]
        for first in range(0, 2000, 100):
            await api.append(task_id, *texts[first : first + 100])
        await api.finish(task_id)
        found = await all_events(api, task_id)
        assert lines_of(found) == texts
        cursors = [int(event.id) for event in found[:-1]]
        assert len(cursors) > 4
        assert cursors == sorted(set(cursors))


class TestResuming:
    async def test_it_goes_on_after_the_event(self, api: Api) -> None:
        task_id = await api.done(*"abcde")
        for last_id in range(6):
            found = await all_events(api, task_id, str(last_id))
            assert lines_of(found) == list("abcde")[last_id:]
            assert found[-1].id == "5-end"

    async def test_it_beats_first_and_tail(self, api: Api) -> None:
        task_id = await api.done(*"abcde")
        assert lines_of(await all_events(api, task_id, "3", first=1)) == ["d", "e"]
        assert lines_of(await all_events(api, task_id, "3", first=99)) == ["d", "e"]
        assert lines_of(await all_events(api, task_id, "3", tail=5)) == ["d", "e"]

    async def test_an_empty_one_counts_as_none(self, api: Api) -> None:
        task_id = await api.done(*"abc")
        assert lines_of(await all_events(api, task_id, "", first=1)) == ["b", "c"]

    async def test_one_who_has_not_seen_the_end_is_told_it(self, api: Api) -> None:
        task_id = await api.done(*"abc")
        assert [event.id for event in await all_events(api, task_id, "3")] == ["3-end"]

    async def test_one_who_has_seen_the_end_need_not_come_back(self, api: Api) -> None:
        task_id = await api.done(*"abc")
        answer = await api.ask("GET", PATH.format(task_id), headers={**SSE, "Last-Event-ID": "3-end"})
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["Cache-Control"] == "no-store"

    async def test_an_end_that_is_not_this_ones_does_not_count(self, api: Api) -> None:
        done = await api.done(*"abc")
        found = await all_events(api, done, "1-end")
        assert lines_of(found) == ["b", "c"]
        assert found[-1].event == "end"
        running = await api.create("a", "b")
        async with events(api, running, "1-end") as stream:
            assert json.loads((await stream.next()).data) == ["b"]

    async def test_across_many_connections_every_line_comes_once(self, api: Api) -> None:
        task_id = await api.create()
        seen: list[str] = []
        cursor = None
        for number in range(30):
            await api.append(task_id, f"line {number}")
            async with events(api, task_id, cursor) as stream:
                event = await stream.next()
                seen += json.loads(event.data)
                cursor = event.id
        await api.finish(task_id)
        assert [event.event for event in await all_events(api, task_id, cursor)] == ["end"]
        assert seen == [f"line {number}" for number in range(30)]

    @pytest.mark.parametrize(
        "last_id",
        [
            "x",
            "-1",
            "+1",
            "1.0",
            "1e3",
            "0x1",
            "1 2",
            "1-",
            "1-END",
            "-end",
            "1-end-end",
            "9" * 11,
            "9" * 400,
            "٣",
            "null",
        ],
    )
    async def test_what_is_no_id_is_refused(self, api: Api, last_id: str) -> None:
        for task_id in (await api.create("a"), await api.done("a")):
            answer = await api.ask("GET", PATH.format(task_id), headers={**SSE, "Last-Event-ID": last_id})
            refused(answer, 400, 25, "Last-Event-ID")

    @pytest.mark.parametrize("last_id", ["3", "3-end", "999999", str(MAX_LINE_NUMBER), "9" * 10])
    async def test_one_beyond_the_output_is_refused(self, api: Api, last_id: str) -> None:
        for task_id in (await api.create("a", "b"), await api.done("a", "b")):
            answer = await api.ask("GET", PATH.format(task_id), headers={**SSE, "Last-Event-ID": last_id})
            assert refused(answer, 400, 13) == {"last": 2}

    async def test_a_task_that_does_not_exist_is_not_found(self, admin: Api, api: Api) -> None:
        bob = await admin.with_key("bob")
        for who, task_id in ((api, "none"), (bob, await api.done("a"))):
            for last_id in ("0", "1", "1-end"):
                answer = await who.ask("GET", PATH.format(task_id), headers={**SSE, "Last-Event-ID": last_id})
                refused(answer, 404, 4)


class TestHeartbeats:
    @pytest.fixture
    async def beating(self, serve: Serve) -> Api:
        """A client of a server whose heart beats fast."""
        return await serve(Settings(timing=Timing(heartbeat=0.02)))

    async def test_comments_come_while_nothing_else_does(self, beating: Api) -> None:
        task_id = await beating.create()
        async with opened(beating, task_id, format="sse") as response:
            seen = b""
            while seen.count(b"\n:") < 5:
                seen += await asyncio.wait_for(response.content.readany(), LIMIT)
            retry, *comments = seen.decode().split("\n")
            assert retry.startswith("retry: ")
            assert set(comments) == {":", ""}

    async def test_they_are_no_events(self, beating: Api) -> None:
        task_id = await beating.create()
        async with events(beating, task_id) as stream:
            first = asyncio.ensure_future(stream.next())
            # The heart has beaten some times by then.
            await beating.ask("GET", f"/tasks/{task_id}", wait=1)
            assert not first.done()
            await beating.append(task_id, "a")
            assert json.loads((await first).data) == ["a"]
            await beating.finish(task_id)
            assert [event.event for event in await stream.rest()] == ["end"]

    @pytest.mark.parametrize("format_", ["text", "ndjson"])
    async def test_the_other_formats_have_none(self, beating: Api, format_: str) -> None:
        task_id = await beating.create()
        async with opened(beating, task_id, format=format_, follow="true") as response:
            await beating.ask("GET", f"/tasks/{task_id}", wait=1)
            await beating.finish(task_id, output=["a"])
            body = await asyncio.wait_for(response.content.read(), LIMIT)
        assert body.startswith(b"a\n" if format_ == "text" else b'{"n":0,')


class TestBrokenOff:
    async def test_a_revoked_key_cuts_it_without_an_end(self, admin: Api, api: Api) -> None:
        task_id = await api.create("a")
        async with events(api, task_id) as stream:
            await stream.next()
            await admin.services.keys.revoke(api.key_id)
            with pytest.raises(CUT):
                await stream.next()

    async def test_after_a_drain_the_cursor_leads_on(self, api: Api) -> None:
        task_id = await api.create("a")
        async with events(api, task_id) as stream:
            cursor = (await stream.next()).id
            api.services.waits.drain()
            assert await stream.rest() == []
        await api.finish(task_id, output=["b"])
        assert lines_of(await all_events(api, task_id, cursor)) == ["b"]
