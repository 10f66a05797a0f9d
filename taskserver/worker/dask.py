"""Tries on a Dask cluster, through ``Client.get_executor()``."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from concurrent.futures import Executor as PoolExecutor
from contextlib import suppress
from functools import partial

import cloudpickle
from distributed import Client

from taskserver.client import ApiError, Backoff, RunClient, Unreachable
from taskserver.producer.output import Say
from taskserver.worker.calling import FAILED_CODE, Ended
from taskserver.worker.executor import Executor, Try, conclude, given_up, settled
from taskserver.worker.loading import module_name
from taskserver.worker.record import GIVEN_BACK, LOST, Lost, Record
from taskserver.worker.remote import Done, Job, Work, run_job
from taskserver.worker.stopping import timed_out

START_LIMIT = 12.0  # seconds for which a scheduler is waited for at the start: two attempts, if it does not even refuse
CONNECT_LIMIT = 30.0  # the same for one that has gone away; then its tries fail
CONNECT_TIMEOUT = 5.0  # for one attempt
SILENCE_LIMIT = 6.0  # the same if the scheduler takes the connection and then says nothing, which Dask waits for
REMOTE_GRACE = 20.0  # seconds in which a try on the cluster hears that it is to stop (MAX_BEAT), and stops


class Carried:
    """A call that brings the task's code along, so that the cluster needs no copy of the dag's file."""

    def __init__(self, work: Work) -> None:
        self._pickled: bytes = cloudpickle.dumps(work)

    def __call__(self) -> Work:
        work: Work = cloudpickle.loads(self._pickled)
        return work


class Dask(Executor):
    """On the workers of a Dask cluster, which must have taskserver installed and reach the server under its URL.

    Dask runs a call again when it has lost the worker that ran it. Here only the
    task's own retries may do that, so the second run finds the try taken.
    """

    def __init__(self, client: RunClient, concurrency: int, sources: Sequence[str], address: str, say: Say) -> None:
        self.concurrency = concurrency
        self._client = client
        self._address = address
        self._sources = sources
        self._say = say
        self._cluster: Client | None = None
        self._pool: PoolExecutor | None = None
        self._connecting = asyncio.Lock()
        self._away = False

    async def start(self) -> None:
        """Raises Unreachable if there is no scheduler for START_LIMIT seconds."""
        for source in self._sources:
            cloudpickle.register_pickle_by_value(sys.modules[module_name(source)])
        try:
            await self._insist(START_LIMIT)
        except OSError as error:
            raise Unreachable(f"cannot reach the Dask scheduler at {self._address}: {error}") from None

    async def run(self, one: Try) -> Done:
        try:
            future = asyncio.wrap_future((await self._ready()).submit(run_job, self._job(one)))
            done = await self._wait(future, one)
        except (OSError, CancelledError, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and _being_cancelled():
                raise
            return await self._end_lost(one, f"the Dask cluster has lost it: {_reason(error)}")
        except Exception as error:  # whatever Dask makes of the death of its parts, or what cannot be pickled
            return await self._end_lost(one, f"the Dask cluster could not run it: {_reason(error)}")
        if done.lost and not one.stopper.reason:
            return await self._end_lost(one, "the Dask worker that ran it was lost")
        return await conclude(self._client, one, done)

    async def close(self) -> None:
        if self._cluster is not None:
            await asyncio.to_thread(self._cluster.close, timeout=CONNECT_TIMEOUT)

    def _job(self, one: Try) -> Job:
        made = one.call
        work = Carried((made.node.function, made.args, made.kwargs))
        task = one.task if one.recorded else ""
        return Job(
            self._client.url, self._client.connection.key, one.place, work, made.node.settings, one.context, task
        )

    # --- the cluster -----------------------------------------------------------------

    async def _ready(self) -> PoolExecutor:
        async with self._connecting:
            if self._pool is None or self._cluster is None or self._cluster.status != "running":
                await self._reconnect()
            assert self._pool is not None
            return self._pool

    async def _connect(self) -> None:
        connect = partial(Client, self._address, timeout=CONNECT_TIMEOUT, set_as_default=False)
        self._cluster = await _soon(connect, SILENCE_LIMIT)
        self._pool = self._cluster.get_executor(pure=False, retries=0)  # type: ignore[no-untyped-call]

    async def _reconnect(self) -> None:
        self._tell_away()
        old, self._cluster, self._pool = self._cluster, None, None
        if old is not None:
            await asyncio.to_thread(old.close, timeout=CONNECT_TIMEOUT)
        await self._insist(CONNECT_LIMIT)

    async def _insist(self, limit: float) -> None:
        """Connect, however often it takes. Raises OSError when so many seconds are over."""
        backoff, loop = Backoff(), asyncio.get_running_loop()
        deadline = loop.time() + limit
        while True:
            try:
                await self._connect()
            except OSError:
                pause = backoff.next()
                if loop.time() + pause > deadline:
                    raise
                self._tell_away()
                await asyncio.sleep(pause)
            else:
                break
        if self._away:
            self._away = False
            self._say("the Dask scheduler is back")

    def _tell_away(self) -> None:
        if not self._away:
            self._away = True
            self._say(f"the Dask scheduler at {self._address} is away; trying again")

    # --- one try ---------------------------------------------------------------------

    async def _wait(self, future: asyncio.Future[Done], one: Try) -> Done:
        loop, limit = asyncio.get_running_loop(), one.call.node.settings.timeout
        timer = None
        if limit is not None:  # the cluster keeps it by itself; this is for a worker that cannot
            timer = loop.call_later(limit + REMOTE_GRACE, one.stopper.stop, timed_out(limit))
        try:
            if await settled(future, one, 0):
                return future.result()
            if one.stopper.reason == LOST:  # the cluster hears it from the server
                future.cancel()
                return Done(Ended(None), LOST)
            await self._ask_to_stop(one)
            await asyncio.wait({future}, timeout=REMOTE_GRACE)
            if future.done():
                return future.result()
            future.cancel()
            one.left_behind = True
            return await self._end_lost(one, "; it did not stop on its Dask worker")
        finally:
            if timer is not None:
                timer.cancel()

    async def _ask_to_stop(self, one: Try) -> None:
        task = await self._find(one)
        if task is not None:
            try:
                await self._client.tasks.cancel(task)
            except (ApiError, Unreachable):
                return  # it is told when the server is back, or has ended

    async def _find(self, one: Try) -> str | None:
        """The id of the try's record, which the cluster has made."""
        place = one.place
        try:
            tasks = (await self._client.get(place.run)).tasks
        except (ApiError, Unreachable):
            return None
        wanted = (place.task_id, place.map_index, place.try_number)
        for task in tasks:
            if task.run is not None and (task.run["task_id"], task.run["map_index"], task.run["try_number"]) == wanted:
                return task.id
        return None

    async def _end_lost(self, one: Try, error: str) -> Done:
        """Tell the server of a try that the cluster has lost."""
        if one.stopper.reason == GIVEN_BACK:
            one.left_behind = True  # for all that is known
            return Done(Ended(None), GIVEN_BACK)
        ended = given_up(one, error) if one.stopper.reason else Ended(None, FAILED_CODE, error)
        record = Record(self._client, one.place, await self._find(one) or one.task)
        try:
            await record.create()  # if it had not come to that; whoever tries it later finds it taken
            await record.finish(ended)
        except Lost as lost:
            return Done(ended, str(lost))
        return Done(ended)


