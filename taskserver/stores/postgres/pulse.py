"""Pulse: whether the database answers, told without delay, also when it hangs."""

from __future__ import annotations

import asyncio

from taskserver.errors import StoreUnavailable
from taskserver.stores.postgres.reads import Readers

PATIENCE = 2.0  # seconds; who asks for a server's health waits a few seconds at most

_LOOK = "SELECT pg_is_in_recovery()"


class Pulse:
    """Looks at the database when asked, one look at a time: those that hang must not pile up."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers
        self._looking: asyncio.Task[None] | None = None

    async def feel(self) -> None:
        """Return if the database answers, and takes changes. Raises StoreUnavailable within ``PATIENCE``."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
            self._looking.add_done_callback(lambda look: look.cancelled() or look.exception())  # nobody may be left
        looking = self._looking
        await asyncio.wait([looking], timeout=PATIENCE)
        if not looking.done():
            raise StoreUnavailable(f"the database did not answer within {PATIENCE:g} s")
        looking.result()

    async def close(self) -> None:
        """Return when no look is under way."""
        if self._looking is not None:
            await asyncio.wait([self._looking])

    async def _look(self) -> None:
        ((standby,),) = await self._readers.query(_LOOK)
        if standby:
            raise StoreUnavailable("the database is a read-only standby")
