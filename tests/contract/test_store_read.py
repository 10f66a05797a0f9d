"""Store: reading output, and sealing it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from taskserver.config import MAX_LINE_NUMBER
from taskserver.encoding import encode_records
from taskserver.model import Stream, Task
from taskserver.store import Store
from tests.contract.helpers import (
    NOW,
    PAGE,
    SECOND,
    SUCCESS,
    Opener,
    chunks,
    create,
    finished,
    lines,
    numbered,
    sides,
    texts,
)

BIG = 300_000


@pytest.fixture(params=[False, True], ids=["as appended", "sealed"])
async def task(request: pytest.FixtureRequest, store: Store) -> Task:
    """A finished task with nine lines from four appends, between two others."""
    await finished(store, "before", "x", "y")
    await create(store)
    done = 0
    for count in (3, 1, 0, 4):
        await store.append("build", lines(*numbered(done, done + count)), None, NOW)
        done += count
    task = await store.finish("build", SUCCESS, NOW, lines("line 8"))
    await finished(store, "after", "z")
    if request.param:
        await store.seal(task.log)
    return task


class TestRead:
    async def test_gives_exactly_the_lines_asked_for(self, store: Store, task: Task) -> None:
        for first in range(11):
            for end in range(first, 12):
                assert await texts(store, task.log, first, end) == numbered(first, min(end, 9)), (first, end)

    async def test_goes_on_where_a_page_ended(self, store: Store, task: Task) -> None:
        for first in range(9):
            for max_bytes in (1, 30, 31, 60):
                assert await texts(store, task.log, first, 8, max_bytes) == numbered(first, 8), (first, max_bytes)

    @pytest.mark.parametrize(
        "max_bytes",
        [
            1,
            pytest.param(
                0,
            ),
        ],
    )
    async def test_gives_at_least_one_chunk_however_small_the_page(
        self, store: Store, task: Task, max_bytes: int
    ) -> None:
        (chunk,) = await store.read(task.log, 1, 8, max_bytes)
        assert chunk.first == 1

    async def test_beyond_the_end_is_empty(self, store: Store, task: Task) -> None:
        for first in (9, 10, 1000, MAX_LINE_NUMBER - 1):
            assert await store.read(task.log, first, MAX_LINE_NUMBER, PAGE) == []

    async def test_of_no_lines_is_empty(self, store: Store, task: Task) -> None:
        for first in (0, 4, 9):
            assert await store.read(task.log, first, first, PAGE) == []

    async def test_of_a_task_without_output_or_an_unknown_log_is_empty(self, store: Store, task: Task) -> None:
        empty = await create(store, "empty")
        assert await store.read(empty.log, 0, 9, PAGE) == []
        assert await store.read(empty.log + 1, 0, 9, PAGE) == []

    async def test_of_a_deleted_task_is_empty_from_then_on(self, store: Store, task: Task) -> None:
        (chunk,) = await store.read(task.log, 0, 9, 1)
        await store.delete_task("build")
        assert await store.read(task.log, chunk.end, 9, PAGE) == []
        assert await store.read(task.log, 0, 9, PAGE) == []

    async def test_gives_time_and_stream_of_just_these_lines(self, store: Store) -> None:
        task = await create(store)
        records = [(f"{number}", NOW + number, Stream(number % 2)) for number in range(9)]
        await store.append("build", encode_records(records[:4]), None, NOW)
        await store.append("build", encode_records(records[4:]), None, NOW)
        for first in range(9):
            for end in range(first, 10):
                assert await sides(store, task.log, first, end) == [
                    (time, stream) for _, time, stream in records[first:end]
                ]

    async def test_sees_what_was_acknowledged_at_once(self, store: Store) -> None:
        task = await create(store)
        for number in range(30):
            await store.append("build", lines(f"line {number}"), None, NOW)
            assert await texts(store, task.log, number) == [f"line {number}"]
            assert (await store.get_task("build")).last == number + 1


class TestUnsealed:
    async def test_lists_what_has_ended_the_oldest_first(self, store: Store) -> None:
        await create(store, "queued")
        await create(store, "running")
        await store.append("running", lines("x"), None, NOW)
        await finished(store, "empty")
        await create(store, "cancelled")
        await store.request_cancel("cancelled", NOW)
        await create(store, "lost", lease=1)
        await store.expire_leases(NOW + 2 * SECOND)
        await finished(store, "done", "x")
        assert [task.id for task in await store.unsealed(10)] == ["empty", "cancelled", "lost", "done"]
        assert [task.id for task in await store.unsealed(2)] == ["empty", "cancelled"]

    async def test_leaves_out_results(self, store: Store) -> None:
        await create(store)
        task = await store.finish("build", replace(SUCCESS, result=b'{"type":"x","data":1}'), NOW)
        assert await store.unsealed(1) == [replace(task, result=None)]

    async def test_sealed_and_deleted_tasks_are_gone_from_it(self, store: Store) -> None:
        task = await finished(store, "build", "x")
        await finished(store, "deleted", "x")
        await finished(store, "left", "x")
        await store.seal(task.log)
        await store.delete_task("deleted")
        assert [task.id for task in await store.unsealed(10)] == ["left"]


class TestSeal:
    async def test_keeps_content_numbers_times_and_the_task(self, store: Store) -> None:
        await create(store)
        records = [(f"line {number}", NOW + number, Stream(number // 5 % 2)) for number in range(1000)]
        for first in range(0, 1000, 10):
            await store.append("build", encode_records(records[first : first + 10]), first, NOW)
        task = await store.finish("build", SUCCESS, NOW)
        many = await chunks(store, task.log)
        await store.seal(task.log)
        few = await chunks(store, task.log)
        assert len(few) < len(many)
        assert await texts(store, task.log) == [text for text, _, _ in records]
        assert await sides(store, task.log) == [(time, stream) for _, time, stream in records]
        assert await store.get_task("build") == task

    async def test_a_repeat_does_nothing(self, store: Store) -> None:
        task = await finished(store, "build", *numbered(0, 100))
        await store.seal(task.log)
        sealed = await chunks(store, task.log)
        await store.seal(task.log)
        assert await chunks(store, task.log) == sealed
        assert await store.unsealed(1) == []

    async def test_of_a_log_that_is_gone_does_nothing(self, store: Store) -> None:
        task = await finished(store, "build", "x")
        await store.delete_task("build")
        await store.seal(task.log)
        await store.seal(task.log + 7)
        assert await texts(store, task.log) == []

    async def test_leaves_other_logs_alone(self, store: Store) -> None:
        before = await finished(store, "before", "a", "b")
        task = await finished(store, "build", "c")
        after = await finished(store, "after", "d", "e")
        await store.seal(task.log)
        assert await texts(store, before.log) == ["a", "b"]
        assert await texts(store, after.log) == ["d", "e"]

    async def test_survives_a_restart(self, opener: Opener[Store], tmp_path: Path) -> None:
        before = await opener(tmp_path)
        task = await finished(before, "build", *numbered(0, 100))
        await before.seal(task.log)
        await before.close()
        after = await opener(tmp_path)
        try:
            assert await after.unsealed(1) == []
            assert await texts(after, task.log) == numbered(0, 100)
        finally:
            await after.close()


class TestBigOutput:
    @pytest.fixture
    async def big(self, store: Store) -> Task:
        """A finished task of 300,000 lines, many megabytes in appends of very different size."""
        await create(store)
        first = 0
        for count in [1] * 50 + [1000] * 50 + [49_950, 200_000]:
            batch = [f"line {number} {'.' * (number % 60)}" for number in range(first, first + count)]
            await store.append("build", lines(*batch), first, NOW)
            first += count
        assert first == BIG
        return await store.finish("build", SUCCESS, NOW)

    async def test_is_read_in_bounded_pages_and_sealed_under_its_readers(self, store: Store, big: Task) -> None:
        expected = [f"line {number} {'.' * (number % 60)}" for number in range(BIG)]
        readers = [asyncio.create_task(texts(store, big.log, first, BIG, 512 * 1024)) for first in (0, 7, 200_000)]
        await store.seal(big.log)
        for first, reader in zip((0, 7, 200_000), readers, strict=True):
            assert await reader == expected[first:]

        first = 0
        while page := await store.read(big.log, first, BIG, PAGE):
            assert sum(len(chunk.payload) for chunk in page[:-1]) < PAGE
            assert max(len(chunk.payload) for chunk in page) < 4 * PAGE
            first = page[-1].end
        assert first == BIG
        assert await texts(store, big.log) == expected

    async def test_any_part_of_it_can_be_had(self, store: Store, big: Task) -> None:
        await store.seal(big.log)
        marks = [0, 1, 49, 50, 51, 1049, 1050, 50_049, 50_050, 99_999, 100_000, 123_456, BIG - 1, BIG]
        for first, end in [*pairwise(marks), (BIG - 1, BIG + 1), (0, 2)]:
            found = await chunks(store, big.log, first, min(end, first + 100))
            assert found[0].first == first
            assert found[-1].end == min(end, first + 100, BIG)

    async def test_a_deletion_during_the_sealing_wins(self, store: Store, big: Task) -> None:
        sealing = asyncio.create_task(store.seal(big.log))
        await asyncio.gather(*(store.ping() for _ in range(5)))
        await store.delete_task("build")
        await sealing
        assert await texts(store, big.log) == []
        assert await store.unsealed(1) == []

    @pytest.mark.parametrize("pings", [1, 20, 60])
    async def test_a_sealing_that_is_broken_off_leaves_it_whole(self, store: Store, big: Task, pings: int) -> None:
        sealing = asyncio.create_task(store.seal(big.log))
        for _ in range(pings):
            await store.ping()
        sealing.cancel()
        await asyncio.gather(sealing, return_exceptions=True)
        for _ in range(2):
            found = await chunks(store, big.log)
            assert sum(chunk.count for chunk in found) == BIG
            await store.seal(big.log)
        assert (await texts(store, big.log, BIG - 2))[-1].startswith(f"line {BIG - 1} ")


async def test_sealing_twice_at_once_keeps_every_line(store: Store) -> None:
    """Several processes may seal what another one left; so it is tried with them at many distances."""
    count, step = 40_000, 5000
    for pings in range(1, 13):
        task = await create(store, f"t{pings}")
        for first in range(0, count, step):
            batch = [f"{number:06d} ".ljust(200, ".") for number in range(first, first + step)]
            await store.append(task.id, lines(*batch), first, NOW)
        await store.finish(task.id, SUCCESS, NOW)
        sealing = []
        for _ in range(4):
            sealing.append(asyncio.create_task(store.seal(task.log)))
            for _ in range(pings):
                await store.ping()
        await asyncio.gather(*sealing)
        assert sum(chunk.count for chunk in await chunks(store, task.log)) == count
        await store.delete_task(task.id)
