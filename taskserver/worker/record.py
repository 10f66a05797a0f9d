"""Record: one try of a task as the server knows it: created, kept alive, ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import orjson

from taskserver.client import ApiError, Backoff, RunClient, Unreachable, is_away
from taskserver.client.answers import TASK_EXISTS
from taskserver.worker.calling import Ended
from taskserver.worker.stopping import Stopper

HEARTBEATS_PER_LEASE = 3  # one may get lost, and another be late
MAX_BEAT = 10.0  # seconds; a heartbeat's answer is how a try on a cluster hears that it is to stop
CANCELLED, LOST, GIVEN_BACK = "cancelled", "the server has given this task up", "its worker has given the run up"

T = TypeVar("T")


class Lost(Exception):
    """The try is not this process' (any more): somebody else has it, or the server has ended it."""


@dataclass(frozen=True)
class Place:
    """Which try of which task of which run, and the proof that the run is this worker's. ``lease`` is in seconds."""

    run: str
    claim: str
    task_id: str
    map_index: int
    try_number: int
    name: str
    lease: float


class Record:
    """One try. ``task`` is its id under /v1/tasks."""

    def __init__(self, client: RunClient, place: Place, task: str) -> None:
        self._client = client
        self._place = place
        self.task = task
        self.heard_at = time.monotonic()

    async def create(self, ended: Ended | None = None) -> None:
        """Create it; with ``ended`` it has ended, in the same commit.

        Raises Lost if somebody has begun this try, or the run is not this worker's.
        """
        place = self._place
        ask = partial(
            self._client.create_task,
            place.run,
            place.task_id,
            claim=place.claim,
            own_id=self.task,
            map_index=place.map_index,
            try_number=place.try_number,
            name=place.name,
            lease=place.lease,
            finish=None if ended is None else {"code": ended.code, "error": ended.error, "result": _result(ended)},
        )
        try:
            await self._insist(ask)
        except ApiError as error:
            mine = error.code == TASK_EXISTS and (error.payload or {}).get("id") == self.task
            if not mine:  # if it is, this is the repeat of a call whose answer was lost
                raise Lost(error.message) from None

    async def finish(self, ended: Ended) -> None:
        """End it: as cancelled if it was stopped. Raises Lost if it has ended otherwise."""
        try:
            if ended.stopped:
                await self._insist(partial(self._client.tasks.cancel, self.task))
            await self._insist(
                partial(self._client.tasks.finish, self.task, ended.code, ended.error, result=_result(ended))
            )
        except ApiError as error:
            raise Lost(error.message) from None

    async def hold(self) -> None:
        """Renew its lease for ever, for a try that has not begun. That makes it running: it is in hand."""
        with suppress(ApiError, Lost):  # it has ended, or the server is gone for too long
            while True:
                await self._pause()
                await self._insist(partial(self._client.tasks.heartbeat, self.task))

    async def keep(self, stopper: Stopper) -> None:
        """Renew its lease for ever, at once too: that makes it running. Stop the try when it is cancelled or lost."""
        while not stopper.reason:
            try:
                if await self._insist(partial(self._client.tasks.heartbeat, self.task)):
                    stopper.stop(CANCELLED)
            except (ApiError, Lost):
                stopper.stop(LOST)
            await self._pause()

    async def _pause(self) -> None:
        await asyncio.sleep(min(self._place.lease / HEARTBEATS_PER_LEASE, MAX_BEAT))

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until there is an answer. Raises Lost when the server was away for so long that the lease is over."""
        backoff = Backoff()
        while True:
            asked = time.monotonic()
            try:
                answer = await ask()
            except (ApiError, Unreachable) as error:
                if not is_away(error):
                    raise
                pause = backoff.next(getattr(error, "retry_after", None))
                if time.monotonic() + pause > self.heard_at + self._place.lease:
                    raise Lost(f"the server was away for longer than the lease: {error}") from None
            else:
                self.heard_at = asked
                return answer
            await asyncio.sleep(pause)


def _result(ended: Ended) -> dict[str, Any] | None:
    return None if ended.value is None else {"type": "json", "data": orjson.Fragment(ended.value)}