async def _soon(connect: Callable[[], Client], limit: float) -> Client:
    """A client from a thread of its own; one that comes after ``limit`` seconds is closed. Raises OSError."""
    loop = asyncio.get_running_loop()
    connected: asyncio.Future[Client] = loop.create_future()

    def settle(client: Client | None, error: BaseException | None) -> None:
        if error is not None and not connected.done():
            connected.set_exception(error)
        elif client is not None and not connected.done():
            connected.set_result(client)
        elif client is not None:
            threading.Thread(target=client.close, daemon=True).start()

    def work() -> None:
        client, failed = None, None
        try:
            client = connect()
        except BaseException as error:
            failed = error
        with suppress(RuntimeError):  # the worker has ended meanwhile
            loop.call_soon_threadsafe(settle, client, failed)

    threading.Thread(target=work, name="dask-connect", daemon=True).start()  # a daemon: nobody waits for it at the end
    try:
        await asyncio.wait({connected}, timeout=limit)
        if not connected.done():
            raise TimeoutError(f"it says nothing for {limit:g} s")
        return connected.result()
    finally:
        connected.cancel()


def _being_cancelled() -> bool:
    """Whether it is this coroutine that is cancelled, and not what it waits for."""
    task = asyncio.current_task()
    return task is not None and getattr(task, "cancelling", lambda: 0)() > 0


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
