"""LiveLogs: what is kept in memory of what changes now, what gives way, and reads that commits overtake."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskserver.config import Memory
from taskserver.encoding import cut, decode_texts, encode_lines
from taskserver.errors import StoreUnavailable, TaskNotFound
from taskserver.live import CHUNK_COST, ENTRY_COST, Live, LiveLogs
from taskserver.model import Chunk, Task, TaskState
from taskserver.store import Store
from tests.eventually import eventually

ROOMY = Memory()

# One line of these takes 100 bytes of payload and 8 of side, and its chunk CHUNK_COST on top.
LINE = "x" * 98
COST = 108 + CHUNK_COST

Logs = LiveLogs[str, Task]


def task(last: int = 0, task_id: str = "build", log: int = 1, **more: object) -> Task:
    return replace(Task(task_id, log, "ann", "", TaskState.RUNNING, 0, last=last), **more)  # type: ignore[arg-type]


def chunk(first: int, *texts: str) -> Chunk:
    lines = encode_lines(texts, 0)
    return Chunk(first, lines.count, lines.payload, lines.side)


class Disk:
    """What stands in the store, and reads of heads that last as long as a test wants."""

    behind = False  # nobody else commits
    tells_all = True

    def __init__(self) -> None:
        self.chunks: dict[int, list[Chunk]] = {}
        self.reads: list[tuple[int, int, int]] = []
        self.heads: list[asyncio.Future[Task]] = []
        self.held: asyncio.Future[None] | None = None  # what reads of lines wait for

    async def read(self, log: int, first: int, end: int, max_bytes: int) -> Sequence[Chunk]:
        self.reads.append((log, first, end))
        if self.held is not None:
            await self.held
        found = [cut(part, first, end) for part in self.chunks.get(log, ()) if part.end > first and part.first < end]
        return found[:1]

    async def get(self, task_id: str) -> Task:
        self.heads.append(asyncio.get_running_loop().create_future())
        return await self.heads[-1]


def logs(memory: Memory = ROOMY, disk: Disk | None = None) -> Logs:
    return LiveLogs(cast(Store, disk or Disk()), memory)


def append(kept: Logs, first: int, *texts: str, task_id: str = "build") -> None:
    kept.apply(task_id, task(first + len(texts), task_id), chunk(first, *texts))


def lines(live: Live[Task] | None, first: int, end: int) -> list[str] | None:
    assert live is not None
    chunks = live.lines(first, end)
    return None if chunks is None else [text for part in chunks for text in decode_texts(part.payload)]


class TestWhatIsKept:
    def test_nothing_is_known_of_what_did_not_change(self) -> None:
        assert logs().get("build") is None

    def test_the_newest_head_and_lines_are_known(self) -> None:
        kept = logs()
        kept.apply("build", task(), None)
        append(kept, 0, "a", "b")
        append(kept, 2, "c")
        kept.apply("build", task(3), None)
        append(kept, 3, "d", "e", "f")
        live = kept.get("build")
        assert live is not None
        assert live.head == task(6)
        for first in range(6):
            for end in range(first + 1, 7):
                assert lines(live, first, end) == list("abcdef")[first:end]

    def test_lines_from_before_it_was_known_are_not_here(self) -> None:
        kept = logs()
        append(kept, 5, "f", "g")
        assert lines(kept.get("build"), 4, 7) is None
        assert lines(kept.get("build"), 5, 7) == ["f", "g"]
        kept.apply("other", task(9, "other"), None)
        assert lines(kept.get("other"), 8, 9) is None

    def test_lines_that_it_has_not_heard_of_yet_are_not_here(self) -> None:
        """Half of the lines must not pass for all of them."""
        kept = logs()
        append(kept, 0, "a", "b")
        assert lines(kept.get("build"), 0, 3) is None
        assert lines(kept.get("build"), 2, 3) is None

    def test_lines_before_a_gap_are_not_here(self) -> None:
        """Where other nodes append too, not every line is reported."""
        kept = logs()
        append(kept, 0, "a", "b")
        append(kept, 5, "f")
        append(kept, 6, "g")
        assert lines(kept.get("build"), 0, 7) is None
        assert lines(kept.get("build"), 1, 6) is None
        assert lines(kept.get("build"), 5, 7) == ["f", "g"]

    def test_lines_of_a_log_that_was_deleted_unheard_are_not_the_new_ones(self) -> None:
        kept = logs()
        append(kept, 0, "old", "older")
        kept.apply("build", task(1, log=2), chunk(0, "new"))
        assert lines(kept.get("build"), 0, 1) == ["new"]
        assert lines(kept.get("build"), 0, 2) is None
        kept.apply("build", task(3, log=1), chunk(2, "late"))
        assert lines(kept.get("build"), 0, 1) == ["new"]

    def test_what_is_deleted_is_forgotten(self) -> None:
        kept = logs()
        append(kept, 0, "a")
        kept.forget("build")
        assert kept.get("build") is None
        kept.forget("build")
        append(kept, 0, "b")
        assert lines(kept.get("build"), 0, 1) == ["b"]


class TestBounds:
    def test_the_oldest_lines_give_way(self) -> None:
        kept = logs(Memory(task_bytes=3 * COST))
        for number in range(10):
            append(kept, number, LINE)
        live = kept.get("build")
        assert live is not None
        assert live.first == 7
        assert lines(live, 6, 10) is None
        assert lines(live, 7, 10) == [LINE] * 3
        assert live.size == ENTRY_COST + 3 * COST

    def test_an_append_larger_than_the_bound_leaves_the_head_only(self) -> None:
        kept = logs(Memory(task_bytes=COST - 1))
        append(kept, 0, LINE)
        live = kept.get("build")
        assert live is not None
        assert live.head == task(1)
        assert lines(live, 0, 1) is None
        assert live.size == ENTRY_COST

    def test_what_was_quiet_longest_gives_way(self) -> None:
        kept = logs(Memory(total_bytes=3 * (ENTRY_COST + COST)))
        for name in "abc":
            append(kept, 0, LINE, task_id=name)
        kept.apply("a", task(1, "a"), None)
        append(kept, 0, LINE, task_id="d")
        assert [name for name in "abcd" if kept.get(name) is not None] == ["a", "c", "d"]

    def test_memory_is_bounded_whatever_comes(self) -> None:
        memory = Memory(task_bytes=20 * COST, total_bytes=100 * COST)
        kept = logs(memory)
        for number in range(1000):
            for name in range(20):
                append(kept, number, LINE, task_id=f"t{name}")
        sizes = [live.size for name in range(20) if (live := kept.get(f"t{name}")) is not None]
        assert 0 < sum(sizes) <= memory.total_bytes
        assert max(sizes) <= memory.task_bytes + ENTRY_COST

    def test_what_a_head_holds_counts(self) -> None:
        kept = logs(Memory(total_bytes=100_000))
        for name in "abcd":
            kept.apply(name, task(0, name, result=b"x" * 30_000, error="x" * 1000), None)
        assert [name for name in "abcd" if kept.get(name) is not None] == ["b", "c", "d"]
        # What a head grows by is counted when it grows, and given back when it goes.
        kept.apply("d", task(0, "d", result=b"x" * 60_000), None)
        assert [name for name in "abcd" if kept.get(name) is not None] == ["c", "d"]
        kept.forget("d")
        kept.apply("e", task(0, "e", result=b"x" * 60_000), None)
        assert [name for name in "cde" if kept.get(name) is not None] == ["c", "e"]

    @given(
        st.lists(st.integers(1, 5), min_size=1, max_size=30),
        st.integers(0, 5),
        st.integers(1, 3000),
    )
    def test_lines_are_all_there_or_not_at_all(self, counts: list[int], known_from: int, task_bytes: int) -> None:
        kept = logs(Memory(task_bytes=task_bytes))
        texts = [f"line {number}" for number in range(sum(counts))]
        last = 0
        for number, count in enumerate(counts):
            if number >= known_from:
                append(kept, last, *texts[last : last + count])
            last += count
        live = kept.get("build")
        if live is None:
            return
        for first in range(last):
            for end in range(first + 1, last + 2):
                assert lines(live, first, end) in (None, texts[first:end] if end <= last else None)
        assert live.first == last or lines(live, live.first, last) == texts[live.first :]


class Reading:
    """Logs whose heads are read while other things happen."""

    def __init__(self, memory: Memory = ROOMY) -> None:
        self.disk = Disk()
        self.logs = logs(memory, self.disk)

    async def begin(self, key: str = "build") -> asyncio.Task[Task]:
        """A look at a head that waits for the store by now."""
        reads = len(self.disk.heads)
        looking = asyncio.ensure_future(self.logs.head(key, self.disk.get))
        await asyncio.sleep(0)
        assert len(self.disk.heads) == reads + 1
        return looking

    async def end(self, looking: asyncio.Task[Task], found: Task | Exception, read: int = -1) -> Task:
        """Let the store answer."""
        if isinstance(found, Task):
            self.disk.heads[read].set_result(found)
        else:
            self.disk.heads[read].set_exception(found)
        return await looking

    async def known(self, key: str = "build") -> Task:
        """The head, which must be in memory."""
        return await self.logs.head(key, _must_not_read)


async def _must_not_read(key: str) -> Task:
    raise AssertionError("this should be in memory")


class TestOtherNodes:
    """A store that does not tell of all changes."""

    async def test_heads_are_read_and_lines_remembered(self) -> None:
        disk = Disk()
        disk.tells_all = False
        kept = logs(disk=disk)
        append(kept, 0, "a", "b")
        assert kept.get("build") is None
        asking = asyncio.ensure_future(kept.head("build", disk.get))
        await asyncio.sleep(0)
        disk.heads[-1].set_result(task(3, version=9))
        assert (await asking).last == 3
        assert [decode_texts(part.payload) for part in await kept.page("build", 1, 0, 2)] == [["a", "b"]]
        assert disk.reads == []

    async def test_a_head_of_another_log_takes_the_old_lines_along(self) -> None:
        disk = Disk()
        disk.tells_all = False
        disk.chunks[2] = [chunk(0, "new")]
        kept = logs(disk=disk)
        append(kept, 0, "old")
        asking = asyncio.ensure_future(kept.head("build", disk.get))
        await asyncio.sleep(0)
        disk.heads[-1].set_result(task(1, log=2))
        assert (await asking).log == 2
        assert [decode_texts(part.payload) for part in await kept.page("build", 2, 0, 1)] == [["new"]]


class TestReadingAHead:
    async def test_what_was_read_is_kept(self) -> None:
        reading = Reading()
        assert await reading.end(await reading.begin(), task(5)) == task(5)
        assert await reading.known() == task(5)
        append(reading.logs, 5, "f")
        assert lines(reading.logs.get("build"), 5, 6) == ["f"]
        assert lines(reading.logs.get("build"), 4, 6) is None

    async def test_what_is_not_there_is_not_kept(self) -> None:
        reading = Reading()
        with pytest.raises(TaskNotFound):
            await reading.end(await reading.begin(), TaskNotFound("no"))
        append(reading.logs, 0, "a")
        assert await reading.known() == task(1)

    async def test_a_commit_that_comes_meanwhile_counts(self) -> None:
        reading = Reading()
        looking = await reading.begin()
        append(reading.logs, 5, "f")
        assert await reading.end(looking, task(5)) == task(6)
        assert await reading.known() == task(6)
        assert lines(reading.logs.get("build"), 5, 6) == ["f"]

    async def test_a_commit_between_the_answer_and_the_one_who_asked_counts(self) -> None:
        reading = Reading()
        looking = await reading.begin()
        reading.disk.heads[-1].set_result(task(5))  # the answer is under way
        append(reading.logs, 5, "f")
        assert await looking == task(6)
        assert await reading.known() == task(6)

    async def test_a_read_may_see_a_commit_before_it_is_reported(self) -> None:
        reading = Reading()
        assert await reading.end(await reading.begin(), task(7)) == task(7)
        append(reading.logs, 5, "f", "g")  # the report of what the read has seen already
        assert await reading.known() == task(7)
        append(reading.logs, 7, "h")
        live = reading.logs.get("build")
        assert lines(live, 7, 8) == ["h"]
        assert lines(live, 6, 8) in (None, ["g", "h"])

    async def test_reports_that_a_read_has_overtaken_do_not_take_it_back(self) -> None:
        reading = Reading(Memory(task_bytes=COST - 1))
        await reading.end(await reading.begin(), task(7, version=3))
        reading.logs.apply("build", task(6, version=2), chunk(5, LINE))
        assert await reading.known() == task(7, version=3)
        assert lines(reading.logs.get("build"), 6, 7) is None  # this line has not come yet
        reading.logs.apply("build", task(7, version=3), chunk(6, "g"))
        reading.logs.apply("build", task(8, version=4), chunk(7, "h"))
        assert await reading.known() == task(8, version=4)
        assert lines(reading.logs.get("build"), 7, 8) == ["h"]

    async def test_many_who_ask_at_once_agree(self) -> None:
        reading = Reading()
        first, second = await reading.begin(), await reading.begin()
        append(reading.logs, 5, "f")
        assert await reading.end(second, task(6), 1) == task(6)
        assert await reading.end(first, task(5), 0) == task(6)
        assert await reading.known() == task(6)

    async def test_what_is_deleted_meanwhile_is_not_kept(self) -> None:
        reading = Reading()
        looking = await reading.begin()
        reading.logs.forget("build")
        await reading.end(looking, task(5))
        assert reading.logs.get("build") is None

    async def test_what_is_deleted_before_the_answer_arrives_is_not_kept(self) -> None:
        reading = Reading()
        looking = await reading.begin()
        reading.disk.heads[-1].set_result(task(5))
        reading.logs.forget("build")
        await looking
        assert reading.logs.get("build") is None

    async def test_what_is_deleted_and_made_again_meanwhile_is_the_new_one(self) -> None:
        reading = Reading()
        looking = await reading.begin()
        reading.logs.forget("build")
        reading.logs.apply("build", task(log=2), None)
        assert await reading.end(looking, task(5)) == task(log=2)
        assert await reading.known() == task(log=2)

    async def test_a_commit_that_came_and_gave_way_meanwhile_is_not_forgotten(self) -> None:
        reading = Reading(Memory(total_bytes=2 * ENTRY_COST))
        looking = await reading.begin()
        append(reading.logs, 5, "f")
        for name in ("x", "y"):
            reading.logs.apply(name, task(0, name), None)
        assert reading.logs.get("build") is None
        await reading.end(looking, task(5))
        # What was read is older than that commit: the next one must ask the store.
        assert reading.logs.get("build") is None

    async def test_what_gives_way_at_once_is_read_again(self) -> None:
        reading = Reading(Memory(total_bytes=0))
        for _ in range(2):
            assert await reading.end(await reading.begin(), task(5)) == task(5)


async def read(kept: Logs, log: int, first: int, end: int) -> list[str]:
    return [
        text
        async for chunks in kept.read("build", log, first, end)
        for part in chunks
        for text in decode_texts(part.payload)
    ]


async def has_read(disk: Disk, times: int) -> None:
    await eventually(lambda: len(disk.reads) == times, f"the {times}th reading")


class TestReadingLines:
    async def test_the_newest_come_from_memory(self) -> None:
        disk = Disk()
        kept = logs(disk=disk)
        append(kept, 2, "c", "d")
        assert await read(kept, 1, 2, 4) == ["c", "d"]
        assert await read(kept, 1, 3, 4) == ["d"]
        assert await read(kept, 1, 4, 4) == []
        assert disk.reads == []

    async def test_older_ones_come_from_the_store_in_pages(self) -> None:
        disk = Disk()
        disk.chunks[1] = [chunk(0, "a", "b"), chunk(2, "c"), chunk(3, "d", "e")]
        kept = logs(disk=disk)
        append(kept, 3, "d", "e")
        assert await read(kept, 1, 1, 4) == ["b", "c", "d"]
        assert disk.reads == [(1, 1, 4), (1, 2, 4)]  # the rest is in memory

    async def test_a_log_that_is_deleted_in_the_middle_ends_early(self) -> None:
        disk = Disk()
        disk.chunks[1] = [chunk(0, "a"), chunk(1, "b")]
        pages = logs(disk=disk).read("build", 1, 0, 2)
        assert [part.first for part in await anext(pages)] == [0]
        del disk.chunks[1]
        assert [page async for page in pages] == []

    async def test_the_next_page_is_read_while_one_is_taken(self) -> None:
        disk = Disk()
        disk.chunks[1] = [chunk(first, "a") for first in range(3)]
        pages = logs(disk=disk).read("build", 1, 0, 3)
        for first in (0, 1, 2, 2):
            assert [part.first for part in await anext(pages, [])] in ([first], [])
            await has_read(disk, min(first + 2, 3))

    async def test_only_some_read_ahead(self) -> None:
        disk = Disk()
        disk.chunks[1] = [chunk(first, "a") for first in range(9)]
        kept = logs(Memory(ahead_readers=1), disk)
        fast, slow = kept.read("build", 1, 0, 9), kept.read("build", 1, 0, 9)
        await anext(fast)
        await has_read(disk, 2)
        await anext(slow)
        await anext(slow)
        assert disk.reads[2:] == [(1, 0, 9), (1, 1, 9)]
        await fast.aclose()
        await anext(slow)  # takes the place that is free now
        await eventually(lambda: disk.reads[4:] == [(1, 2, 9), (1, 3, 9)], "the reading ahead")
        await slow.aclose()

    @pytest.mark.parametrize("failure", [None, StoreUnavailable("the database failed")])
    async def test_who_leaves_leaves_no_reading_behind(self, failure: Exception | None) -> None:
        disk = Disk()
        disk.chunks[1] = [chunk(0, "a"), chunk(1, "b")]
        pages = logs(disk=disk).read("build", 1, 0, 2)
        await anext(pages)
        disk.held = asyncio.get_running_loop().create_future()
        await has_read(disk, 2)
        if failure is not None:
            disk.held.set_exception(failure)  # nobody asks for it any more: not even a warning is left
        await pages.aclose()
        assert disk.held.cancelled() or failure is not None

    async def test_a_reading_ahead_that_fails_fails_the_reader(self) -> None:
        disk = Disk()
        disk.chunks[1] = [chunk(0, "a"), chunk(1, "b")]
        pages = logs(disk=disk).read("build", 1, 0, 2)
        await anext(pages)
        disk.held = asyncio.get_running_loop().create_future()
        disk.held.set_exception(StoreUnavailable("the database failed"))
        with pytest.raises(StoreUnavailable):
            await anext(pages)

    async def test_lines_of_another_log_under_the_same_id_are_not_taken_for_its_own(self) -> None:
        kept = logs()
        append(kept, 0, "a", "b")
        kept.forget("build")
        kept.apply("build", task(2, log=2), chunk(0, "other", "lines"))
        assert await read(kept, 1, 0, 2) == []
        assert await read(kept, 2, 0, 2) == ["other", "lines"]
