"""Retention: removes what has ended long ago in small batches, so that those who wait for answers do not notice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from taskserver.store import Ended, Store

BATCH = 25  # tasks and runs in one commit: what waits behind it waits a millisecond or two

T = TypeVar("T")


async def pruned(store: Store, before: int) -> AsyncGenerator[Ended, None]:
    """Remove all that has ended before a moment, a small batch at a time, with its output; yields what each was.

    Half of the time belongs to others. Raises StoreUnavailable.
    """
    while ended := await _paced(lambda: store.prune(before, BATCH)):
        yield ended
        await sweep(store)


async def sweep(store: Store) -> None:
    """Remove what deleted tasks and runs left, in small portions. Raises StoreUnavailable."""
    while await _paced(store.sweep):
        pass


async def _paced(step: Callable[[], Awaitable[T]]) -> T:
    """Do something, and if there was something to do pause for as long as it took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    done = await step()
    if done:
        await asyncio.sleep(loop.time() - began)
    return done
