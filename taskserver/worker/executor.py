"""Executor: where tries run; and the one that runs them in threads of the worker itself."""

from __future__ import annotations

import abc
import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from taskserver.client import RunClient
from taskserver.model import CANCELLED_CODE, new_id
from taskserver.producer.output import Output, Say
from taskserver.worker import capture
from taskserver.worker.calling import FAILED_CODE, Ended, call
from taskserver.worker.context import Context
from taskserver.worker.errors import TaskStopped
from taskserver.worker.progress import Call
from taskserver.worker.record import CANCELLED, GIVEN_BACK, LOST, Lost, Place, Record
from taskserver.worker.remote import Done
from taskserver.worker.stopping import Stopper

QUICK = 0.005  # seconds; a try that has ended by then without a line is told of in one request
STOP_GRACE = 5.0  # seconds that a task has to stop, before its worker gives it up


@dataclass(eq=False)
class Try:
    """One try of a call, to be made in the event loop. ``stopper`` stops it; ``recorded``: its record exists.

    ``left_behind``: it could not be stopped, and may still run though it counts as ended.
    """

    call: Call
    place: Place
    context: Context
    task: str = field(default_factory=new_id)
    recorded: bool = False
    left_behind: bool = False

    def __post_init__(self) -> None:
        loop, self.halted = asyncio.get_running_loop(), asyncio.Event()

        def told() -> None:
            loop.call_soon_threadsafe(self.halted.set)

        self.stopper = Stopper(told=told)

    @property
    def cancelled(self) -> bool:
        """Whether the server is to show it as cancelled."""
        return bool(self.stopper.reason) and not self.stopper.reason.startswith("timed out")


class Executor(abc.ABC):
    """Runs tries, at most ``concurrency`` at a time, and tells the server of each: its record, its output, its end."""

    concurrency: int

    async def start(self) -> None:
        """Get ready."""
        return

    @abc.abstractmethod
    async def run(self, one: Try) -> Done:
        """Run a try to its end."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Let go of everything. Nothing runs any more, but for what cannot be stopped."""


class Threads(Executor):
    """In threads of this process.

    What cannot be stopped there (a call that blocks in C) is left behind in its
    thread; its try has ended for everybody else.
    """

    def __init__(self, client: RunClient, concurrency: int, say: Say) -> None:
        self.concurrency = concurrency
        self.left_behind = 0
        """How many threads run something that has been given up."""
        self._client = client
        self._say = say
        # The worker bounds how many run; the pool only must not queue a try behind one that was left behind.
        self._pool = ThreadPoolExecutor(max_workers=10_000, thread_name_prefix="task")

    async def run(self, one: Try) -> Done:
        loop, record = asyncio.get_running_loop(), Record(self._client, one.place, one.task)
        created = asyncio.Event()
        output = Output(
            self._client.tasks,
            one.task,
            loop,
            lease=one.place.lease,
            created=created.wait,
            on_cancel=lambda: one.stopper.stop(CANCELLED),
            say=self._say,
        )
        # It begins before its record is made: the run is this worker's, and nobody else begins this try.
        future = loop.run_in_executor(self._pool, contextvars.Context().run, _call, one, output)
        if not one.recorded:
            await asyncio.wait({future}, timeout=QUICK)
            if future.done() and output.empty and not one.stopper.reason:
                return await self._record_at_once(record, future.result(), output)
        creating = asyncio.ensure_future(_create(record, one, created))
        keeping = asyncio.ensure_future(_keep(record, one, created))
        try:
            ended = await self._settled(future, one)
            if one.stopper.reason in (LOST, GIVEN_BACK):
                output.abandon()
                return Done(ended, one.stopper.reason)
            await creating
            await output.close(one.place.lease)
            await record.finish(ended)
        except Lost as error:
            one.stopper.stop(LOST)
            await self._settled(future, one)
            output.abandon()
            return Done(Ended(None), str(error))
        finally:
            keeping.cancel()
            if not creating.cancel() and not creating.cancelled():
                creating.exception()  # of a try that was given up nobody wants to know it
        return Done(ended)

    async def _record_at_once(self, record: Record, ended: Ended, output: Output) -> Done:
        """Tell of a try that has ended before there was anything to tell of it."""
        await output.close(0)
        try:
            await record.create(ended)
        except Lost as error:
            return Done(Ended(None), str(error))
        return Done(ended)

    async def close(self) -> None:
        self._pool.shutdown(wait=not self.left_behind, cancel_futures=True)

    async def _settled(self, future: asyncio.Future[Ended], one: Try) -> Ended:
        """How the call ended, or what is said of one that does not stop."""
        if await settled(future, one, STOP_GRACE):
            return future.result()
        one.left_behind = True
        self.left_behind += 1
        future.add_done_callback(partial(self._came_back, one))
        return given_up(one, "; its thread cannot be stopped and was left behind")

    def _came_back(self, one: Try, future: asyncio.Future[Ended]) -> None:
        one.left_behind = False
        self.left_behind -= 1


def _call(one: Try, output: Output) -> Ended:
    made = one.call
    try:
        with capture.into(output.write):
            return call(
                made.node.function, made.args, made.kwargs, made.node.settings, one.context, one.stopper, output.write
            )
    except TaskStopped:  # it came when the task's own code had ended
        return given_up(one, "")


async def settled(future: asyncio.Future[Any], one: Try, grace: float) -> bool:
    """Wait for a call, and when it is stopped not longer than ``grace`` seconds more; whether it has ended."""
    halted = asyncio.ensure_future(one.halted.wait())
    try:
        await asyncio.wait({future, halted}, return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            await asyncio.wait({future}, timeout=grace)
    finally:
        halted.cancel()
    return future.done()


def given_up(one: Try, how: str) -> Ended:
    """The end of a call that does not end by itself."""
    code = CANCELLED_CODE if one.cancelled else FAILED_CODE
    return Ended(None, code, f"{one.stopper.reason}{how}", stopped=one.cancelled)


async def conclude(client: RunClient, one: Try, done: Done) -> Done:
    """What is to be said of a try that ran elsewhere; the end of one that was stopped is told here."""
    if one.stopper.reason in (LOST, GIVEN_BACK):
        return Done(done.ended, one.stopper.reason)
    if not done.unended:
        return done
    ended = given_up(one, "") if one.stopper.reason else done.ended
    try:
        await Record(client, one.place, done.unended).finish(ended)
    except Lost as error:
        return Done(ended, str(error))
    return Done(ended)


async def _create(record: Record, one: Try, created: asyncio.Event) -> None:
    if not one.recorded:
        await record.create()
    created.set()


async def _keep(record: Record, one: Try, created: asyncio.Event) -> None:
    await created.wait()
    await record.keep(one.stopper)
