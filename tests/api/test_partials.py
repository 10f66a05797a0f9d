"""PROTOCOLS.md, A4 and A5: unfinished lines, which are told to those who follow and never stored."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientResponse

from taskserver.config import PARTIAL_PAUSE, Settings, Timing
from taskserver.errors import StoreUnavailable
from tests.api.conftest import Serve
from tests.api.conversation import NDJSON, Api, refused
from tests.api.stream_client import LIMIT, all_events, events, opened
from tests.api.test_live_ingest import Producer


async def send(api: Api, task_id: str, *rows: dict[str, Any], **query: Any) -> Any:
    """Append rows of NDJSON."""
    data = b"\n".join(json.dumps(row).encode() for row in rows)
    return await api.json("POST", f"/tasks/{task_id}/output", data=data, headers={"Content-Type": NDJSON}, **query)


def bar(text: str) -> dict[str, Any]:
    """What is told of a bar on standard error."""
    return {"partial": {"stdout": "", "stderr": text}}


NONE = bar("")


class Following:
    """A stream of NDJSON that tells of unfinished lines."""

    def __init__(self, response: ClientResponse) -> None:
        self._response = response

    async def next(self) -> dict[str, Any]:
        """The next object; of a line only its text."""
        found = json.loads(await asyncio.wait_for(self._response.content.readline(), LIMIT))
        return {"text": found["text"]} if "text" in found else found


@asynccontextmanager
async def following(api: Api, task_id: str, **query: Any) -> AsyncIterator[Following]:
    async with opened(api, task_id, format="ndjson", follow="true", partial="true", **query) as response:
        assert response.status == 200
        yield Following(response)


async def test_who_follows_sees_a_bar_move_and_become_a_line(api: Api) -> None:
    task_id = await api.create("begin")
    async with following(api, task_id) as reader:
        assert await reader.next() == {"text": "begin"}
        for text in ("10%", "20%"):
            await send(api, task_id, {"partial": text, "stream": "stderr"})
            assert await reader.next() == bar(text)
        await send(api, task_id, {"text": "between"}, {"partial": "20%", "stream": "stderr"}, first=1)
        assert await reader.next() == {"text": "between"}
        assert await reader.next() == bar("20%")
        await send(api, task_id, {"text": "20%\r100%", "stream": "stderr"})
        assert await reader.next() == {"text": "20%\r100%"}
        await api.finish(task_id)
        assert await reader.next() == {"finished": True, "code": 0, "error": "", "last": 3}


async def test_both_streams_are_told_and_what_is_wiped_away(api: Api) -> None:
    task_id = await api.create()
    async with following(api, task_id) as reader:
        await send(api, task_id, {"partial": "10%", "stream": "stderr"}, {"partial": "name? "})
        assert await reader.next() == {"partial": {"stdout": "name? ", "stderr": "10%"}}
        await send(api, task_id, {"partial": "10%\r20%\r", "stream": "stderr"})
        assert await reader.next() == bar("20%"), "the one that is not named is no more"
        await send(api, task_id, {"partial": "20%\r   \r", "stream": "stderr"})
        assert await reader.next() == NONE
        await send(api, task_id, {"partial": ""})
        await send(api, task_id, {"partial": "30%", "stream": "stderr"})
        assert await reader.next() == bar("30%"), "that there is nothing is told once"


async def test_who_comes_later_is_told_what_stands_now(api: Api) -> None:
    task_id = await api.create("a")
    await send(api, task_id, {"partial": "10%", "stream": "stderr"})
    async with following(api, task_id) as early:
        assert [await early.next(), await early.next()] == [{"text": "a"}, bar("10%")]
        await send(api, task_id, {"partial": "20%", "stream": "stderr"})
        assert await early.next() == bar("20%")
        async with following(api, task_id, first=1) as late:
            assert await late.next() == bar("20%")
            await send(api, task_id, {"partial": "30%", "stream": "stderr"})
            assert [await late.next(), await early.next()] == [bar("30%")] * 2
    await api.append(task_id, "b")
    async with following(api, task_id, first=1) as reader:
        assert await reader.next() == {"text": "b"}
        await api.append(task_id, "c")
        assert await reader.next() == {"text": "c"}, "a line has ended what was unfinished"


async def test_server_sent_events_tell_it_without_moving_the_cursor(api: Api) -> None:
    task_id = await api.create("a")
    async with events(api, task_id, partial="true") as stream:
        assert (await stream.next()).event == "output"
        await send(api, task_id, {"partial": "10%", "stream": "stderr"})
        event = await stream.next()
        assert (event.event, json.loads(event.data)) == ("partial", bar("10%")["partial"])
        assert event.id == "1", "the last id stays"
        await api.finish(task_id, output=["b"])
        rest = [event for event in await stream.rest() if event.event != "partial"]  # that there is none any more
        assert [event.id for event in rest] == ["2", "2-end"]


async def test_who_does_not_ask_for_it_is_told_lines_only(api: Api) -> None:
    task_id = await api.create("a")
    for form in ("ndjson", "sse", "text"):
        async with opened(
            api, task_id, format=form, follow="true", **({"partial": "true"} if form == "text" else {})
        ) as it:
            await asyncio.wait_for(it.content.readany(), LIMIT)
            await send(api, task_id, {"partial": "10%", "stream": "stderr"})
            await api.append(task_id, "the next line")
            assert b"10%" not in await asyncio.wait_for(it.content.readany(), LIMIT)


async def test_it_is_stored_nowhere(api: Api) -> None:
    task_id = await api.create("a")
    await send(api, task_id, {"partial": "10%", "stream": "stderr"})
    assert (await api.task(task_id))["output"] == ["a"]
    assert (await api.output(task_id))["output"] == ["a"]
    assert (await api.json("GET", f"/tasks/{task_id}/output/search", q="10%"))["count"] == 0
    await api.finish(task_id)
    assert [event.event for event in await all_events(api, task_id, partial="true")] == ["output", "end"]


async def test_it_is_a_sign_of_life(api: Api) -> None:
    task_id = await api.create()
    assert await send(api, task_id, {"partial": "10%"}) == {"first": 0, "last": 0, "cancel_requested": False}
    assert (await api.task(task_id))["state"] == "running"
    await api.cancel(task_id)
    assert (await send(api, task_id, {"partial": "20%"}))["cancel_requested"] is True


async def test_behind_lines_that_were_stored_before_it_is_told_again(api: Api) -> None:
    task_id = await api.create()
    async with following(api, task_id) as reader:
        for _ in range(2):  # the answer to the first was lost
            await send(api, task_id, {"text": "a"}, {"partial": "10%", "stream": "stderr"}, first=0)
        assert [await reader.next(), await reader.next()] == [{"text": "a"}, bar("10%")]
        await send(api, task_id, {"text": "b"})
        assert await reader.next() == {"text": "b"}


@pytest.mark.parametrize(
    ("content_type", "pieces", "end"),
    [
        (None, [b"a\n\r10%", b"\r20%", b"\r30%\n"], "\r10%\r20%\r30%"),
        (NDJSON, [b'{"text":"a"}\n{"partial":"10%"}\n', b'{"partial":"20%"}\n', b'{"text":"b"}\n'], "b"),
    ],
)
async def test_a_live_body_tells_what_it_has_not_ended(
    api: Api, content_type: str | None, pieces: list[bytes], end: str
) -> None:
    task_id = await api.create()
    async with following(api, task_id) as reader, Producer(api, task_id, content_type) as producer:
        producer.write(pieces[0])
        assert await reader.next() == {"text": "a"}
        assert await reader.next() == {"partial": {"stdout": "10%", "stderr": ""}}
        producer.write(pieces[1])
        assert await reader.next() == {"partial": {"stdout": "20%", "stderr": ""}}
        producer.write(pieces[2])
        assert await reader.next() == {"text": end}
        assert (await producer.end()).json["last"] == 2


async def test_a_line_that_is_whole_soon_is_told_as_a_line_only(api: Api) -> None:
    task_id, loop = await api.create(), asyncio.get_running_loop()
    async with following(api, task_id) as reader, Producer(api, task_id) as producer:
        for number in range(3):
            began = loop.time()
            producer.write(b"be")
            await asyncio.sleep(PARTIAL_PAUSE / 10)
            producer.write(b"gun %d\n" % number)
            found = await reader.next()
            if "partial" in found and loop.time() - began >= PARTIAL_PAUSE:  # this process stood still: it was not soon
                found = await reader.next()
            assert found == {"text": f"begun {number}"}
            await asyncio.sleep(1.5 * PARTIAL_PAUSE)  # it is the line's age that counts, not how long ago the last came


@pytest.mark.parametrize("last", [b'{"partial":"50%"}\n', b'{"partial":"50%"}'])
async def test_the_last_word_of_a_live_body_stands(api: Api, last: bytes) -> None:
    task_id = await api.create()
    async with following(api, task_id) as reader:
        async with Producer(api, task_id, NDJSON) as producer:
            producer.write(b'{"text":"a"}\n', last)
            await producer.end()
        assert [await reader.next(), await reader.next()] == [
            {"text": "a"},
            {"partial": {"stdout": "50%", "stderr": ""}},
        ]
        async with Producer(api, task_id, NDJSON) as producer:
            producer.write(b'{"partial":"90%"}\n')
            assert await reader.next() == {"partial": {"stdout": "90%", "stderr": ""}}
            producer.write(b'{"partial":""}\n')
            await producer.end()
        assert await reader.next() == NONE


async def test_a_line_that_will_never_be_whole_stands_no_more(api: Api) -> None:
    task_id = await api.create()
    async with following(api, task_id) as reader:
        async with Producer(api, task_id) as producer:
            producer.write(b"half of a li")
            assert await reader.next() == {"partial": {"stdout": "half of a li", "stderr": ""}}
            await producer.leave()
        assert await reader.next() == NONE
    assert (await api.task(task_id))["last"] == 0


async def test_behind_the_lines_of_others_it_is_told_too(api: Api) -> None:
    task_id = await api.create()
    async with following(api, task_id) as reader, Producer(api, task_id) as producer:
        producer.write(b"\r10%")
        assert await reader.next() == {"partial": {"stdout": "10%", "stderr": ""}}
        await api.append(task_id, "another's")
        assert await reader.next() == {"text": "another's"}
        producer.write(b"\r20%")
        assert await reader.next() == {"partial": {"stdout": "20%", "stderr": ""}}


class TestLiveBodiesThatOnlyDraw:
    """A piece comes every few milliseconds, and never a newline."""

    @pytest.fixture
    async def admin(self, serve: Serve) -> Api:
        """A server that looks often, and takes it for an interruption if it could not: nobody is lost by that."""
        return await serve(Settings(timing=Timing(reaper=0.02, deaf=0.3)))

    @pytest.fixture(params=[None, NDJSON])
    async def drawing(self, request: pytest.FixtureRequest, api: Api) -> AsyncIterator[tuple[str, Producer]]:
        task_id = await api.create(lease=2)

        async def draw(producer: Producer) -> None:
            for number in itertools.count():
                text = f"{number}%"
                producer.write(
                    b"\r" + text.encode() if request.param is None else b'{"partial":"%b"}\n' % text.encode()
                )
                await asyncio.sleep(0.02)

        async with Producer(api, task_id, request.param) as producer:
            drawing = asyncio.create_task(draw(producer))
            yield task_id, producer
            drawing.cancel()

    async def test_its_task_stays_alive(self, api: Api, drawing: tuple[str, Producer]) -> None:
        task_id, _ = drawing
        other = await api.create(lease=2)  # as long a lease, begun later, and nobody renews it
        async with following(api, task_id) as reader:
            lost = asyncio.ensure_future(api.task(other, wait=20))
            while not lost.done():
                assert "partial" in await reader.next()
            assert (await lost)["state"] == "interrupted"
        assert (await api.task(task_id))["state"] == "running"

    async def test_it_ends_with_its_task(self, api: Api, drawing: tuple[str, Producer]) -> None:
        task_id, producer = drawing
        async with following(api, task_id) as reader:
            await reader.next()
        await api.finish(task_id)
        refused(await asyncio.wait_for(producer.asking, LIMIT), 409, 1003)

    async def test_it_ends_with_its_key(self, api: Api, admin: Api, drawing: tuple[str, Producer]) -> None:
        task_id, producer = drawing
        async with following(admin, task_id) as reader:
            await reader.next()
            assert (await admin.ask("DELETE", f"/keys/{api.key_id}")).status == 200
            refused(await asyncio.wait_for(producer.asking, LIMIT), 401, 30)
            while await reader.next() != NONE:
                pass


async def test_a_bar_that_moves_costs_no_commits(api: Api) -> None:
    task_id = await api.create("a", lease=3600)
    async with following(api, task_id) as reader:
        await reader.next()
        commits = sum(api.services.board.meters.commits.counts())
        for number in range(20):
            await send(api, task_id, {"partial": f"{number}%", "stream": "stderr"})
            assert await reader.next() == bar(f"{number}%")
        assert sum(api.services.board.meters.commits.counts()) == commits


async def test_lines_that_are_stored_are_acknowledged_whatever_becomes_of_the_bar(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = await api.create("a")

    async def broken(*_: object) -> None:
        raise StoreUnavailable("the database failed")

    monkeypatch.setattr(type(api.services.store), "get_task", broken)
    assert (await send(api, task_id, {"text": "b"}, {"partial": "10%"}))["last"] == 2


async def test_it_is_told_to_who_may_see_the_task_and_taken_from_who_may_write(api: Api, admin: Api) -> None:
    task_id = await api.create()
    bob = await admin.with_key("bob")
    path, rows = f"/tasks/{task_id}/output", b'{"partial":"10%"}'
    refused(await bob.ask("POST", path, data=rows, headers={"Content-Type": NDJSON}), 404, 4)
    await api.finish(task_id)
    refused(await api.ask("POST", path, data=rows, headers={"Content-Type": NDJSON}), 409, 1003)


@pytest.mark.parametrize("row", [b'{"partial":1}', b'{"partial":"a","text":"b"}', b'{"partial":"a","stream":"x"}'])
async def test_bad_rows_are_refused_and_none_of_the_others_taken(api: Api, row: bytes) -> None:
    task_id = await api.create()
    headers = {"Content-Type": NDJSON}
    refused(await api.ask("POST", f"/tasks/{task_id}/output", data=b'{"text":"a"}\n' + row, headers=headers), 400, 87)
    assert (await api.task(task_id))["last"] == 0


async def test_partial_is_true_or_false(api: Api) -> None:
    task_id = await api.create()
    refused(await api.ask("GET", f"/tasks/{task_id}/output", format="sse", partial="much"), 400, 25)
