"""Tries in child processes, one at a time in each."""

from __future__ import annotations

import asyncio
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from taskserver.client import RunClient
from taskserver.worker import capture
from taskserver.worker.calling import FAILED_CODE, Ended
from taskserver.worker.errors import TaskStopped
from taskserver.worker.executor import STOP_GRACE, Executor, Try, conclude, given_up, settled
from taskserver.worker.graph import TaskSettings
from taskserver.worker.loading import load_dags
from taskserver.worker.record import GIVEN_BACK, LOST, Lost, Record
from taskserver.worker.remote import Done, Job, Work, run_job
from taskserver.worker.stopping import Stopper, timed_out

STOPPED = "stopped by its worker"


@dataclass(frozen=True)
class Loaded:
    """A call of a task that the child process has loaded by itself."""

    dag_id: str
    task_id: str
    args: tuple[Any, ...]
    kwargs: Any

    def __call__(self) -> Work:
        return _dags[self.dag_id].nodes[self.task_id].function, self.args, self.kwargs


class Slot:
    """One child process; a pool of one, so that its death concerns nobody else."""

    def __init__(self, sources: tuple[str, ...]) -> None:
        # Not forked: this process has threads, and a fork would copy their locks in any state.
        spawn = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(1, spawn, _prepare, (sources,))
        self._loop = asyncio.get_running_loop()
        self.pid = 0

    async def start(self) -> None:
        """Return when it is ready. Raises BrokenProcessPool."""
        self.pid = await self._loop.run_in_executor(self.pool, os.getpid)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it is there."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return


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
            if not slot.pid:
                await slot.start()
            return await self._run_in(slot, one)
        except BrokenProcessPool:
            slot.pool.shutdown(wait=False)
            slot = Slot(self._sources)  # starts with its next try
            return await self._lost_process(one)
        finally:
            self._free.put_nowait(slot)

    async def close(self) -> None:
        while not self._free.empty():
            self._free.get_nowait().pool.shutdown(wait=False, cancel_futures=True)

    async def _run_in(self, slot: Slot, one: Try) -> Done:
        loop, made = asyncio.get_running_loop(), one.call
        settings = made.node.settings
        work = Loaded(one.context.dag_id, made.node.task_id, made.args, made.kwargs)
        job = Job(self._client.url, self._client.connection.key, one.place, work, settings, one.context, one.task)
        future = loop.run_in_executor(slot.pool, _run, job)
        timer = _late(loop, one, settings)
        try:
            if not await settled(future, one, 0):
                slot.signal(signal.SIGTERM)
                if not await settled(future, one, STOP_GRACE):
                    slot.signal(signal.SIGKILL)
            return await conclude(self._client, one, await future)
        finally:
            if timer is not None:
                timer.cancel()

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


# --- in the child process --------------------------------------------------------

_dags: dict[str, Any] = {}
_stopper: Stopper | None = None


def _prepare(sources: tuple[str, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the worker says what it means
    signal.signal(signal.SIGTERM, _on_stop)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    capture.install()
    _dags.update(load_dags(sources))


def _run(job: Job) -> Done:
    global _stopper
    # A signal wakes this thread from what blocks, as an exception alone would not.
    _stopper = Stopper(interrupt=lambda thread: signal.pthread_kill(thread, signal.SIGTERM))
    try:
        return run_job(job, _stopper)
    finally:
        _stopper = None


def _on_stop(number: int, frame: Any) -> None:
    if _stopper is None:
        sys.exit(0)
    if not _stopper.raising:
        _stopper.stop(STOPPED)
        return
    _stopper.reason = _stopper.reason or STOPPED
    raise TaskStopped


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)  # with all that runs: nobody renews the run's lease any more
