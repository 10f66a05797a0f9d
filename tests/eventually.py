"""Waiting for what a test cannot subscribe to: a condition of the server's, with a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LIMIT = 20.0  # seconds; reached only by a failure, so it may be generous
LOOK = 0.002


async def eventually(condition: Callable[[], bool], what: str = "the condition") -> None:
    """Return once ``condition()`` holds. Raises AssertionError if it never does."""
    for _ in range(int(LIMIT / LOOK)):
        if condition():
            return
        await asyncio.sleep(LOOK)
    raise AssertionError(f"{what} did not come true within {LIMIT:g} s")
