"""The process that commits for others: they hand it operations, and it tells all of them what was committed."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any, cast

from taskserver.config import MIB
from taskserver.partial import Partial
from taskserver.store import AnyChange, Invitation, Listener, SharedStore
from taskserver.stores.sqlite.committer import GroupCommitter, Reply
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
        await loop.create_unix_connection(lambda: _Member(self), sock=ours)
        link = theirs.detach()
        return Invitation(f"sqlite:///{self._path}", link, (link, self._count.descriptor))

    def tell(self, partial: Partial) -> None:
        if self._members:
            frame = changes_frame(self._count.value, [partial])
            for member in list(self._members):
                member.tell(frame)
        super().tell(partial)

    async def close(self) -> None:
        await super().close()
        for member in list(self._members):
            member.abort()
        self._count.close()

    def welcome(self, member: _Member) -> None:
        """Tell a new member from now on what is committed."""
        self._members.add(member)
        member.tell(changes_frame(self._count.value, ()))

    def enqueue(self, operation: Operation[Any], reply: Reply) -> None:
        """Have a member's operation committed."""
        assert isinstance(self._committer, GroupCommitter)
        self._committer.enqueue(operation, reply)

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
        """Send a frame of changes, together with the answers that follow before the event loop turns."""
        self._changes.append(changes)
        self._schedule()

    def answer(self, number: int, error: BaseException | None, result: Any) -> None:
        """Send what became of a call."""
        self._answers.append((number, error, result))
        self._schedule()

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
            for number, what in calls:
                if isinstance(what, Partial):
                    self._store.tell(what)
                else:
                    self._store.enqueue(what, _Reply(self, number))

    def connection_lost(self, exc: Exception | None) -> None:
        self._store.forget(self)

    # -----------------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self._flushing:
            self._flushing = True
            # A commit's changes and answers come in one turn: one write, for which the other process wakes once. And
            # it comes before the requests of this process go on that wait for the same commit.
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


class _Reply:
    """Who asked is told through the connection."""

    __slots__ = ("_member", "_number")

    def __init__(self, member: _Member, number: int) -> None:
        self._member = member
        self._number = number

    def done(self) -> bool:
        return False

    def set_result(self, result: Any, /) -> None:
        self._member.answer(self._number, None, result)

    def set_exception(self, exception: BaseException, /) -> None:
        self._member.answer(self._number, exception, None)
