"""Upkeep: what a store needs done beside the requests: lost producers noticed, output sealed, old tasks removed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from taskserver.config import Timing
from taskserver.errors import StoreUnavailable
from taskserver.meters import LeaseOf, Meters
from taskserver.model import MICROSECONDS, now_us
from taskserver.retention import pruned, sweep
from taskserver.store import AnyChange, Change, Ended, RunChange, Store

log = logging.getLogger(__name__)

SEAL_BATCH = 100


class Hearing:
    """Since when producers could be heard without an interruption, as far as this process can tell.

    Args:
        deaf: seconds between two looks that are an interruption: the store or this
            process stood still, or the clock was set.
    """

    def __init__(self, deaf: float) -> None:
        self._deaf = round(deaf * 1_000_000)
        self._since: int | None = None
        self._looked = 0

    def since(self, now: int) -> int:
        """To be asked right before each look, with the time."""
        if self._since is None or not 0 <= now - self._looked <= self._deaf:
            self._since = now
        self._looked = now
        return self._since

    def failed(self) -> None:
        """Note that the store failed: it may have failed for others too."""
        self._since = None


class Upkeep:
    """The background work on a store, which stays its owner's to close."""

    def __init__(
        self,
        store: Store,
        timing: Timing,
        clock: Callable[[], int] = now_us,
        *,
        meters: Meters | None = None,
        keep_finished: int | None = None,
    ) -> None:
        self._store = store
        self._timing = timing
        self._keep_finished = keep_finished
        self._clock = clock
        self._meters = meters or Meters()
        self._ended = asyncio.Event()
        self._deleted = asyncio.Event()
        self._background: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start the background work."""
        work = (self._reap(), self._seal(), self._retain())
        self._background = [asyncio.create_task(part) for part in work]

    async def close(self) -> None:
        """Stop the background work."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    def committed(self, changes: Sequence[AnyChange]) -> None:
        """Take note of tasks that have ended, and can be sealed, and of what has been deleted, and left something."""
        for change in changes:
            if not isinstance(change, Change | RunChange):
                continue
            if change.deleted:
                self._deleted.set()
            elif isinstance(change, Change) and change.task.finished:
                self._ended.set()

    async def _reap(self) -> None:
        """Deal with tasks and runs whose producers and claimants were not heard of in time.

        A silence counts only while producers could be heard: since the start,
        since the store failed last, since this process or the store stood still.
        Nobody is lost before that was a lease ago.
        """
        hearing = Hearing(self._timing.deaf)
        while True:
            try:
                now = self._clock()
                for run in await self._store.expire_runs(now, hearing.since(now)):
                    self._meters.lease_expiries.add(1, LeaseOf.RUN)
                    log.warning("run %s: claimant lost; now %s", run.id, run.state.value)
                now = self._clock()
                for task in await self._store.expire_leases(now, hearing.since(now)):
                    self._meters.lease_expiries.add(1, LeaseOf.TASK)
                    log.warning("task %s: %s", task.id, task.error)
            except Exception as error:
                hearing.failed()
                _report("look for lost producers", error)
            await asyncio.sleep(self._timing.reaper)

    async def _seal(self) -> None:
        """Seal what has ended, also what an earlier process left."""
        while True:
            self._ended.clear()
            try:
                while tasks := await self._store.unsealed(SEAL_BATCH):
                    for task in tasks:
                        await self._store.seal(task.log)
            except Exception as error:
                _report("seal finished output", error)
                await asyncio.sleep(self._timing.sealer_pause)
            else:
                await self._ended.wait()

    async def _retain(self) -> None:
        """Remove what has ended long enough ago, if that is wished, and what deleted tasks left."""
        while True:
            self._deleted.clear()
            try:
                removed = Ended()
                if self._keep_finished is not None:
                    before = self._clock() - self._keep_finished * MICROSECONDS
                    async for ended in pruned(self._store, before):
                        removed += ended
                await sweep(self._store)
                if removed:
                    log.info("removed %d tasks and %d runs that had ended long ago", removed.tasks, removed.runs)
            except Exception as error:
                _report("remove old tasks", error)
            # Not wait_for: until Python 3.12 it may swallow the cancellation that ends this.
            timer = asyncio.get_running_loop().call_later(self._timing.retention, self._deleted.set)
            try:
                await self._deleted.wait()
            finally:
                timer.cancel()


def _report(what: str, error: Exception) -> None:
    """Log what could not be done; it is tried again. An error that nobody foresaw must not end it for good either."""
    log.error("cannot %s: %s", what, error, exc_info=None if isinstance(error, StoreUnavailable) else error)
