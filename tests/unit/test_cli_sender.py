"""The sender of ``taskserver run`` (``producer.sender``) and a server that answers anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from taskserver.client import TaskClient
from taskserver.client.answers import APPEND_CONFLICT, TASK_FINISHED
from taskserver.model import Stream, now_us
from taskserver.producer.lines import PARTIAL_AGE, LineCutter
from taskserver.producer.process import Exit
from taskserver.producer.sender import BATCH_LINES, Sender
from taskserver.producer.spool import Spool
from tests.eventually import eventually
from tests.scripted import CUT, Script, answer, refusal, scripted

ALIVE = answer({"cancel_requested": False})
ENDED = answer(
    {
        "id": "t", "name": "", "state": "failed", "finished": True, "code": 3, "error": "", "last": 3, "labels": {},
        "created_at": None, "started_at": None, "finished_at": None, "lease": 30, "cancel_requested": False,
    }
)  # fmt: skip
SECONDS = 20.0  # for what takes some milliseconds


def appended(first: int, last: int, cancel_requested: bool = False) -> web.Response:
    """The answer to an append."""
    return answer({"first": first, "last": last, "cancel_requested": cancel_requested})


@dataclass
class Sending:
    """A sender at work, and what it told."""

    sender: Sender
    spool: Spool
    script: Script
    said: list[str]
    cancels: list[None] = field(default_factory=list)

    async def to_the_end(self) -> None:
        """Say that the command has ended with 3, and wait for the sender."""
        self.spool.end()
        await asyncio.wait_for(self.sender.send_all(), SECONDS)
        await asyncio.wait_for(self.sender.finish(Exit(3, "")), SECONDS)

    def write(self, cutter: LineCutter, data: bytes) -> None:
        """As a pump does with what a command has written, some time ago."""
        records = cutter.feed(data, now_us() - PARTIAL_AGE)
        if records.count:
            self.spool.write(records.data, records.count)
        else:
            self.sender.stir()

    async def until_told(self, body: bytes) -> None:
        """Return when this has been sent."""
        await eventually(lambda: body in self.script.bodies, f"{body!r} among {self.script.bodies}")

    @property
    def appends(self) -> list[str]:
        """The queries of the appends of lines."""
        return [request.split("?")[1] for request in self.script.requests if "/output?" in request]


@asynccontextmanager
async def sending(
    folder: Path, *answers: web.Response, lease: float = 30.0, cutters: Collection[LineCutter] = ()
) -> AsyncIterator[Sending]:
    """A sender whose server has this script."""
    said: list[str] = []
    cancels: list[None] = []
    async with scripted(*answers) as script, TaskClient(script.url, "x" * 40) as client:
        sender: Sender
        spool = Spool(folder, 1 << 20, lambda: sender.wake(), said.append)
        sender = Sender(client, "t", spool, lease, lambda: cancels.append(None), said.append, cutters)
        yield Sending(sender, spool, script, said, cancels)
        spool.remove()


async def test_lines_are_sent_once_and_in_batches_then_the_end(tmp_path: Path) -> None:
    lines = BATCH_LINES + 2
    async with sending(tmp_path, ALIVE, appended(0, BATCH_LINES), appended(BATCH_LINES, lines), ENDED) as it:
        it.spool.write(b'{"text":"x"}\n' * lines, lines)
        await it.to_the_end()

    assert it.appends == ["first=0", f"first={BATCH_LINES}"]
    assert [body.count(b"\n") for body in it.script.bodies[1:3]] == [BATCH_LINES, 2]
    assert it.script.requests[0] == "POST /v1/tasks/t/heartbeat"
    assert it.script.requests[-1] == "POST /v1/tasks/t/finish"
    assert b'"code":3' in it.script.bodies[-1]
    assert (it.sender.finished, it.sender.refused, it.said) == (True, False, [])


async def test_the_same_batch_is_sent_again_until_it_is_acknowledged(tmp_path: Path) -> None:
    troubles = [CUT, refusal(503), refusal(500), refusal(507, error="disk full"), refusal(429)]
    async with sending(tmp_path, ALIVE, *troubles, appended(0, 1), appended(1, 2), CUT, ENDED) as it:
        it.spool.write(b'{"text":"one"}\n', 1)
        sender = asyncio.create_task(it.sender.send_all())
        await eventually(lambda: len(it.appends) >= 3, "the third try")
        it.spool.write(b'{"text":"two"}\n', 1)  # must not slip into the repeats
        await asyncio.wait_for(sender_done(it, sender), SECONDS)

    assert it.appends == ["first=0"] * 6 + ["first=1"]
    assert set(it.script.bodies[1:7]) == {b'{"text":"one"}\n'}
    assert it.said[1::2] == ["the server is back", "the server is back"]
    assert all("keeping the output and trying again" in said for said in it.said[0::2])


async def sender_done(it: Sending, sender: asyncio.Task[None]) -> None:
    """Bring a sender that is under way to its end."""
    it.spool.end()
    await sender
    await it.sender.finish(Exit(3, ""))


async def test_other_lines_in_the_way_are_gone_around(tmp_path: Path) -> None:
    conflict = refusal(409, APPEND_CONFLICT, "other lines stand there", {"last": 7})
    async with sending(tmp_path, ALIVE, conflict, appended(7, 8), ENDED) as it:
        it.spool.write(b'{"text":"one"}\n', 1)
        await it.to_the_end()

    assert it.appends == ["first=0", "first=7"]
    assert (it.sender.first, it.sender.finished, len(it.said)) == (8, True, 1)


@pytest.mark.parametrize(
    ("ending", "cancels", "words"),
    [
        (refusal(409, TASK_FINISHED, "ended", {"last": 0, "state": "interrupted", "code": 255}), 0, "as interrupted"),
        (refusal(409, TASK_FINISHED, "ended", {"last": 0, "state": "cancelled", "code": 130}), 1, "as cancelled"),
        (refusal(404, 4, "there is no task 't'"), 0, "has been deleted"),
    ],
)
@pytest.mark.parametrize("before", [[], [ALIVE], [ALIVE, appended(0, 1)]], ids=["heartbeat", "append", "finish"])
async def test_when_the_task_is_over_nothing_more_is_sent_or_kept(
    tmp_path: Path, before: list[web.Response], ending: web.Response, cancels: int, words: str
) -> None:
    async with sending(tmp_path, *before, ending) as it:
        it.spool.write(b'{"text":"one"}\n', 1)
        await it.to_the_end()
        it.spool.write(b'{"text":"two"}\n', 1)

        assert len(it.script.requests) == len(before) + 1
        assert (it.sender.over, it.sender.refused, it.sender.finished) == (True, True, False)
        assert (it.spool.unsent_lines, len(it.cancels), len(it.said)) == (0, cancels, 1)
        assert words in it.said[0]


@pytest.mark.parametrize("status", [400, 401, 403, 413])
async def test_when_the_server_refuses_the_rest_is_kept(tmp_path: Path, status: int) -> None:
    async with sending(tmp_path, ALIVE, refusal(status, error="because")) as it:
        it.spool.write(b'{"text":"one"}\n', 1)
        await it.to_the_end()

        assert len(it.script.requests) == 2
        assert (it.sender.over, it.sender.refused, it.spool.unsent_lines) == (False, True, 1)
        assert it.said == ["the server refuses the output: because; the rest of it is kept here"]


async def test_a_quiet_sender_gives_signs_of_life_and_hears_a_cancel(tmp_path: Path) -> None:
    async with sending(tmp_path, ALIVE, ALIVE, ALIVE, answer({"cancel_requested": True}), lease=0.1) as it:
        sender = asyncio.create_task(it.sender.send_all())
        await eventually(lambda: bool(it.cancels), "the cancel")
        sender.cancel()

    assert it.script.requests[:4] == ["POST /v1/tasks/t/heartbeat"] * 4


async def test_an_append_hears_a_cancel_too(tmp_path: Path) -> None:
    async with sending(tmp_path, ALIVE, appended(0, 1, cancel_requested=True), ENDED) as it:
        it.spool.write(b'{"text":"one"}\n', 1)
        await it.to_the_end()

    assert len(it.cancels) == 1


async def test_an_unfinished_line_is_told_as_it_changes_and_with_the_lines_that_come(tmp_path: Path) -> None:
    out, err = LineCutter(Stream.STDOUT), LineCutter(Stream.STDERR)
    bar = b'{"partial":"%b","stream":"stderr"}\n'
    async with sending(tmp_path, appended(0, 0), cutters=[out, err]) as it:
        sender = asyncio.create_task(it.sender.send_all())
        it.write(err, b"\r10%")
        await it.until_told(bar % b"10%")
        it.write(err, b"\r20%")
        await it.until_told(bar % b"20%")
        it.write(out, b"a line\n")
        await eventually(lambda: it.appends == ["first=0"], "the line")
        assert it.script.bodies[-1].endswith(b'"text":"a line"}\n' + bar % b"20%")
        it.write(err, b"\r    \r")
        await it.until_told(b'{"partial":""}\n')
        it.spool.end()
        await asyncio.wait_for(sender, SECONDS)
    assert it.script.requests[0] == "POST /v1/tasks/t/heartbeat"
    assert it.script.requests[1] == "POST /v1/tasks/t/output", "without `first`, since nothing is added"
    assert it.said == []


async def test_what_stays_unfinished_is_told_again_with_each_sign_of_life(tmp_path: Path) -> None:
    out = LineCutter(Stream.STDOUT)
    async with sending(tmp_path, appended(0, 0), cutters=[out], lease=0.3) as it:
        sender = asyncio.create_task(it.sender.send_all())
        it.write(out, b"Password: ")
        told = b'{"partial":"Password: ","stream":"stdout"}\n'
        await eventually(lambda: it.script.bodies.count(told) >= 3, "the third time")
        sender.cancel()


@pytest.mark.parametrize(
    ("ending", "cancels"),
    [
        (appended(0, 0, cancel_requested=True), 1),
        (refusal(409, TASK_FINISHED, "ended", {"last": 0, "state": "cancelled", "code": 130}), 1),
        (refusal(404, 4, "there is no task 't'"), 0),
    ],
)
async def test_who_tells_it_hears_of_the_end(tmp_path: Path, ending: web.Response, cancels: int) -> None:
    out = LineCutter(Stream.STDOUT)
    async with sending(tmp_path, ALIVE, ending, cutters=[out]) as it:
        it.write(out, b"10%")
        sender = asyncio.create_task(it.sender.send_all())
        await eventually(lambda: bool(it.cancels) or it.sender.over, "the word")
        sender.cancel()
    assert len(it.cancels) == cancels


async def test_a_bar_is_never_worth_a_line(tmp_path: Path) -> None:
    """To a server that knows nothing of unfinished lines none is told any more."""
    out, err = LineCutter(Stream.STDOUT), LineCutter(Stream.STDERR)
    for alone in (True, False):
        async with sending(
            tmp_path, ALIVE, refusal(400, 87, "must look like"), appended(0, 1), cutters=[out, err]
        ) as it:
            sender = asyncio.create_task(it.sender.send_all())
            it.write(err, b"\r10%")
            if alone:
                await eventually(lambda: len(it.script.bodies) == 2, "the bar")
            it.write(out, b"a line\n")
            await eventually(lambda: it.spool.unsent_lines == 0, "the line")
            assert b"partial" not in it.script.bodies[-1]
            it.spool.end()
            await asyncio.wait_for(sender, SECONDS)
            assert (it.said, it.sender.refused) == ([], False)


async def test_while_the_server_is_away_nothing_waits_for_a_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskserver.producer.sender.PARTIAL_RETRY", 0.0)
    err = LineCutter(Stream.STDERR)
    async with sending(tmp_path, ALIVE, refusal(503), CUT, appended(0, 0), cutters=[err]) as it:
        sender = asyncio.create_task(it.sender.send_all())
        it.write(err, b"\r10%")
        await eventually(lambda: len(it.script.bodies) >= 3, "the second try")
        it.write(err, b"\r20%")
        await it.until_told(b'{"partial":"20%","stream":"stderr"}\n')
        sender.cancel()
    assert it.said == [], "no output is being kept for its sake"


async def test_behind_a_part_of_what_there_is_no_bar_is_told(tmp_path: Path) -> None:
    err = LineCutter(Stream.STDERR)
    async with sending(
        tmp_path, ALIVE, appended(0, BATCH_LINES), appended(BATCH_LINES, BATCH_LINES + 1), cutters=[err]
    ) as it:
        it.spool.write(b'{"text":"x"}\n' * (BATCH_LINES + 1), BATCH_LINES + 1)
        it.write(err, b"\r10%")
        sender = asyncio.create_task(it.sender.send_all())
        await eventually(lambda: it.spool.unsent_lines == 0, "the lines")
        assert b"partial" not in it.script.bodies[1]
        assert b"partial" in it.script.bodies[2]
        sender.cancel()
