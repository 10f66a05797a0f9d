"""Upkeep: what a store needs done beside the requests: lost producers noticed, output sealed, old tasks removed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from taskserver.config import Timing
from taskserver.errors import StoreUnavailable
from taskserver.model import MICROSECONDS, now_us
from taskserver.retention import pruned, sweep
from taskserver.store import AnyChange, Change, Ended, KeyChange, Store

log = logging.getLogger(__name__)

SEAL_BATCH = 100


class Upkeep:
    """The background work on a store, which stays its owner's to close."""

    def __init__(
        self, store: Store, timing: Timing, clock: Callable[[], int] = now_us, *, keep_finished: int | None = None
    ) -> None:
        self._store = store
        self._timing = timing
        self._keep_finished = keep_finished
        self._clock = clock
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
            if isinstance(change, KeyChange):
                continue
            if change.deleted:
                self._deleted.set()
            elif isinstance(change, Change) and change.task.finished:
                self._ended.set()

    async def _reap(self) -> None:
        """Deal with tasks and runs whose producers and claimants were not heard of in time.

        All leases begin anew first, since nobody could renew one while no server
        ran. Where that fails (on a full disk) nobody is lost before it succeeds.
        """
        renewed = False
        while True:
            try:
                if not renewed:
                    await self._store.renew_leases(self._clock())
                    renewed = True
                for run in await self._store.expire_runs(self._clock()):
                    log.warning("run %s: claimant lost; now %s", run.id, run.state.value)
                for task in await self._store.expire_leases(self._clock()):
                    log.warning("task %s: %s", task.id, task.error)
            except StoreUnavailable as error:
                log.error("cannot look for lost producers: %s", error)
            await asyncio.sleep(self._timing.reaper)

    async def _seal(self) -> None:
        """Seal what has ended, also what an earlier process left."""
        while True:
            self._ended.clear()
            try:
                while tasks := await self._store.unsealed(SEAL_BATCH):
                    for task in tasks:
                        await self._store.seal(task.log)
            except StoreUnavailable as error:
                log.error("cannot seal finished output: %s", error)
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
            except StoreUnavailable as error:
                log.error("cannot remove old tasks: %s", error)
            # Not wait_for: until Python 3.12 it may swallow the cancellation that ends this.
            timer = asyncio.get_running_loop().call_later(self._timing.retention, self._deleted.set)
            try:
                await self._deleted.wait()
            finally:
                timer.cancel()
