"""The PostgreSQL store's reads of output."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from taskserver.encoding import decode_texts, encode_lines, quoted
from taskserver.errors import StoreUnavailable

pytest.importorskip("asyncpg")

from taskserver.stores.chunks import PLAIN
from taskserver.stores.postgres.connect import Pool
from taskserver.stores.postgres.reads import Readers

LINES = [f"line {number}" for number in range(50)]
PAGE = (7, 10, 50, 1 << 20)


class Table(Readers):
    """Has one chunk, and gives it when it is let go."""

    def __init__(self) -> None:
        super().__init__(cast(Pool, None))
        self.asked = 0
        self.go = asyncio.Event()
        self.error: Exception | None = None

    async def query(self, sql: str, *arguments: Any, timeout: float | None = None) -> Sequence[Sequence[Any]]:
        self.asked += 1
        await self.go.wait()
        if self.error is not None:
            raise self.error
        lines = encode_lines(LINES, 0)
        return [(0, lines.count, PLAIN, lines.payload, lines.side)]


async def test_many_who_read_the_same_share_what_is_read() -> None:
    table = Table()
    readers = [asyncio.ensure_future(table.chunks(*PAGE)) for _ in range(100)]
    other = asyncio.ensure_future(table.chunks(7, 20, 50, 1 << 20))
    await asyncio.sleep(0)
    readers.pop(0).cancel()  # who came first, and leaves
    table.go.set()
    for (chunk,) in await asyncio.gather(*readers):
        assert decode_texts(quoted(chunk)) == LINES[10:]
    (chunk,) = await other
    assert decode_texts(quoted(chunk)) == LINES[20:]
    assert table.asked == 2
    await table.chunks(*PAGE)
    assert table.asked == 3, "what was read is not kept"


async def test_all_are_told_of_a_failure_and_the_next_one_tries_again() -> None:
    table = Table()
    table.error = StoreUnavailable("gone")
    readers = [asyncio.ensure_future(table.chunks(*PAGE)) for _ in range(3)]
    table.go.set()
    answers = await asyncio.gather(*readers, return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 3
    table.error = None
    assert await table.chunks(*PAGE)


async def test_a_failure_that_nobody_waits_for_any_more_is_nobodys() -> None:
    table = Table()
    table.error = StoreUnavailable("gone")
    reader = asyncio.ensure_future(table.chunks(*PAGE))
    await asyncio.sleep(0)
    reader.cancel()
    table.go.set()
    for _ in range(5):  # asyncio would complain to the loop's handler, and that fails the test
        await asyncio.sleep(0)
    assert not table._pages
