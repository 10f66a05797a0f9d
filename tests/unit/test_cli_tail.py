"""What ``taskserver run`` does when the task may have no more lines: the head stands, then a mark, then the end."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from taskserver.client.answers import OUTPUT_FULL
from taskserver.producer import tail as tail_module
from taskserver.producer.advice import Left, advice
from taskserver.producer.process import Exit
from taskserver.producer.sender import BATCH_LINES
from taskserver.producer.spool import Batch
from taskserver.producer.tail import Tail
from tests.eventually import eventually
from tests.scripted import CUT, refusal
from tests.unit.test_cli_sender import ALIVE, ENDED, SECONDS, appended, sending


def records(first: int, end: int) -> bytes:
    return b"".join(b'{"text":"line %d"}\n' % number for number in range(first, end))


def batch(first: int, end: int) -> Batch:
    return Batch(end - first, records(first, end))


def texts(data: bytes) -> list[str]:
    return [json.loads(record)["text"] for record in data.splitlines()]


class TestTail:
    def test_what_there_is_room_for_is_all_kept(self) -> None:
        tail = Tail(10)
        tail.add(batch(0, 4))
        tail.add(batch(4, 10))
        assert tail.end() == batch(0, 10)

    def test_of_more_the_newest_are_kept_behind_a_mark(self) -> None:
        tail = Tail(4)
        for first in range(0, 100, 5):
            tail.add(batch(first, first + 5))
        end = tail.end()
        assert texts(end.data) == ["[taskserver: 97 lines omitted]", "line 97", "line 98", "line 99"]
        assert end.lines == 4

    @pytest.mark.parametrize("room", [0, 1])
    def test_where_there_is_hardly_any_room(self, room: int) -> None:
        tail = Tail(room)
        tail.add(batch(0, 7))
        assert texts(tail.end().data) == ["[taskserver: 7 lines omitted]"][:room]

    def test_nothing_came(self) -> None:
        assert Tail(3).end() == Batch(0, b"")

    def test_it_has_a_bound_in_bytes_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tail_module, "TAIL_BYTES", 50)
        tail = Tail(1000)
        tail.add(batch(0, 9))
        assert texts(tail.end().data) == ["[taskserver: 7 lines omitted]", "line 7", "line 8"]
        tail = Tail(1000)
        tail.add(Batch(2, b'{"text":"x"}\n{"text":"%b"}\n' % (b"y" * 100)))
        assert texts(tail.end().data) == ["[taskserver: 1 line omitted]", "y" * 100]


def full(last: int, limit: int, reserve: int) -> dict[str, int]:
    return {"last": last, "limit": limit, "reserve": reserve}


async def test_the_head_is_filled_and_the_end_comes_behind_a_mark(tmp_path: Path) -> None:
    answers = (ALIVE, refusal(413, OUTPUT_FULL, "full", full(0, 30, 10)), appended(0, 30), appended(30, 40), ENDED)
    async with sending(tmp_path, *answers) as it:
        it.spool.write(records(0, 100), 100)
        await it.to_the_end()

    assert it.appends == ["first=0", "first=0", "first=30&closing=true"]
    assert texts(it.script.bodies[2]) == [f"line {number}" for number in range(30)]
    end = [f"line {number}" for number in range(91, 100)]
    assert texts(it.script.bodies[3]) == ["[taskserver: 61 lines omitted]", *end]
    assert it.script.requests[-1] == "POST /v1/tasks/t/finish"
    assert (it.sender.finished, it.sender.refused, len(it.said)) == (True, False, 1)
    assert "at most 40 lines" in it.said[0]


async def test_where_the_end_fits_there_is_no_mark(tmp_path: Path) -> None:
    answers = (ALIVE, appended(0, 30), refusal(413, OUTPUT_FULL, "full", full(30, 30, 10)), appended(30, 40), ENDED)
    async with sending(tmp_path, *answers) as it:
        it.spool.write(records(0, 30), 30)
        sender = asyncio.create_task(it.sender.send_all())
        await eventually(lambda: len(it.appends) == 1, "the head")
        it.spool.write(records(30, 40), 10)
        it.spool.end()
        await asyncio.wait_for(sender, SECONDS)
        await it.to_the_end()

    assert it.script.bodies[3] == records(30, 40)
    assert it.sender.finished


async def test_a_command_that_prints_on_and_on_still_gives_signs_of_life_and_is_heard(tmp_path: Path) -> None:
    answers = (ALIVE, refusal(413, OUTPUT_FULL, "full", full(0, 0, 10)), ALIVE)
    async with sending(tmp_path, *answers, lease=0.1) as it:
        it.spool.write(records(0, BATCH_LINES), BATCH_LINES)
        sender = asyncio.create_task(it.sender.send_all())
        for first in range(BATCH_LINES, 100_000, BATCH_LINES):
            await asyncio.to_thread(it.spool.write, records(first, first + BATCH_LINES), BATCH_LINES)
        await eventually(lambda: len(it.script.requests) > 5, "heartbeats")
        await eventually(lambda: it.spool.unsent_lines == 0, "an empty spool")
        sender.cancel()
    assert set(it.script.requests[2:]) == {"POST /v1/tasks/t/heartbeat"}


async def test_when_even_the_end_finds_no_room_the_task_is_ended_all_the_same(tmp_path: Path) -> None:
    answers = (ALIVE, *(refusal(413, OUTPUT_FULL, "full", full(5, limit, 10 - limit)) for limit in (0, 10)), ENDED)
    async with sending(tmp_path, *answers) as it:
        it.spool.write(records(0, 100), 100)
        await it.to_the_end()

    assert it.appends == ["first=0", "first=0&closing=true"]
    assert (it.sender.finished, it.spool.unsent_lines, len(it.said)) == (True, 0, 2)


async def test_a_server_that_contradicts_itself_is_not_asked_for_ever(tmp_path: Path) -> None:
    async with sending(tmp_path, ALIVE, refusal(413, OUTPUT_FULL, "full", full(0, 1000, 10))) as it:
        it.spool.write(records(0, 100), 100)
        await it.to_the_end()

        assert (it.sender.refused, it.spool.unsent_lines, len(it.appends)) == (True, 100, 1)


async def test_a_server_that_stays_away_at_the_end_leaves_mark_and_end_in_the_file(tmp_path: Path) -> None:
    async with sending(tmp_path, ALIVE, refusal(413, OUTPUT_FULL, "full", full(0, 0, 10)), CUT) as it:
        it.spool.write(records(0, 100), 100)
        it.spool.end()
        sender = asyncio.create_task(it.sender.send_all())
        await eventually(lambda: len(it.appends) > 1, "the end is sent")
        sender.cancel()
        it.sender.settle()  # a repeat does nothing
        assert it.spool.unsent_lines == 10
        assert texts(it.spool.path.read_bytes())[0] == "[taskserver: 91 lines omitted]"
        left = Left(it.spool.path, it.sender.first, 10, it.sender.unanswered, it.sender.closing)
        said = advice("http://server/v1/tasks/t", left, Exit(0, ""))
        assert "first=0&closing=true" in said[2]


async def test_lines_that_were_not_looked_at_yet_count_too(tmp_path: Path) -> None:
    async with sending(tmp_path, ALIVE, refusal(413, OUTPUT_FULL, "full", full(0, 0, 10)), CUT, lease=0.01) as it:
        it.spool.write(records(0, 50), 50)
        sender = asyncio.create_task(it.sender.send_all())
        await eventually(lambda: it.sender.away, "a heartbeat without an answer")
        it.spool.write(records(50, 100), 50)
        sender.cancel()
        it.sender.settle()
        assert texts(it.spool.path.read_bytes())[:2] == ["[taskserver: 91 lines omitted]", "line 91"]
