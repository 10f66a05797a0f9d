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
        member.send(changes_frame(self._count.value, ()))

    def forget(self, member: _Member) -> None:
        """A member has left."""
        self._members.discard(member)

    def _report(self, changes: Sequence[AnyChange]) -> None:
        count = self._count.value + 1
        frame = changes_frame(count, changes) if self._members else b""
        # In this order: who is told of an answer can find out that there is news, and finds them on their way.
        self._count.value = count
        for member in list(self._members):
            member.send(frame)
        super()._report(changes)


class _Member(asyncio.Protocol):
    """The connection to one process that has joined."""

    def __init__(self, store: HubStore) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._frames = FrameReader()
        self._answers: list[Answer] = []
        self._transport: asyncio.Transport

    def send(self, frame: bytes) -> None:
        """Send a frame; a process that has left too many unread is given up."""
        if self._transport.is_closing():
            return
        self._transport.write(frame)
        if self._transport.get_write_buffer_size() > MOST_UNREAD:
            log.error("a process does not read what is committed; it is cut off")
            self.abort()

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
        if len(self._answers) == 1:
            # The callbacks of a commit run one after another: one frame takes all their answers.
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        answers, self._answers = self._answers, []
        self.send(answers_frame(answers))
