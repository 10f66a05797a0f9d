"""A claim is renewed in time, however long its request has waited for a run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from taskserver.client import RunClient, RunInfo
from taskserver.worker import claim
from taskserver.worker.claim import Claim

LEASE = 3600.0  # seconds; a third of it nobody waits for here
LIMIT = 20.0  # seconds; reached only by a failure
RUN = RunInfo("01a1fe76-3406-738b-bf1a-c38aaa95d5a8", "etl", "manual", "running", False, "", claim="secret")


class Listening(RunClient):
    """A client that only notes what it is to say."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1", "x" * 40)
        self.heard = asyncio.Event()

    async def heartbeat(self, run: str, claim: str) -> bool:
        """Note it."""
        assert (run, claim) == (RUN.id, RUN.claim)
        self.heard.set()
        return False


@asynccontextmanager
async def kept(asked_before: float) -> AsyncIterator[asyncio.Event]:
    """A claim whose request began that many seconds ago is kept; the event is its first heartbeat."""
    async with Listening() as client:
        keeping = asyncio.create_task(Claim(client, RUN, LEASE, time.monotonic() - asked_before).keep(lambda: None))
        try:
            yield client.heard
        finally:
            keeping.cancel()


@pytest.fixture(autouse=True)
def by_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats as far apart as the lease allows."""
    monkeypatch.setattr(claim, "MAX_BEAT", LEASE)


async def test_one_that_was_waited_for_is_renewed_at_once() -> None:
    async with kept(asked_before=LEASE / 2) as heard:
        await asyncio.wait_for(heard.wait(), LIMIT)


async def test_one_that_came_at_once_is_not() -> None:
    async with kept(asked_before=0.0) as heard:
        for _ in range(10):
            await asyncio.sleep(0)
        assert not heard.is_set(), "a run that takes milliseconds needs no heartbeat"
