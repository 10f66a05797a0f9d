"""How often: token buckets, and what they bound, requests and failed sign-ins.

A bucket holds as many tokens as may be taken at once, and gets new ones at a
steady rate. It is kept as one number, the moment at which it is full again
(the generic cell rate algorithm): exact, and nothing runs in between.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from taskserver.config import Limits
from taskserver.errors import TooManyRequests

BURST = 5.0  # seconds of its rate that a quiet key has saved: a page that opens asks many things at once
ROUNDING = 1e-6  # seconds: sums of intervals are not exact, and a token must not be missed for that
MOST_BUCKETS = 10_000  # of a kind; some 200 bytes each. Beyond that the one that was quiet longest counts as full


class Buckets:
    """A bucket for each name, full at first. Those that are full again are forgotten."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        """``rate`` tokens a second, at most ``burst`` of them saved."""
        self._interval = 1 / rate
        self._saved = (max(1.0, burst) - 1) * self._interval + ROUNDING
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()  # in the order in which they were taken from

    def __len__(self) -> int:
        """How many buckets are not known to be full."""
        return len(self._full_at)

    def missing(self, name: str) -> float:
        """Seconds until there is a token; 0 if there is one."""
        return max(0.0, self._full_at.get(name, 0.0) - self._clock() - self._saved)

    def take(self, name: str) -> None:
        """Take a token; ``missing`` has told that there is one."""
        now, full_at = self._clock(), self._full_at
        full_at[name] = max(now, full_at.get(name, 0.0)) + self._interval
        full_at.move_to_end(name)
        # One comes and at most two go: those that are full need not be looked for.
        for _ in range(2):
            oldest = next(iter(full_at))
            if full_at[oldest] > now and len(full_at) <= MOST_BUCKETS:
                break
            del full_at[oldest]


class Throttle:
    """The rate of requests, per key and in all. What is refused counts for neither."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._all = _buckets(limits.rate, clock)
        self._keys = _buckets(limits.rate_per_key, clock)

    @property
    def off(self) -> bool:
        """Whether there is no bound at all."""
        return self._all is None and self._keys is None

    def admit(self, key_id: str | None) -> None:
        """Count a request, with this key or with none. Raises TooManyRequests."""
        # Looked at before anything is taken: a key that asks too often must not use up what is there for the others.
        of_key = None if key_id is None else self._keys
        if of_key is not None and key_id is not None and (seconds := of_key.missing(key_id)):
            raise TooManyRequests("there were too many requests with this key; try again later", later(seconds))
        if self._all is not None:
            if seconds := self._all.missing(""):
                raise TooManyRequests("there are too many requests; try again later", later(seconds))
            self._all.take("")
        if of_key is not None and key_id is not None:
            of_key.take(key_id)


def later(seconds: float) -> dict[str, float]:
    """The payload of TooManyRequests."""
    return {"retry_after": round(seconds, 3)}


def _buckets(rate: float | None, clock: Callable[[], float]) -> Buckets | None:
    return None if rate is None else Buckets(rate, rate * BURST, clock)
