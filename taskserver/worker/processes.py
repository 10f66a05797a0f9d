"""Tries in child processes, one at a time in each."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress

from taskserver.client import RunClient
from taskserver.worker import child
from taskserver.worker.calling import FAILED_CODE, Ended
from taskserver.worker.executor import STOP_GRACE, Executor, Try, conclude, given_up, settled
from taskserver.worker.graph import TaskSettings
from taskserver.worker.record import GIVEN_BACK, LOST, Lost, Record
from taskserver.worker.remote import Done, Job
from taskserver.worker.stopping import timed_out


class Slot:
    """One child process; a pool of one, so that its death concerns nobody else."""

    def __init__(self, sources: tuple[str, ...]) -> None:
        # Not forked: this process has threads, and a fork would copy their locks in any state.
        spawn = multiprocessing.get_context("spawn")
        self._control, self._theirs = spawn.Pipe()
        self.pool = ProcessPoolExecutor(1, spawn, child.prepare, (sources, self._theirs))
        self._loop = asyncio.get_running_loop()
        self._begun: set[str] = set()
        self._pid = 0

    async def start(self) -> None:
        """Return when it is ready. Raises BrokenProcessPool."""
        if not self._pid:
            self._pid = await self._loop.run_in_executor(self.pool, os.getpid)
            self._theirs.close()

    def submit(self, job: Job) -> asyncio.Future[Done]:
        """Have a try run. The future raises BrokenProcessPool if the process has died before its end."""
        self._begun.clear()
        return self._loop.run_in_executor(self.pool, child.run, job)

    def stop(self, task: str, reason: str) -> None:
        """Ask it to stop a try."""
        with suppress(OSError):  # it has died
            self._control.send((task, reason))

    def kill(self) -> None:
        """End it, whatever it does."""
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)

    def has_begun(self, task: str) -> bool:
        """Whether it has begun a try."""
        with suppress(EOFError, OSError):  # what a process has said before its death is still there
            while self._control.poll():
                self._begun.add(self._control.recv())
        return task in self._begun

    def close(self) -> None:
        """Let go of it; a process that lives ends by itself."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        self._control.close()
        self._theirs.close()


class Processes(Executor):
    """In child processes of the worker. What does not stop is killed with its process."""

    def __init__(self, client: RunClient, concurrency: int, sources: tuple[str, ...]) -> None:
        self.concurrency = concurrency
        self._client = client
        self._sources = sources
        self._free: asyncio.Queue[Slot] = asyncio.Queue()

    async def start(self) -> None:
        slots = [Slot(self._sources) for _ in range(self.concurrency)]
        await asyncio.gather(*(slot.start() for slot in slots))
        for slot in slots:
            self._free.put_nowait(slot)

    async def run(self, one: Try) -> Done:
        slot = await self._free.get()
        try:
            with suppress(BrokenProcessPool):
                return await self._run_in(slot, one)
            if not (slot.has_begun(one.task) or one.stopper.reason):  # the process had died before: not of this try
                slot = self._replaced(slot)
                with suppress(BrokenProcessPool):
                    return await self._run_in(slot, one)
            slot = self._replaced(slot)
            return await self._lost_process(one)
        finally:
            self._free.put_nowait(slot)

    async def close(self) -> None:
        while not self._free.empty():
            self._free.get_nowait().close()

    def _replaced(self, slot: Slot) -> Slot:
        """A fresh slot in the place of one whose process has died; it starts with its next try."""
        slot.close()
        return Slot(self._sources)

    async def _run_in(self, slot: Slot, one: Try) -> Done:
        await slot.start()
        loop, made = asyncio.get_running_loop(), one.call
        settings = made.node.settings
        work = child.Loaded(one.context.dag_id, made.node.task_id, made.args, made.kwargs)
        job = Job(self._client.url, self._client.connection.key, one.place, work, settings, one.context, one.task)
        future = slot.submit(job)
        timer = _late(loop, one, settings)
        try:
            if not await settled(future, one, 0):
                slot.stop(one.task, one.stopper.reason)
                if not await settled(future, one, STOP_GRACE):
                    slot.kill()
            done = await future
        finally:
            if timer is not None:
                timer.cancel()
        slot.has_begun(one.task)  # empties the pipe
        return await conclude(self._client, one, done)

    async def _lost_process(self, one: Try) -> Done:
        """Tell the server of a try whose process is gone."""
        if one.stopper.reason in (LOST, GIVEN_BACK):
            return Done(Ended(None), one.stopper.reason)
        ended = Ended(None, FAILED_CODE, "the task's process has died: it was killed, has crashed or called os._exit")
        if one.stopper.reason:
            ended = given_up(one, "; its process was killed")
        record = Record(self._client, one.place, one.task)
        try:
            await record.create()  # in case that it came to die before it could
            await record.finish(ended)
        except Lost as error:
            return Done(ended, str(error))
        return Done(ended)


def _late(loop: asyncio.AbstractEventLoop, one: Try, settings: TaskSettings) -> asyncio.TimerHandle | None:
    """The process keeps the time limit by itself; this is for one that cannot."""
    if settings.timeout is None:
        return None
    return loop.call_later(settings.timeout + STOP_GRACE, one.stopper.stop, timed_out(settings.timeout))
