"""Followers by the thousand: as light as a client can be, and each checks everything that it is told."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import cast

FORMATS = ("text", "ndjson", "sse")
SEPARATORS = {"text": b"\n", "ndjson": b"\n", "sse": b"\n\n"}
LEAVES = 0.3  # of the followers leave now and then
VISITS = 3  # how often one of these leaves
PATIENCE = 20_000  # bytes that it reads before it does


def line(number: int) -> str:
    """What stands in a line of the task: its number, and something that makes lines differ in length."""
    return f"line {number} {'x' * (number % 50)}"


@dataclass(frozen=True)
class Record:
    """What a line of text or NDJSON, or an event, tells: lines ``[first, end)``, or the end of a task with so many."""

    first: int
    end: int
    is_end: bool = False


@cache  # all followers are told the same
def read_record(form: str, data: bytes) -> Record | None:
    """A record; None if it tells nothing, as a comment. Raises AssertionError if a line is not what was appended."""
    if form == "text":
        number = int(data.split(b" ", 2)[1])
        assert data.decode() == line(number)
        return Record(number, number + 1)
    if form == "ndjson":
        row = json.loads(data)
        if "finished" in row:
            assert row["finished"] is True
            return Record(row["last"], row["last"], is_end=True)
        assert row["text"] == line(row["n"])
        return Record(row["n"], row["n"] + 1)
    fields = dict(part.split(": ", 1) for part in data.decode().split("\n") if not part.startswith((":", "data")))
    value = "\n".join(part[6:] for part in data.decode().split("\n") if part.startswith("data: "))
    if not value:
        return None
    if fields["event"] == "end":
        last = json.loads(value)["last"]
        assert fields["id"] == f"{last}-end"
        return Record(last, last, is_end=True)
    texts = json.loads(value)
    end = int(fields["id"])
    first = end - len(texts)
    assert texts == [line(number) for number in range(first, end)]
    return Record(first, end)


class Follower(asyncio.Protocol):
    """Follows a task to its end, in one format, over as many connections as it takes.

    ``cursor`` is the line that it has to be told next: a record that begins
    elsewhere was lost, repeated or out of order.
    """

    def __init__(self, port: int, key: str, task_id: str, form: str, chance: random.Random) -> None:
        self.form = form
        self.cursor = 0
        self.connections = 0
        self.finished = False
        self._address = ("127.0.0.1", port)
        self._request = f"GET /v1/tasks/{task_id}/output?format={form}&follow=true{{first}} HTTP/1.1\r\nHost: x\r\n"
        self._request += f"Authorization: Key {key}\r\n{{resume}}\r\n"
        self._visits = VISITS if chance.random() < LEAVES else 0
        self._chance = chance
        self.listening: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Follow to the end. Raises AssertionError if anything is not as it should be."""
        loop = asyncio.get_running_loop()
        while not self.finished:
            self._closed: asyncio.Future[None] = loop.create_future()
            self._received = bytearray()  # of the answer, and not a whole chunk yet
            self._rest = b""  # of the body, and not a whole record yet
            self._in_body = False
            self._leave_after = self._chance.randrange(PATIENCE) if self._visits else None
            self.connections += 1
            await loop.create_connection(lambda: self, *self._address)
            await self._closed

    # --- asyncio.Protocol ----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        resume = f"Last-Event-ID: {self.cursor}\r\n" if self.form == "sse" and self.cursor else ""
        first = f"&first={self.cursor}" if self.form != "sse" else ""
        self._transport.write(self._request.format(first=first, resume=resume).encode())

    def data_received(self, data: bytes) -> None:
        try:
            self._received += data
            for chunk in self._chunks():
                self._take(chunk)
        except Exception as error:
            self._fail(error)
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closed.done():
            left = self._leave_after is not None and self._leave_after <= 0
            if self.finished or left:
                self._closed.set_result(None)
            else:
                self._fail(AssertionError(f"{self.form}: cut off at line {self.cursor}: {exc}"))

    def _fail(self, error: Exception) -> None:
        for future in (self._closed, self.listening):
            if not future.done():
                future.set_exception(error)

    # --- what was received ---------------------------------------------------------

    def _chunks(self) -> Iterator[bytes]:
        """The whole chunks of the body (RFC 9112, 7.1) that are there."""
        if not self._in_body:
            head, found, rest = bytes(self._received).partition(b"\r\n\r\n")
            if not found:
                return
            assert head.startswith(b"HTTP/1.1 200 "), head
            self._received = bytearray(rest)
            self._in_body = True
            if not self.listening.done():
                self.listening.set_result(None)
        while (end := self._received.find(b"\r\n")) >= 0:
            size = int(self._received[:end], 16)
            start, stop = end + 2, end + 2 + size
            if len(self._received) < stop + 2:
                return
            chunk = bytes(self._received[start:stop])
            del self._received[: stop + 2]
            yield chunk

    def _take(self, chunk: bytes) -> None:
        if not chunk:  # the last chunk
            assert self._rest == b""
            self.finished = self.finished or self.form == "text"  # which has no other end
            self._transport.close()
            return
        *records, self._rest = (self._rest + chunk).split(SEPARATORS[self.form])
        for data in records:
            record = read_record(self.form, data)
            if record is None:
                continue
            assert record.first == self.cursor, f"{self.form}: {record} at line {self.cursor}"
            assert not self.finished, f"{self.form}: {record} after the end"
            self.cursor, self.finished = record.end, record.is_end
        if self._leave_after is not None:
            self._leave_after -= len(chunk)
            if self._leave_after <= 0 and not self.finished:
                self._visits -= 1
                self._transport.abort()
