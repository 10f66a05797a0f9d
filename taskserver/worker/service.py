"""The worker: registers dags, claims their runs and works on them until it is told to stop."""

from __future__ import annotations

import asyncio
import secrets
import signal
import time
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from taskserver.client import ApiError, RunClient, RunInfo, Unreachable, insist, is_away
from taskserver.config import DEFAULT_RUN_LEASE, MAX_OUTPUT_WAIT
from taskserver.model import new_id
from taskserver.producer.output import Say
from taskserver.worker.claim import Claim
from taskserver.worker.dag import Dag
from taskserver.worker.executor import Executor
from taskserver.worker.running import STOP_LIMIT, Running, Shared

T = TypeVar("T")

MIN_LEASE = 2.0  # seconds; a claim waits for a second at least, and half a lease at most
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
LAST_MOMENT = 10.0  # seconds for what is stopped at the end to tell so


@dataclass(frozen=True)
class Options:
    """What a user may wish of a worker. Times are in seconds.

    Attributes:
        lease: how long the server may hear nothing before it takes the worker for lost; at least MIN_LEASE.
        grace: how long a worker that was told to stop lets tasks run on.
        quiet: nothing is said of runs that end as they should.
    """

    lease: float = DEFAULT_RUN_LEASE
    grace: float = 30.0
    quiet: bool = False


class Worker:
    """A worker for some dags. As many runs as tasks at a time, so that others get theirs."""

    def __init__(
        self, client: RunClient, dags: Mapping[str, Dag], executor: Executor, options: Options, say: Say
    ) -> None:
        self._client = client
        self._dags = dags
        self._executor = executor
        self._options = options
        self._say = say
        self._stopping, self._hurry = asyncio.Event(), asyncio.Event()
        slots = asyncio.Semaphore(executor.concurrency)
        self._shared = Shared(client, executor, slots, self._stopping, say)
        self._room = asyncio.Semaphore(executor.concurrency)
        self._at_work: dict[asyncio.Task[None], Running] = {}
        self._claiming: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Work until a signal tells to stop, and bring what has begun to an end.

        Raises ApiError if the server does not let it work.
        """
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self.stop)
        try:
            await self._register()
            await self._unless_stopped(self._executor.start())
            if not self._stopping.is_set():
                self._say(f"working on {', '.join(sorted(self._dags))}")
            self._claiming = asyncio.create_task(self._claim_runs())
            stopped = asyncio.ensure_future(self._stopping.wait())
            await asyncio.wait({self._claiming, stopped}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            self._stopping.set()
            await self._claiming
        finally:
            await self._drain()
            for number in STOP_SIGNALS:
                loop.remove_signal_handler(number)
            await self._executor.close()

    def stop(self) -> None:
        """Claim nothing more and come to an end. The second time: at once."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    async def _register(self) -> None:
        """Tell the server of the dags; waits for a server that is away."""
        told = False
        for dag in self._dags.values():
            tasks = [
                {"task_id": node.task_id, "result": node.settings.result, "mapped": node.mapped}
                for node in dag.nodes.values()
            ]
            put = partial(self._client.put_dag, dag.dag_id, tasks, retries=dag.retries, display_name=dag.display_name)
            try:
                await put()
            except (ApiError, Unreachable) as error:
                if not is_away(error):
                    raise
                if not told:
                    self._say(f"{error}; trying again")
                    told = True
                await self._unless_stopped(insist(put, None, is_away))
            if self._stopping.is_set():
                return

    # --- claiming --------------------------------------------------------------------

    async def _claim_runs(self) -> None:
        while not self._stopping.is_set():
            await self._unless_stopped(self._room.acquire())
            if self._stopping.is_set():
                return
            run, asked = await self._claim()
            if run is None:
                self._room.release()
                continue
            running = Running(
                self._shared, self._dags[run.dag_id], Claim(self._client, run, self._options.lease, asked)
            )
            self._at_work[asyncio.create_task(self._work(running, run))] = running

    async def _claim(self) -> tuple[RunInfo | None, float]:
        """A run, as soon as there is one, and when it was asked for; none when it is time to stop."""
        secret = secrets.token_urlsafe(16)
        claim = partial(self._client.claim, list(self._dags), secret, lease=self._options.lease)
        # The lease begins somewhere within the wait; counted from its beginning, enough of it must be left at its end.
        wait = max(1, min(MAX_OUTPUT_WAIT, int(self._options.lease / 2)))
        away = False
        while not self._stopping.is_set():
            asked = time.monotonic()
            try:
                found = await self._unless_stopped(insist(partial(claim, wait=wait), 0))
            except (ApiError, Unreachable) as error:
                if not is_away(error):
                    raise
                if not away:
                    away = True
                    self._say(f"{error}; trying again")
                # The same secret again: a run whose claim was answered to nobody is got this way.
                await self._unless_stopped(insist(partial(claim, wait=0), None, is_away))
                await self._register()
                continue
            if away:
                away = False
                self._say("the server is back")
            if found is not None:
                return found, asked
        # The last request may have been carried out though its answer was not waited for: of no dag, it gets just that.
        asked = time.monotonic()
        with suppress(ApiError, Unreachable):
            return await self._client.claim([new_id()], secret, lease=self._options.lease), asked
        return None, asked

    async def _work(self, running: Running, run: RunInfo) -> None:
        began = time.monotonic()
        try:
            state = await running.work()
            if not self._options.quiet or state not in ("success", "failed", "cancelled"):
                self._say(f"run {run.id} of {run.dag_id}: {state} after {time.monotonic() - began:.3f} s")
        except Exception as error:  # a bug of ours must not end the worker with all its other runs
            self._say(f"run {run.id} of {run.dag_id} was dropped: {type(error).__name__}: {error}")
        finally:
            self._room.release()
            task = asyncio.current_task()
            assert task is not None
            self._at_work.pop(task, None)

    # --- the end ---------------------------------------------------------------------

    async def _drain(self) -> None:
        """Let what runs come to its end within the grace, and give back the rest."""
        self._stopping.set()
        if self._at_work:
            self._say(f"stopping: {len(self._at_work)} runs are under way, waiting up to {self._options.grace:g} s")
            all_done, hurry = asyncio.gather(*self._at_work), asyncio.ensure_future(self._hurry.wait())
            ends: set[asyncio.Future[Any]] = {all_done, hurry}
            await asyncio.wait(ends, timeout=self._options.grace, return_when=asyncio.FIRST_COMPLETED)
            hurry.cancel()
        left = dict(self._at_work)
        for running in left.values():
            running.give_up()
        if left:
            await asyncio.wait(set(left), timeout=STOP_LIMIT + LAST_MOMENT)

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What ``work`` gives, or None if it is time to stop before; then it is cancelled."""
        doing, stopped = asyncio.ensure_future(work), asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({doing, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return doing.result() if doing.done() else None
        finally:
            stopped.cancel()
            doing.cancel()
            await asyncio.gather(doing, return_exceptions=True)
