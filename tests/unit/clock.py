"""A clock that stands until a test moves it."""

from __future__ import annotations

from taskserver.model import MICROSECONDS

NOW = 1_800_000_000 * MICROSECONDS


class Clock:
    """Microseconds, as the core's clocks have them."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now

    def pass_seconds(self, seconds: int) -> None:
        """Let time pass."""
        self.now += seconds * MICROSECONDS
