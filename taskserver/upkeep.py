"""Upkeep: what a store needs done by one process, whoever serves: it notices lost producers and seals output."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from taskserver.config import Timing
from taskserver.errors import StoreUnavailable
from taskserver.meters import LeaseOf, Meters
from taskserver.model import now_us
from taskserver.store import AnyChange, Change, Store

log = logging.getLogger(__name__)

SEAL_BATCH = 100


class Upkeep:
    """The background work on a store, which stays its owner's to close."""

    def __init__(
        self, store: Store, timing: Timing, clock: Callable[[], int] = now_us, meters: Meters | None = None
    ) -> None:
        self._store = store
        self._timing = timing
        self._clock = clock
        self._meters = meters or Meters()
        self._ended = asyncio.Event()
        self._background: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start the background work."""
        self._background = [asyncio.create_task(self._reap()), asyncio.create_task(self._seal())]

    async def close(self) -> None:
        """Stop the background work."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    def committed(self, changes: Sequence[AnyChange]) -> None:
        """Take note of tasks that have ended: their output can be sealed."""
        if any(isinstance(change, Change) and change.task.finished for change in changes):
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
                    self._meters.lease_expiries.add(1, LeaseOf.RUN)
                    log.warning("run %s: claimant lost; now %s", run.id, run.state.value)
                for task in await self._store.expire_leases(self._clock()):
                    self._meters.lease_expiries.add(1, LeaseOf.TASK)
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
