"""Claim: the right to work on a run, for as long as it is renewed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from taskserver.client import ApiError, Backoff, RunClient, RunInfo, Unreachable, is_away
from taskserver.worker.record import HEARTBEATS_PER_LEASE

MAX_BEAT = 3.0  # seconds; a cancelled run is not to go on for much longer


class Claim:
    """A claimed run. ``lost`` is why it is not this worker's any more, empty as long as it is.

    It counts as lost when its lease is over by this side's clock too: the server
    may then have given it to another worker, and no two are to work on it.
    """

    def __init__(self, client: RunClient, run: RunInfo, lease: float, claimed_at: float) -> None:
        self.run = run
        self.lease = lease
        self.lost = ""
        self.cancelled = False
        self._client = client
        self._renewed_at = claimed_at

    async def keep(self, changed: Callable[[], None]) -> None:
        """Renew it until it is lost; ``changed`` is called when it is, and when somebody asks the run to stop."""
        beat, backoff = min(self.lease / HEARTBEATS_PER_LEASE, MAX_BEAT), Backoff()
        # The request for it may have waited for half a lease: then it is renewed at once.
        pause = max(0.0, self._renewed_at + beat - time.monotonic())
        while not self.lost:
            await asyncio.sleep(min(pause, max(0.0, self._left())))
            asked = time.monotonic()
            try:
                cancelled = await asyncio.wait_for(self._beat(), max(0.0, self._left()))
            except (asyncio.TimeoutError, Unreachable, ApiError) as error:
                if isinstance(error, ApiError) and not is_away(error):
                    self.lost = error.message
                elif self._left() <= 0:
                    self.lost = f"the server was not heard of for {self.lease:g} s"
                pause = backoff.next()
            else:
                self._renewed_at, pause, backoff = asked, beat, Backoff()
                if cancelled and not self.cancelled:
                    self.cancelled = True
                    changed()
        changed()

    async def _beat(self) -> bool:
        return await self._client.heartbeat(self.run.id, self.run.claim)

    def _left(self) -> float:
        return self._renewed_at + self.lease - time.monotonic()
