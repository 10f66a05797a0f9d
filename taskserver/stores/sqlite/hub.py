"""The process that commits for others: they hand it operations, and it tells all of them what was committed."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from taskserver.config import MIB
from taskserver.errors import StoreUnavailable, TaskServerError
from taskserver.store import AnyChange, Invitation, Listener, SharedStore
from taskserver.stores.sqlite.file import DatabaseFile
from taskserver.stores.sqlite.readers import Readers
from taskserver.stores.sqlite.store import Committer, SqliteStore
from taskserver.stores.sqlite.transaction import Operation
from taskserver.stores.sqlite.wire import Answer, CommitCount, FrameReader, answers_frame, changes_frame

log = logging.getLogger(__name__)

MOST_UNREAD = 256 * MIB  # what a process may leave unread before it is given up: it hangs, and this one must not grow


class HubStore(SqliteStore, SharedStore):
    """A store on a file of its own that other processes join."""

    def __init__(
        self, readers: Readers, connect: Callable[[Listener], Committer], file: DatabaseFile | None = None
    ) -> None:
        super().__init__(readers, connect, file)
        assert file is not None
        self._path = file.path
        self._count = CommitCount()
        self._members: set[_Member] = set()

    async def invite(self) -> Invitation:
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(partial(_Member, self), sock=ours)
        link = theirs.detach()
        return Invitation(f"sqlite:///{self._path}", link, (link, self._count.descriptor))

    async def close(self) -> None:
        await super().close()
        for member in list(self._members):
            member.abort()
        self._count.close()

    def welcome(self, member: _Member) -> None:
        """Tell a new member from now on what is committed."""
        self._members.add(member)
        member.tell(changes_frame(self._count.value, ()))

    def forget(self, member: _Member) -> None:
        """A member has left."""
        self._members.discard(member)

    def _report(self, changes: Sequence[AnyChange]) -> None:
        count = self._count.value + 1
        frame = changes_frame(count, changes) if self._members else b""
        # In this order: who is told of an answer can find out that there is news, and finds them on their way.
        self._count.value = count
        for member in list(self._members):
            member.tell(frame)
        super()._report(changes)


class _Member(asyncio.Protocol):
    """The connection to one process that has joined."""

    def __init__(self, store: HubStore) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._frames = FrameReader()
        self._changes: list[bytes] = []  # frames
        self._answers: list[Answer] = []
        self._flushing = False
        self._transport: asyncio.Transport

    def tell(self, changes: bytes) -> None:
        """Send a frame of changes, together with the answers that are about to follow."""
        self._changes.append(changes)
        if not self._flushing:
            self._flushing = True
            # Behind the callbacks of the commit's futures, which are about to be queued: one write instead of two, and
            # the other process wakes once.
            self._loop.call_soon(self._loop.call_soon, self._flush)

    def abort(self) -> None:
        """Close the connection at once."""
        self._store.forget(self)
        self._transport.abort()

    # --- asyncio.Protocol --------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._store.welcome(self)

    def data_received(self, data: bytes) -> None:
        for calls in self._frames.feed(data):
            for number, operation in calls:
                self._submit(number, operation)

    def connection_lost(self, exc: Exception | None) -> None:
        self._store.forget(self)

    # --- calls -------------------------------------------------------------------

    def _submit(self, number: int, operation: Operation[Any]) -> None:
        self._store.submit(operation).add_done_callback(partial(self._answer, number))

    def _answer(self, number: int, future: asyncio.Future[Any]) -> None:
        error = future.exception()
        if error is not None and not isinstance(error, TaskServerError):
            error = StoreUnavailable(f"the database failed: {error}")
        self._answers.append((number, error, None if error is not None else future.result()))
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send what has gathered; a process that has left too much unread is given up."""
        frames, self._changes, self._flushing = self._changes, [], False
        if self._answers:
            frames.append(answers_frame(self._answers))
            self._answers = []
        if self._transport.is_closing():
            return
        self._transport.write(b"".join(frames))
        if self._transport.get_write_buffer_size() > MOST_UNREAD:
            log.error("a process does not read what is committed; it is cut off")
            self.abort()
