"""A process that has joined a store: it reads by itself, and another one commits for it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from taskserver.config import KIB
from taskserver.errors import StoreUnavailable
from taskserver.meters import Meters
from taskserver.partial import Partial
from taskserver.store import AnyChange, Invitation, Listener
from taskserver.stores.sqlite.readers import Readers
from taskserver.stores.sqlite.store import SqliteStore
from taskserver.stores.sqlite.transaction import Operation
from taskserver.stores.sqlite.wire import Answer, Call, CommitCount, FrameReader, calls_frame

log = logging.getLogger(__name__)

READ_SIZE = 256 * KIB

T = TypeVar("T")


class RemoteCommitter(asyncio.Protocol):
    """Hands operations to the process that commits, those of one turn of the event loop together.

    ``lost`` is called when that process is gone; what is under way then may have
    been committed or not.
    """

    def __init__(self, link: socket.socket, count: CommitCount, lost: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = link
        self._count = count
        self._lost = lost
        self._report: Listener | None = None
        self._frames = FrameReader()
        self._numbers = itertools.count()
        self._calls: list[Call] = []
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._applied = -1  # the last commit whose changes were reported here
        self._news = asyncio.Event()  # something has come, or the connection is gone
        self._closed = False
        self._reading = False
        self._transport: asyncio.Transport

    @classmethod
    async def join(cls, link: socket.socket, count: CommitCount, lost: Callable[[], None]) -> RemoteCommitter:
        """Return when changes have begun to come. Raises StoreUnavailable."""
        loop = asyncio.get_running_loop()
        own = link.dup()  # the other one is the transport's
        own.setblocking(False)
        _, committer = await loop.create_unix_connection(lambda: cls(own, count, lost), sock=link)
        await committer.catch_up()
        return committer

    def report_to(self, report: Listener) -> RemoteCommitter:
        """Report changes to ``report``."""
        self._report = report
        return self

    @property
    def alive(self) -> bool:
        """Whether operations can be committed."""
        return not self._closed

    @property
    def behind(self) -> bool:
        """Whether changes are on their way here. Those that have arrived are taken over first."""
        if self._closed or self._applied == self._count.value:
            return False
        self._read_now()
        return self._applied != self._count.value

    async def catch_up(self) -> None:
        """Return when the changes so far have been reported. Raises StoreUnavailable if the other process is gone."""
        wanted = self._count.value
        while self._applied < wanted and not self._closed:
            await self._news.wait()
        if self._closed:
            raise _gone()

    def submit(self, operation: Operation[T]) -> asyncio.Future[T]:
        """See ``Committer``."""
        future: asyncio.Future[T] = self._loop.create_future()
        if self._closed:
            future.set_exception(_gone())
            return future
        number = next(self._numbers)
        self._pending[number] = future
        self._call((number, operation))
        return future

    def tell(self, partial: Partial) -> None:
        """Have something told to all that have joined, this process included."""
        if not self._closed:
            self._call((None, partial))

    async def close(self) -> None:
        """Wait for the answers that are due, and leave. A repeat does nothing."""
        self._lost = _nothing
        while self._pending and not self._closed:
            await self._news.wait()
        self._closed = True
        self._transport.close()
        self._socket.close()

    # --- asyncio.Protocol --------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        self._reading = True
        try:
            for count, items in self._frames.feed(data):
                if count is None:
                    self._answer(items)
                else:
                    self._take(count, items)
        finally:
            self._reading = False
        self._tell()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._socket.close()
        self._lost()
        pending, self._pending = self._pending, {}
        for future in pending.values():
            if not future.done():
                future.set_exception(_gone())
        self._tell()

    # -----------------------------------------------------------------------------

    def _read_now(self) -> None:
        """Read what the event loop would bring later in its turn: it may have many requests before it comes to that.

        The transport keeps nothing back, so what is read here follows what it read.
        """
        if self._reading:  # somebody who is told of a change asks
            return
        try:
            data = self._socket.recv(READ_SIZE)
        except OSError:  # nothing has arrived, or the connection is gone, which the transport will tell
            return
        if data:
            self.data_received(data)

    def _call(self, call: Call) -> None:
        self._calls.append(call)
        if len(self._calls) == 1:
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        calls, self._calls = self._calls, []
        if not self._transport.is_closing():
            self._transport.write(calls_frame(calls))

    def _take(self, count: int, changes: Sequence[AnyChange]) -> None:
        if changes and self._report is not None:
            try:
                self._report(changes)
            except Exception:  # a bug of the listener's must not keep later changes away
                log.exception("the report of a commit failed")
        self._applied = count

    def _answer(self, answers: Sequence[Answer]) -> None:
        for number, error, result in answers:
            future = self._pending.pop(number)
            if future.done():  # its caller has left
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

    def _tell(self) -> None:
        self._news.set()  # wakes who waits now
        self._news.clear()


class JoinedStore(SqliteStore):
    """A store that another process has open. See ``HubStore``."""

    def __init__(self, readers: Readers, committer: RemoteCommitter, count: CommitCount) -> None:
        super().__init__(readers, committer.report_to)
        self._remote = committer
        self._count = count

    @classmethod
    async def join(
        cls, path: str, invitation: Invitation, lost: Callable[[], None], meters: Meters | None = None
    ) -> JoinedStore:
        """Join the store at ``path``; see ``join_store``."""
        link, count = invitation.descriptors
        commits = CommitCount(count)
        committer = await RemoteCommitter.join(socket.socket(fileno=link), commits, lost)
        return cls(await Readers.open(path, meters), committer, commits)

    @property
    def behind(self) -> bool:
        return self._remote.behind

    async def catch_up(self) -> None:
        await self._remote.catch_up()

    def tell(self, partial: Partial) -> None:
        self._remote.tell(partial)

    async def ping(self) -> None:
        if not self._remote.alive:
            raise _gone()
        await super().ping()

    async def close(self) -> None:
        await super().close()
        self._count.close()


def _gone() -> StoreUnavailable:
    return StoreUnavailable("the process that commits is gone")


def _nothing() -> None:
    """What is to be done when a process is gone that is not needed any more."""
