"""Revocations: tells this node which keys have been revoked, through whichever node.

Keys are verified from memory, so a node that does not hear of a revocation
would accept the key for ever. Notifications can be lost; so each node looks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from taskserver.errors import StoreUnavailable
from taskserver.store import AnyChange, KeyChange
from taskserver.stores.postgres.reads import Readers
from taskserver.stores.postgres.rows import KEY_COLUMNS, key_from_row

log = logging.getLogger(__name__)

INTERVAL = 0.5  # seconds: with the query's own time, a revoked key is refused everywhere within one

_NEW = f"SELECT {KEY_COLUMNS}, revocation FROM api_key WHERE revocation > $1 ORDER BY revocation"
_LAST = "SELECT coalesce(max(revocation), 0) FROM api_key"


class Revocations:
    """Reports each revocation since ``open``; this node's own a second time, which is harmless."""

    def __init__(self, readers: Readers, report: Callable[[Sequence[AnyChange]], None], last: int) -> None:
        self._readers = readers
        self._report = report
        self._last = last
        self._watching = asyncio.create_task(self._watch())

    @classmethod
    async def open(cls, readers: Readers, report: Callable[[Sequence[AnyChange]], None]) -> Revocations:
        """Begin to look. Raises StoreUnavailable."""
        ((last,),) = await readers.query(_LAST)
        return cls(readers, report, last)

    async def close(self) -> None:
        """Look no more."""
        self._watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watching

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            with contextlib.suppress(StoreUnavailable):  # it has been logged, and nothing else works either
                rows = await self._readers.query(_NEW, self._last)
                if rows:
                    self._last = rows[-1][-1]
                    self._report([KeyChange(key_from_row(row)) for row in rows])
