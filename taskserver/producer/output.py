"""Output: what a function prints, from whatever thread, on its way into a task."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from taskserver.client import TaskClient
from taskserver.config import MIB
from taskserver.model import Stream, now_us
from taskserver.producer.lines import LineCutter, Records
from taskserver.producer.sender import Sender
from taskserver.producer.spool import Spool

SPOOL_LIMIT = 64 * MIB  # of lines that the server has not taken: then the writers are held up

Say = Callable[[str], None]


class Output:
    """The lines of one task, cut out of what is written; sent, in order and each once, by a ``Sender``.

    It belongs to the event loop ``loop``; ``write`` is for any thread but the loop's. Nothing
    is made before something is written: a task that prints nothing costs nothing.

    Args:
        created: what is awaited before the first line is sent.
        on_cancel: called (in the loop) when the server says that the task is to stop.
        say: takes a line for the user.
    """

    def __init__(
        self,
        client: TaskClient,
        task_id: str,
        loop: asyncio.AbstractEventLoop,
        *,
        lease: float,
        created: Callable[[], Awaitable[object]],
        on_cancel: Callable[[], None],
        say: Say,
        spool_limit: int = SPOOL_LIMIT,
        spool_folder: Path | None = None,
    ) -> None:
        self._client = client
        self._task_id = task_id
        self._loop = loop
        self._lease = lease
        self._created = created
        self._on_cancel = on_cancel
        self._say = say
        self._spool_limit = spool_limit
        self._spool_folder = spool_folder
        self._lock = threading.Lock()
        self._cutters = {stream: LineCutter(stream) for stream in Stream}
        self._spool: Spool | None = None
        self._sender: Sender | None = None
        self._sending: asyncio.Task[None] | None = None
        self._closed = False
        self._untouched = True

    @property
    def empty(self) -> bool:
        """Whether nothing has been written, not even a part of a line."""
        return self._untouched

    def keep_alive(self) -> None:
        """Keep the task's lease also before the first line."""
        with self._lock:
            self._open()

    def write(self, stream: Stream, data: bytes) -> bool:
        """Take some output; waits while there is no room for it. False if the output is closed."""
        with self._lock:
            if self._closed:
                return False
            self._untouched = False
            records = self._cutters[stream].feed(data, now_us())
            self._put(records)
            if not records.count:
                self._open()  # an unfinished line is told too
                self._stir()
        return True

    async def close(self, patience: float) -> bool:
        """End it; returns when the server has all lines, with True, or will not take them.

        A server that is away is waited for as long as it was heard of within the
        last ``patience`` seconds.
        """
        spool = self._spool
        if spool is not None:
            spool.lift_limit()  # who is held up holds the lock
        with self._lock:
            self._closed = True
            for cutter in self._cutters.values():
                self._put(cutter.end(now_us()))
        spool = self._spool
        if spool is None:
            return True
        spool.lift_limit()
        self._begin()
        assert self._sending is not None
        spool.end()
        try:
            return await self._all_sent(patience)
        finally:
            self._sending.cancel()
            spool.remove()

    def abandon(self) -> None:
        """Send nothing more: the task is somebody else's now."""
        self._closed = True
        if self._spool is not None:
            self._spool.discard()
            self._begin()
        if self._sending is not None:
            self._sending.cancel()

    def _put(self, records: Records) -> None:
        """Spool some lines; the lock is held."""
        if not records.count:
            return
        self._open().write(records.data, records.count)

    def _open(self) -> Spool:
        if self._spool is None:
            self._spool = Spool(self._spool_folder, self._spool_limit, self._wake, self._say)
            # Not in the writer's context: what the sender logs would become part of what it is to send.
            self._loop.call_soon_threadsafe(self._begin, context=contextvars.Context())
        return self._spool

    def _begin(self) -> None:
        """Start the sender, in the loop. A repeat does nothing."""
        if self._sending is None and self._spool is not None:
            self._sender = Sender(
                self._client,
                self._task_id,
                self._spool,
                self._lease,
                self._on_cancel,
                self._say,
                self._cutters.values(),
            )
            self._sending = asyncio.ensure_future(self._send(self._sender))

    async def _send(self, sender: Sender) -> None:
        await self._created()
        await sender.send_all()

    async def _all_sent(self, patience: float) -> bool:
        assert self._sender is not None
        assert self._sending is not None
        while not self._sending.done():
            left = self._sender.heard_at + patience - time.monotonic()
            if left <= 0:
                return False
            await asyncio.wait({self._sending}, timeout=left)
        return not self._sending.cancelled() and self._sending.exception() is None and not self._sender.refused

    def _wake(self) -> None:
        sender = self._sender
        if sender is not None:
            with suppress(RuntimeError):  # the loop is closed
                sender.wake()

    def _stir(self) -> None:
        sender = self._sender
        if sender is not None:
            with suppress(RuntimeError):
                sender.stir()
