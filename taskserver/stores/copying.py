"""Copying: a whole installation from one database to another, resumable, and compared line by line at the end.

What is copied goes in the order of its keys, each page in one transaction. So
the last keys that the target has tell where a copy that was interrupted goes
on, and nothing can be doubled. Until the comparison has succeeded the target is
marked, and no server takes it.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from taskserver.encoding import SIDE_WIDTH, expand_side, quoted
from taskserver.errors import CannotCopy, Differs
from taskserver.stores.archive import START, Archive, Key, Kind, Record, Size, StoredChunk, key_of
from taskserver.stores.chunks import unpack

Report = Callable[[str, Size, Size], None]
"""Is told what is being done, how much of the output is done, and of how much."""

HEADS = tuple(kind for kind in Kind if kind is not Kind.CHUNKS)


@dataclass(frozen=True)
class Summary:
    """What two databases have in common. ``digest`` (SHA-256) is over all of it, lines as they are read."""

    records: dict[Kind, int]
    lines: int
    digest: str


class LogDigest(NamedTuple):
    """A log's lines. The digests are over each line's text, and over stream and time of each."""

    log: int
    lines: int
    texts: str
    sides: str


async def copy(source: Archive, target: Archive, report: Report, *, restart: bool = False) -> Summary:
    """Copy everything, or what is missing of it, and compare both; see ``compare``.

    ``restart``: forget what an earlier copy has left in the target. Raises
    CannotCopy if the target holds anything else, Differs, and what archives raise.
    """
    if await source.source() is not None:
        raise CannotCopy(f"{source.name} is itself a copy that is not finished")
    fingerprint = await _fingerprint(source)
    begun = await target.source()
    if begun is not None and restart:
        await target.clear()
        begun = None
    if begun is None:
        if not await target.is_empty():
            raise CannotCopy(f"{target.name} is not empty; copy into another database (--verify-only compares the two)")
        await target.begin(fingerprint)
    elif begun != fingerprint:
        raise CannotCopy(
            f"{target.name} has part of a copy of another database, or {source.name} has changed since; --restart"
            " forgets that part"
        )
    for kind in HEADS:
        async with aclosing(_pages(source, kind, await target.last_key(kind))) as pages:
            async for page in pages:
                await target.load(kind, page)
    await _copy_output(source, target, report)
    summary = await compare(source, target, report)
    await target.finish(await source.last_log())
    return summary


async def compare(source: Archive, target: Archive, report: Report) -> Summary:
    """What both have in common, which is all. Raises Differs, with the first difference."""
    records: dict[Kind, int] = {}
    total = hashlib.sha256()
    for kind in HEADS:
        records[kind] = 0
        async for one, other in _together(_records(source, kind), _records(target, kind)):
            if one != other or repr(one) != repr(other):  # some fields do not count for equality
                difference = f"differ in their {kind.value}: {_first(kind, one, other)}"
                raise Differs(f"{source.name} and {target.name} {difference}")
            total.update(repr(one).encode())
            records[kind] += 1
    whole = await source.size()
    lines = 0
    done = _Done("comparing", report, whole)
    async for log, copy_of_log in _together(_digests(source, done), _digests(target)):
        if log != copy_of_log:
            raise Differs(f"{source.name} and {target.name} differ in output: {_logs(log, copy_of_log)}")
        total.update(repr(log).encode())
        lines += log.lines
    return Summary(records, lines, total.hexdigest())


async def _copy_output(source: Archive, target: Archive, report: Report) -> None:
    there = await target.size()
    done = _Done("copying", report, await source.size(), there)
    async with aclosing(_pages(source, Kind.CHUNKS, await target.last_key(Kind.CHUNKS))) as pages:
        async for page in pages:
            await target.load(Kind.CHUNKS, page)
            done.add(page)


async def _fingerprint(source: Archive) -> bytes:
    """Tells whether a copy is resumed of what it was begun with: all heads, and how much output there is."""
    digest = hashlib.sha256()
    for kind in HEADS:
        async for record in _records(source, kind):
            digest.update(repr(record).encode())
    digest.update(repr(await source.size()).encode())
    return digest.digest()


class _Done:
    """Counts output for the report."""

    def __init__(self, what: str, report: Report, whole: Size, done: Size | None = None) -> None:
        self._what = what
        self._report = report
        self._whole = whole
        self._done = done or Size()
        self._report(what, self._done, whole)

    def add(self, page: list[StoredChunk]) -> None:
        """Take note of a page."""
        done = self._done
        self._done = Size(
            done.chunks + len(page),
            done.lines + sum(chunk.lines for chunk in page),
            done.bytes + sum(len(chunk.payload) + len(chunk.side) for chunk in page),
        )
        self._report(self._what, self._done, self._whole)


# --- reading ---------------------------------------------------------------------


async def _pages(archive: Archive, kind: Kind, after: Key) -> AsyncGenerator[list[Record], None]:
    """The pages of a kind behind a key. While one is dealt with, the next one is read."""
    reading = asyncio.ensure_future(archive.page(kind, after))
    try:
        while page := list(await reading):
            reading = asyncio.ensure_future(archive.page(kind, key_of(kind, page[-1])))
            yield page
    finally:
        await asyncio.wait([reading])  # nobody closes the archive in the middle of it
        if not reading.cancelled():
            reading.exception()


async def _records(archive: Archive, kind: Kind) -> AsyncGenerator[Record, None]:
    async with aclosing(_pages(archive, kind, START[kind])) as pages:
        async for page in pages:
            for record in page:
                yield record


async def _digests(archive: Archive, done: _Done | None = None) -> AsyncGenerator[LogDigest, None]:
    """The digests of an archive's logs, in order."""
    log: _Log | None = None
    async with aclosing(_pages(archive, Kind.CHUNKS, START[Kind.CHUNKS])) as pages:
        async for page in pages:
            complete, log = await asyncio.to_thread(_digest_page, archive, log, page)
            for digest in complete:
                yield digest
            if done is not None:
                done.add(page)
    if log is not None:
        yield log.digest()


