"""PROTOCOLS.md, A4: live bodies, whose lines become readable as they arrive."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskserver.config import Limits, Settings, Timing
from taskserver.model import Scope
from tests.api.conftest import Serve
from tests.api.conversation import NDJSON, Answer, Api, refused
from tests.eventually import eventually


class Producer:
    """A request whose body is written piece by piece while the test goes on."""

    def __init__(
        self, api: Api, task_id: str, content_type: str | None = None, method: str = "PUT", **query: int
    ) -> None:
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        headers = {} if content_type is None else {"Content-Type": content_type}
        path = f"/tasks/{task_id}/output"
        self.asking = api.begin(method, path, data=self._body(), headers=headers, **query)

    async def __aenter__(self) -> Producer:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.leave()

    async def _body(self) -> AsyncIterator[bytes]:
        while (piece := await self._pieces.get()) is not None:
            yield piece

    def write(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._pieces.put_nowait(piece)

    async def end(self) -> Answer:
        """End the body; the answer."""
        self._pieces.put_nowait(None)
        return await self.asking

    async def leave(self) -> None:
        """Close the connection in the middle of the body."""
        self.asking.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await self.asking


async def lines_from(api: Api, task_id: str, first: int, count: int) -> list[str]:
    """The lines from ``first`` on, once there are so many."""
    found: list[str] = []
    while len(found) < count:
        page = await api.output(task_id, first=first + len(found), wait=20)
        assert page["output"], "nothing came"
        found += page["output"]
    return found


async def started(api: Api, task_id: str) -> None:
    """Return once the producer has been heard."""
    for _ in range(10_000):
        if (await api.task(task_id))["state"] != "queued":
            return
    raise AssertionError("the producer was not heard")


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_lines_can_be_read_before_the_body_ends(api: Api, method: str) -> None:
    task_id = await api.create()
    async with Producer(api, task_id, method=method) as producer:
        producer.write(b"one\ntwo\nth")
        assert await lines_from(api, task_id, 0, 2) == ["one", "two"]
        producer.write(b"ree\nfour")
        assert await lines_from(api, task_id, 2, 1) == ["three"]
        assert not producer.asking.done()
        answer = await producer.end()
    assert answer.json == {"first": 0, "last": 4, "cancel_requested": False}
    assert await api.lines(task_id) == ["one", "two", "three", "four"]


async def test_ndjson_is_live_too(api: Api) -> None:
    task_id = await api.create()
    async with Producer(api, task_id, NDJSON) as producer:
        producer.write(b'{"text": "one"}\n{"text"')
        assert await lines_from(api, task_id, 0, 1) == ["one"]
        producer.write(b': "two"}')
        answer = await producer.end()
    assert (answer.json["last"], await api.lines(task_id)) == (2, ["one", "two"])


async def test_json_of_unknown_length_is_read_whole(api: Api) -> None:
    task_id = await api.create()
    async with Producer(api, task_id, "application/json") as producer:
        producer.write(b'{"lines": ["a"', b', "b"]}')
        answer = await producer.end()
    assert (answer.json["last"], await api.lines(task_id)) == (2, ["a", "b"])


async def test_its_beginning_starts_the_task(api: Api) -> None:
    task_id = await api.create()
    async with Producer(api, task_id) as producer:
        producer.write(b"no newline yet")
        await started(api, task_id)
        assert not producer.asking.done()
        assert (await producer.end()).json["last"] == 1


@pytest.mark.parametrize(
    "pieces", [[], [b""], [b"\n"], [b"a", b"\r", b"\n"], [b"a\r", b"\nb"], ["ü".encode()[:1], "ü".encode()[1:]]]
)
async def test_where_a_body_is_cut_into_pieces_does_not_matter(api: Api, pieces: list[bytes]) -> None:
    whole, cut = await api.create(), await api.create()
    await api.ask("POST", f"/tasks/{whole}/output", data=b"".join(pieces))
    async with Producer(api, cut) as producer:
        producer.write(*filter(None, pieces))
        assert (await producer.end()).status == 200
    assert await api.lines(cut) == await api.lines(whole)


@given(
    pieces=st.lists(
        st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b"\xc3", b"\xbc", b"\xff"]), max_size=6).map(b"".join),
        max_size=8,
    )
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_pieces_give_the_lines_of_the_whole(api: Api, pieces: list[bytes]) -> None:
    whole, cut = await api.create(), await api.create()
    await api.ask("POST", f"/tasks/{whole}/output", data=b"".join(pieces))

    async def one_by_one() -> AsyncIterator[bytes]:
        for piece in filter(None, pieces):
            yield piece
            await asyncio.sleep(0)  # so that they may arrive apart

    answer = await api.ask("PUT", f"/tasks/{cut}/output", data=one_by_one())
    assert answer.status == 200
    assert await api.lines(cut) == await api.lines(whole)
    assert answer.json["last"] == len(await api.lines(cut))


async def test_first_makes_a_live_retry_safe(api: Api) -> None:
    task_id = await api.create("zero")
    for _ in range(2):
        async with Producer(api, task_id, first=1) as producer:
            producer.write(b"one\ntwo\n")
            answer = await producer.end()
        assert answer.json == {"first": 1, "last": 3, "cancel_requested": False}
    async with Producer(api, task_id, first=1) as producer:
        producer.write(b"one\n")
        await eventually(lambda: not producer._pieces.qsize())
        producer.write(b"other\n")
        assert refused(await producer.end(), 409, 1002) == {"last": 3}
    assert await api.lines(task_id) == ["zero", "one", "two"]


async def test_a_wrong_first_is_refused_before_a_line_is_complete(api: Api) -> None:
    task_id = await api.create("a")
    async with Producer(api, task_id, first=7) as producer:
        producer.write(b"half a li")
        assert refused(await producer.asking, 409, 1002) == {"last": 1}


async def test_an_unknown_task_is_refused_before_a_line_is_complete(admin: Api, api: Api) -> None:
    bob = await admin.with_key("bob")
    for client, task_id in ((api, "none"), (bob, await api.create())):
        async with Producer(client, task_id) as producer:
            producer.write(b"half a li")
            refused(await producer.asking, 404, 4)


async def test_an_ended_task_is_refused_before_a_line_is_complete(api: Api) -> None:
    async with Producer(api, await api.done("a")) as producer:
        producer.write(b"half a li")
        assert refused(await producer.asking, 409, 1003) == {"last": 1, "state": "success", "code": 0}


async def test_what_was_appended_stays_when_the_task_ends_meanwhile(api: Api) -> None:
    task_id = await api.create()
    async with Producer(api, task_id) as producer:
        producer.write(b"one\n")
        await lines_from(api, task_id, 0, 1)
        await api.finish(task_id)
        producer.write(b"two\n")
        payload = refused(await producer.asking, 409, 1003)
    assert payload == {"last": 1, "state": "success", "code": 0}
    assert await api.lines(task_id) == ["one"]


async def test_a_deletion_meanwhile_is_told(api: Api) -> None:
    task_id = await api.create()
    async with Producer(api, task_id) as producer:
        producer.write(b"one\n")
        await lines_from(api, task_id, 0, 1)
        await api.finish(task_id)
        await api.delete(task_id)
        producer.write(b"two\n")
        refused(await producer.asking, 404, 4)


async def test_a_revoked_key_is_told_with_the_next_line(admin: Api, api: Api) -> None:
    task_id = await api.create()
    async with Producer(api, task_id) as producer:
        producer.write(b"one\n")
        await lines_from(api, task_id, 0, 1)
        await admin.json("DELETE", "/keys/ann")
        producer.write(b"two\n")
        assert refused(await producer.asking, 401, 30) == {"last": 1}
    assert await admin.lines(task_id) == ["one"]


async def test_a_cancel_is_told_at_the_end(api: Api) -> None:
    task_id = await api.create()
    async with Producer(api, task_id) as producer:
        producer.write(b"one\n")
        await lines_from(api, task_id, 0, 1)
        await api.cancel(task_id)
        producer.write(b"two\n")
        assert (await producer.end()).json == {"first": 0, "last": 2, "cancel_requested": True}


async def test_a_producer_that_vanishes_leaves_whole_lines_only(api: Api) -> None:
    task_id = await api.create()
    async with Producer(api, task_id) as producer:
        producer.write(b"one\ntwo\nhalf a li")
        await lines_from(api, task_id, 0, 2)
        await producer.leave()
    await api.append(task_id, "next")
    assert await api.lines(task_id) == ["one", "two", "next"]


@pytest.mark.parametrize(
    ("content_type", "good", "bad", "status", "code"),
    [
        (None, b"good\n", b"x" * 11 + b"\n", 413, 1010),
        (None, b"good\n", b"x" * 11, 413, 1010),
        (NDJSON, b'{"text": "good"}\n', b'{"text": "xxxxxxxxxxx"}\n', 413, 1010),
        (NDJSON, b'{"text": "good"}\n', b"{broken}\n", 400, 121),
        (NDJSON, b'{"text": "good"}\n', b'{"test": "x"}\n', 400, 87),
    ],
)
async def test_a_bad_line_ends_it_and_says_where_the_output_ends(
    serve: Serve, content_type: str | None, good: bytes, bad: bytes, status: int, code: int
) -> None:
    api = await serve(Settings(limits=Limits(line_bytes=10)))
    task_id = await api.create("before")
    async with Producer(api, task_id, content_type) as producer:
        producer.write(good)
        await lines_from(api, task_id, 1, 1)
        producer.write(bad)
        assert refused(await producer.asking, status, code) == {"last": 2}
    assert await api.lines(task_id) == ["before", "good"]


async def test_a_row_may_be_longer_than_its_line(serve: Serve) -> None:
    api = await serve(Settings(limits=Limits(line_bytes=10)))
    task_id = await api.create()
    async with Producer(api, task_id, NDJSON) as producer:
        producer.write(b'{"text": "0123')
        await started(api, task_id)
        producer.write(b'456789"}\n')
        assert (await producer.end()).status == 200


async def test_a_line_at_the_limit_may_come_in_pieces(serve: Serve) -> None:
    api = await serve(Settings(limits=Limits(line_bytes=10)))
    task_id = await api.create()
    async with Producer(api, task_id) as producer:
        producer.write(*(b"%d" % digit for digit in range(10)), b"\n")
        assert (await producer.end()).status == 200
    assert await api.lines(task_id) == ["0123456789"]


async def test_it_has_no_bound(serve: Serve) -> None:
    api = await serve(Settings(limits=Limits(line_bytes=100, body_bytes=1000)))
    task_id = await api.create()
    piece = b"".join(b"%099d\n" % number for number in range(1000))
    async with Producer(api, task_id) as producer:
        producer.write(*[piece] * 50)
        assert (await producer.end()).json["last"] == 50_000
    assert (await api.task(task_id, first=49_999))["output"] == [f"{999:099d}"]


async def test_while_it_is_open_the_lease_is_renewed(serve: Serve) -> None:
    api = await serve(Settings(timing=Timing(reaper=0.02, deaf=0.3)))  # a server that stood still loses nobody
    task_id, other = await api.create(lease=1), await api.create(lease=2)
    async with Producer(api, task_id) as producer:
        producer.write(b"one\n")
        # The other task's lease is the longer one, and it runs out meanwhile.
        assert (await api.task(other, wait=20))["state"] == "interrupted"
        assert (await api.task(task_id))["state"] == "running"
        assert (await producer.end()).status == 200
    assert (await api.task(task_id, wait=20))["state"] == "interrupted"


async def test_a_quiet_body_needs_no_more_than_the_right_to_write(admin: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskserver.api.tasks.livebody.LOOK", 0.01)
    writer = await admin.with_key("writer", Scope.WRITE)
    task_id = await writer.create()
    looks: list[str] = []
    own = admin.services.tasks.own

    async def counted(caller: Any, task: str) -> Any:
        looks.append(task)
        return await own(caller, task)

    monkeypatch.setattr(admin.services.tasks, "own", counted)
    async with Producer(writer, task_id) as producer:
        producer.write(b"one\n")
        await eventually(lambda: len(looks) > 10)
        assert (await producer.end()).json["last"] == 1


async def test_a_quiet_body_learns_that_its_task_has_ended(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskserver.api.tasks.livebody.LOOK", 0.05)
    api = await serve(Settings())
    task_id = await api.create()
    async with Producer(api, task_id) as producer:
        producer.write(b"one\n")
        await lines_from(api, task_id, 0, 1)
        await api.finish(task_id)
        refused(await producer.asking, 409, 1003)


async def test_many_at_once_on_one_task_keep_their_lines_whole_and_in_order(api: Api) -> None:
    task_id = await api.create()

    async def produce(name: str) -> Any:
        async def body() -> AsyncIterator[bytes]:
            for number in range(100):
                yield f"{name} {number}\n".encode()
                await asyncio.sleep(0)

        return (await api.ask("PUT", f"/tasks/{task_id}/output", data=body())).status

    assert await asyncio.gather(*map(produce, "abcd")) == [200] * 4
    output = await api.lines(task_id)
    assert len(output) == 400
    for name in "abcd":
        assert [line for line in output if line[0] == name] == [f"{name} {number}" for number in range(100)]


async def test_chunks_that_are_no_chunks_are_a_bad_request(api: Api) -> None:
    task_id = await api.create()
    head = "PUT /v1/tasks/{}/output HTTP/1.1\r\nHost: x\r\nAuthorization: Key {}\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = await api.raw(head.format(task_id, api.key).encode() + b"4\r\none\n\r\nnonsense\r\n")
    assert answer.split()[1] == b"400"  # from the parser, which knows no rooms
