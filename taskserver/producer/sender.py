"""Sender: takes records from the spool to the server, in order, each once; keeps the lease; ends the task."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from http import HTTPStatus
from math import inf
from typing import TypeVar

from taskserver.client import ApiError, Backoff, TaskClient, Unreachable, is_away
from taskserver.client.answers import APPEND_CONFLICT, OUTPUT_FULL, TASK_FINISHED
from taskserver.config import KIB, MIB, PARTIAL_PAUSE
from taskserver.model import now_us
from taskserver.producer.lines import LineCutter
from taskserver.producer.process import Exit
from taskserver.producer.spool import Batch, Spool
from taskserver.producer.tail import Tail

BATCH_BYTES = 1 * MIB
BATCH_LINES = 5_000
GATHER_SECONDS = 0.1  # what readers may notice as delay, and the server as at most ten appends a second
GATHER_BYTES = 256 * KIB  # enough for a request of its own, so it need not wait
HEARTBEATS_PER_LEASE = 3  # one may get lost, and another be late
PARTIAL_RETRY = 1.0  # seconds before it is tried again to tell what is unfinished
NO_PARTIAL = b'{"partial":""}\n'

T = TypeVar("T")


class Sender:
    """One task's way to the server.

    Attributes:
        heard_at: when (``time.monotonic``) the server last did what was asked.
        away: the last request got no useful answer.
        finished: the server knows how the command ended.
        over: the task takes nothing more, so what is not sent can be dropped.
        refused: nothing more will be sent, whatever the reason.
    """

    def __init__(
        self,
        client: TaskClient,
        task_id: str,
        spool: Spool,
        lease: float,
        on_cancel: Callable[[], None],
        say: Callable[[str], None],
        cutters: Collection[LineCutter] = (),
    ) -> None:
        """``cutters`` have what is not in the spool yet, since it is unfinished; see ``stir``."""
        self._client = client
        self._task_id = task_id
        self._spool = spool
        self._cutters = cutters
        self._heartbeat_every = lease / HEARTBEATS_PER_LEASE
        self._on_cancel = on_cancel
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._wanted: float = inf
        self._told = b""
        """What the server knows to be unfinished: records."""
        self._tell_at = 0.0  # when it may be told again
        self._quiet = False
        """There was nothing more to tell of it, so who writes has to say when there is."""
        self.first = 0
        """The number of the next line to send."""
        self.unanswered = 0
        """How many lines from there on have been sent, without an answer as yet."""
        self.heard_at = time.monotonic()
        self.away = self.finished = self.over = self.refused = False
        self.closing = False
        """What is still to be sent is the end of an output that was too long; see ``settle``."""
        self._head_end: float = inf  # the line with which the task's output is full but for its end, and
        self._end = 0  # with it
        self._tail: Tail | None = None

    def wake(self) -> None:
        """Look at the spool again, if what is there is enough. For any thread, after a change."""
        if self._spool.complete or self._spool.unsent_bytes >= self._wanted:
            self._wanted = inf
            self._loop.call_soon_threadsafe(self._changed.set)

    def stir(self) -> None:
        """Look at the cutters again. For any thread, after what it wrote completed no line."""
        if self._quiet:
            self._quiet = False
            self._loop.call_soon_threadsafe(self._changed.set)

    async def send_all(self) -> None:
        """Send what the spool holds and will hold, until it is complete or the server refuses for good."""
        await self._heartbeat()  # the command has started: the task runs, even if it stays quiet
        while not self.refused:
            complete = self._spool.complete  # looked at before the records: none can come between
            batch = self._spool.peek(BATCH_BYTES, self._most_lines)
            if batch.lines and self._tail is not None:
                self._keep(batch)
                await asyncio.sleep(0)  # there may always be more: others have a turn
            elif batch.lines:
                await self._append(batch)
                await self._until(GATHER_BYTES, GATHER_SECONDS)
            elif not complete:
                await self._tell_unfinished()
                await self._until(1, self._patience())
            elif self._tail is not None:
                self.settle()
            else:
                return
            if time.monotonic() >= self.heard_at + self._heartbeat_every:
                await self._heartbeat()
                self._told = b""  # a server that was started anew does not know it

    def _patience(self) -> float:
        """Seconds until something is to be done, if nothing comes."""
        self._quiet = True  # first say so, then look: as in `_until`
        now = time.monotonic()
        pause = self.heard_at + self._heartbeat_every - now
        if self._unfinished(None) == self._told:
            return pause
        self._quiet = False
        return min(pause, self._tell_at - now if self._tell_at > now else PARTIAL_PAUSE)

    def settle(self) -> None:
        """If the task takes no more than an end, leave that, and nothing else, in the spool to be sent.

        The end is a mark that tells how many lines are left out, and the newest lines.
        """
        if self._tail is None:
            return
        while (batch := self._spool.peek(BATCH_BYTES, BATCH_LINES)).lines:
            self._keep(batch)
        try:
            self._spool.put_back(self._tail.end())
        except OSError as error:
            self._say(f"cannot write to the spool file {self._spool.path}: {error.strerror}; the end is lost")
        self._tail, self.closing = None, True

    async def finish(self, end: Exit) -> None:
        """Tell how the command ended."""
        if self.refused:
            return
        try:
            await self._call(partial(self._client.finish, self._task_id, end.code, end.error))
            self.finished = True
        except ApiError as error:
            self._refuse(error)

    # --- one call each -------------------------------------------------------------

    async def _append(self, batch: Batch) -> None:
        self.unanswered = batch.lines
        # Behind a part of what is there stands the rest of that.
        unfinished = self._unfinished(now_us()) if len(batch.data) == self._spool.unsent_bytes else b""
        try:
            append = partial(self._client.append_ndjson, self._task_id, batch.data + unfinished, first=self.first)
            done = await self._call(partial(append, closing=self.closing))
        except ApiError as error:
            if error.code == OUTPUT_FULL:
                self._is_full(error, batch)
                return
            if unfinished and error.status == HTTPStatus.BAD_REQUEST:
                self._tell_no_more()  # it knows nothing of unfinished lines: no line is lost for their sake
                return
            if error.code != APPEND_CONFLICT:
                self._refuse(error)
                return
            # These lines stand nowhere, or the repeat would have been recognised: they go behind what does.
            self._say(f"the task's output is not as this command left it: {error.message}; going on at the end")
            self._go_on_at(error.payload["last"])
            return
        self._spool.take(batch)
        self._told = unfinished
        self._go_on_at(done.last)
        if done.cancel_requested:
            self._on_cancel()

    async def _tell_unfinished(self) -> None:
        """Tell what is unfinished, if the server does not know it and it is time.

        One try: when it fails the next one tells what there is then, and no line waits for it.
        """
        unfinished = self._unfinished(now_us())
        if unfinished == self._told or time.monotonic() < self._tell_at:
            return
        self._tell_at = time.monotonic() + PARTIAL_PAUSE
        try:
            done = await self._client.append_ndjson(self._task_id, unfinished or NO_PARTIAL)
        except Unreachable:
            self._tell_at += PARTIAL_RETRY
        except ApiError as error:
            if error.code == TASK_FINISHED or error.status == HTTPStatus.NOT_FOUND:
                self._refuse(error)
            elif is_away(error):
                self._tell_at += error.retry_after or PARTIAL_RETRY
            else:
                self._tell_no_more()
        else:
            self._told, self.heard_at = unfinished, time.monotonic()
            if done.cancel_requested:
                self._on_cancel()

    def _tell_no_more(self) -> None:
        """The server wants to hear nothing of what is unfinished."""
        self._cutters, self._told = (), b""

    def _unfinished(self, time_us: int | None) -> bytes:
        """What stands behind the spool's last line; see ``LineCutter.partial``."""
        if self._tail is not None or self.closing:  # and not behind the task's: lines are being left out
            return b""
        return b"".join(cutter.partial(time_us) for cutter in self._cutters)

    def _is_full(self, error: ApiError, batch: Batch) -> None:
        """Send no more than there is room for, and from there on keep the end."""
        limit, reserve = error.payload["limit"], error.payload["reserve"]
        self.unanswered = 0
        if self.closing:
            self._spool.discard()
            self._say(f"{error.message}; the last lines are shown here only")
        elif self.first + batch.lines <= limit:  # there is room by its own word: it would be asked for ever
            self._refuse(error)
        else:
            self._head_end, self._end = limit, limit + reserve
            self._go_on_at(self.first)
            self._say(f"the task keeps at most {self._end} lines: from here on only the newest ones are, for its end")

    def _go_on_at(self, first: int) -> None:
        self.first, self.unanswered = first, 0
        if first >= self._head_end and self._tail is None and not self.closing:
            self._tail = Tail(self._end - first)

    def _keep(self, batch: Batch) -> None:
        assert self._tail is not None
        self._tail.add(batch)
        self._spool.take(batch)

    @property
    def _most_lines(self) -> int:
        """How many lines may be sent at once."""
        if self._tail is not None or self.closing or self._head_end == inf:
            return BATCH_LINES
        return min(BATCH_LINES, int(self._head_end) - self.first)

    async def _heartbeat(self) -> None:
        try:
            if await self._call(partial(self._client.heartbeat, self._task_id)):
                self._on_cancel()
        except ApiError as error:
            self._refuse(error)

    async def _call(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until there is an answer; raises ApiError only where asking again is of no use."""
        backoff = Backoff()
        while True:
            try:
                answer = await ask()
            except Unreachable as error:
                self._is_away(str(error))
                pause = backoff.next()
            except ApiError as error:
                if not is_away(error):
                    raise
                self._is_away(error.message)
                pause = backoff.next(error.retry_after)
            else:
                self.heard_at = time.monotonic()
                self._is_back()
                return answer
            await asyncio.sleep(pause)

    async def _until(self, wanted: int, seconds: float) -> bool:
        """Whether, within that time, ``wanted`` bytes are there to be sent or the spool is complete."""
        self._changed.clear()
        self._wanted = wanted  # first say what to look out for, then look: a change between the two is not missed
        try:
            if self._spool.complete or self._spool.unsent_bytes >= wanted:
                return True
            await asyncio.wait_for(self._changed.wait(), max(0.0, seconds))
        except asyncio.TimeoutError:
            return False
        finally:
            self._wanted = inf
        return True

    # --- what the user is told -------------------------------------------------------

    def _is_away(self, problem: str) -> None:
        if not self.away:
            self.away = True
            self._say(f"{problem}; keeping the output and trying again")

    def _is_back(self) -> None:
        if self.away:
            self.away = False
            self._told = b""  # it may have been started anew, and know nothing of it
            self._say("the server is back")

    def _refuse(self, error: ApiError) -> None:
        self.refused = True
        if error.code == TASK_FINISHED:
            state = error.payload["state"]
            self._over(f"the server has ended the task as {state}")
            if state == "cancelled":  # before it had begun
                self._on_cancel()
        elif error.status == HTTPStatus.NOT_FOUND:
            self._over(f"the task has been deleted: {error.message}")
        else:
            self._say(f"the server refuses the output: {error.message}; the rest of it is kept here")

    def _over(self, what: str) -> None:
        self.over = True
        self._spool.discard()
        self._say(f"{what}; the rest of the output is shown here only")