def _digest_page(archive: Archive, log: _Log | None, page: list[StoredChunk]) -> tuple[list[LogDigest], _Log | None]:
    """Take in a page behind what has been read of ``log``: the logs that end in it, and the one that may go on."""
    complete = []
    for number, chunks in itertools.groupby(page, lambda chunk: chunk.log):
        if log is not None and log.number != number:
            complete.append(log.digest())
            log = None
        log = log or _Log(archive, number)
        log.add(chunks)
    return complete, log


class _Log:
    """The digest of one log, as far as it has been read."""

    def __init__(self, archive: Archive, number: int) -> None:
        self.number = number
        self._archive = archive
        self._lines = 0
        self._texts = hashlib.sha256()
        self._sides = hashlib.sha256()

    def add(self, chunks: Iterable[StoredChunk]) -> None:
        """Read the next chunks. Raises Differs if they are damaged: not even themselves."""
        for stored in chunks:
            try:
                chunk = unpack(stored.first, stored.lines, stored.codec, stored.payload, stored.side)
                lines = orjson.loads(b"[" + quoted(chunk) + b"]")
            except Exception as error:
                raise self._damaged(stored, str(error)) from error
            if stored.first != self._lines or len(lines) != stored.lines:
                raise self._damaged(stored, "lines are missing or repeated")
            if len(chunk.side) not in (0, SIDE_WIDTH, SIDE_WIDTH * stored.lines):
                raise self._damaged(stored, "times are missing")
            # Each line is encoded in one way only, and ended by a newline that cannot stand in it.
            self._texts.update(b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines))
            self._sides.update(expand_side(chunk.side, stored.lines))
            self._lines += stored.lines

    def digest(self) -> LogDigest:
        """All of it has been read."""
        return LogDigest(self.number, self._lines, self._texts.hexdigest(), self._sides.hexdigest())

    def _damaged(self, chunk: StoredChunk, reason: str) -> Differs:
        return Differs(f"{self._archive.name} is damaged: log {chunk.log} at line {chunk.first}: {reason}")


async def _together(
    one: AsyncGenerator[Record, None], other: AsyncGenerator[Record, None]
) -> AsyncGenerator[tuple[Record, Record], None]:
    """Pairs of what both bring, read at the same time; None in the place of what one of them lacks."""
    async with aclosing(one), aclosing(other):
        while True:
            # Exceptions too: neither may be closed while it is asked.
            found = await asyncio.gather(anext(one, None), anext(other, None), return_exceptions=True)
            for answer in found:
                if isinstance(answer, BaseException):
                    raise answer
            left, right = found
            if left is None and right is None:
                return
            yield left, right


# --- words -----------------------------------------------------------------------


def _first(kind: Kind, one: Record | None, other: Record | None) -> str:
    if one is None or other is None or key_of(kind, one) != key_of(kind, other):
        return "not the same ones"
    return f"not the same under {key_of(kind, one)[0]!r}"


def _logs(one: LogDigest | None, other: LogDigest | None) -> str:
    if one is None or other is None or one.log != other.log:
        return "not the same logs"
    if one.lines != other.lines:
        return f"log {one.log} has {one.lines} lines here and {other.lines} there"
    return f"log {one.log}, {'text' if one.texts != other.texts else 'streams or times'}"
