"""Meters: what a server counts about itself, as plain integers that cost next to nothing to raise.

Everything stands in one array of 64-bit integers, so that the processes of
``serve --workers`` can share it (``board``): each writes a slot of its own, and
whoever is asked adds the slots up. What it looks like to those who ask is the
web layer's business.

A new figure is one line in ``Meters`` and one in docs/metrics.md. Rules:

- Names follow Prometheus: the unit in the name, ``_total`` for what only grows.
- Labels come from fixed lists; no task, owner or key is among them.
- Each cell has one thread that writes it: the event loop's, but for what a
  committer counts in its own.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum

from taskserver.errors import StoreFull, StoreUnavailable

WORD = 8  # bytes
SLOT_WORDS = 8192  # of one process; the figures take half of it

ROOMS = ("tasks", "airflow", "airflow-auth", "executions", "other")
"""The names of the web layer's rooms, as labels."""
STATUSES = range(600)
MOST_ROWS = 64  # that are shown whether or not anything is in them

# Seconds. An ordinary answer takes half a millisecond, one that waits for a slow disk a second.
LATENCIES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
GROUPS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)  # operations; a group has a thousand at most
MICRO = 1_000_000

Rows = Sequence[tuple[str, ...]]


class Waiter(IntEnum):
    """Who waits, as a row of ``Meters.waiters``."""

    POLL = 0
    STREAM = 1
    CLAIM = 2
    RUN = 3
    LOG = 4
    EXECUTION = 5
    EVENTS = 6


WAITERS = {
    Waiter.POLL: ("tasks", "poll"),
    Waiter.STREAM: ("tasks", "stream"),
    Waiter.CLAIM: ("tasks", "claim"),
    Waiter.RUN: ("airflow", "wait"),
    Waiter.LOG: ("airflow", "log"),
    Waiter.EXECUTION: ("executions", "wait"),
    Waiter.EVENTS: ("executions", "events"),
}
"""The room and the kind of each waiter, as labels."""


class LeaseOf(IntEnum):
    """Whose lease ran out, as a row of ``Meters.lease_expiries``."""

    TASK = 0
    RUN = 1


class Kind(Enum):
    """What a meter is to those who read it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """What a meter is called, and how its rows are told apart.

    ``rows`` has the values of ``labels`` for each.
    """

    kind: Kind
    name: str
    about: str
    labels: tuple[str, ...] = ()
    rows: Rows = ((),)

    @property
    def sparse(self) -> bool:
        """Whether most rows stay empty: they are not worth a line each."""
        return len(self.rows) > MOST_ROWS


class Counter:
    """Numbers that are added to, one for each row of the family. A gauge is one from which is taken away too."""

    __slots__ = ("_cells", "at", "family")

    def __init__(self, family: Family, cells: memoryview[int], at: int) -> None:
        self.family = family
        self._cells = cells
        self.at = at

    def add(self, number: int = 1, row: int = 0) -> None:
        """Add to a row."""
        self._cells[self.at + row] += number

    def value(self, row: int = 0) -> int:
        """What stands in a row."""
        return self._cells[self.at + row]

    def clear(self) -> None:
        """Begin at zero again."""
        for row in range(len(self.family.rows)):
            self._cells[self.at + row] = 0


class Histogram:
    """How often a value was at most each of ``bounds``, and the sum of the values, which has six decimals."""

    __slots__ = ("_cells", "_width", "at", "bounds", "family")

    def __init__(self, family: Family, cells: memoryview[int], at: int, bounds: tuple[float, ...]) -> None:
        self.family = family
        self.bounds = bounds
        self._cells = cells
        self.at = at
        self._width = self.width(bounds)

    @staticmethod
    def width(bounds: Sequence[float]) -> int:
        """How many cells a row takes: one for each bound, one for what is above, and the sum."""
        return len(bounds) + 2

    def observe(self, value: float, times: int = 1, row: int = 0) -> None:
        """Count a value, ``times`` at once."""
        at = self.at + row * self._width
        self._cells[at + bisect_left(self.bounds, value)] += times
        self._cells[at + self._width - 1] += int(value * MICRO) * times

    def counts(self, row: int = 0) -> list[int]:
        """How many values there were up to each bound, but above the one before; the last: above all."""
        at = self.at + row * self._width
        return list(self._cells[at : at + self._width - 1])

    def sum(self, row: int = 0) -> float:
        """All values together."""
        return self._cells[self.at + (row + 1) * self._width - 1] / MICRO


class RoomMeter:
    """The requests of one room, as cells that are raised where a request ends: a method's call would cost more.

    Attributes:
        statuses: how many were answered with each status.
        times: how many took up to each of LATENCIES; the last cell has all of them together, in microseconds.
    """

    __slots__ = ("statuses", "times")

    def __init__(self, cells: memoryview[int], requests: Counter, latency: Histogram, row: int) -> None:
        first, width = requests.at + row * len(STATUSES), latency.width(latency.bounds)
        self.statuses = cells[first : first + len(STATUSES)]
        self.times = cells[latency.at + row * width :][:width]


class Meters:
    """The figures of one process, or of several added up. Without ``cells`` they stand in memory of its own."""

    def __init__(self, cells: memoryview[int] | None = None) -> None:
        self._cells = memoryview(bytearray(WORD * SLOT_WORDS)).cast("q") if cells is None else cells
        self._end = 0
        self._meters: list[Counter | Histogram] = []

        self.appends = self._counter("taskserver_appends_total", "Appends acknowledged, repeats included.")
        self.lines = self._counter("taskserver_lines_total", "Lines acknowledged, repeats included.")
        self.bytes = self._counter("taskserver_line_bytes_total", "The same lines as they are stored: JSON strings.")
        self.groups = self._histogram(
            "taskserver_commit_operations", "Operations that were committed together, in one transaction.", GROUPS
        )
        self.commits = self._histogram(
            "taskserver_commit_seconds", "Duration of transactions, the wait for the disk included.", LATENCIES
        )
        self.store_errors = self._counter(
            "taskserver_store_errors_total",
            "Operations that failed because the database did; full: there was no room left.",
            ("kind",),
            (("unavailable",), ("full",)),
        )
        self.store_retries = self._counter(
            "taskserver_store_retries_total", "Transactions that were undone and tried again."
        )
        self.lease_expiries = self._counter(
            "taskserver_lease_expiries_total",
            "Tasks whose producer, and runs whose claimant, was not heard of in time.",
            ("of",),
            tuple((of.name.lower(),) for of in LeaseOf),
        )
        self.waiters = self._gauge(
            "taskserver_waiters", "Requests that wait now.", ("room", "kind"), tuple(WAITERS[kind] for kind in Waiter)
        )
        self.wakes = self._histogram(
            "taskserver_wake_seconds",
            "From the report of a commit until those who waited for it were told; counts each who was told.",
            LATENCIES,
        )
        self.requests = self._counter(
            "taskserver_requests_total",
            "Requests answered; 499: the client left before.",
            ("room", "status"),
            tuple((room, str(status)) for room in ROOMS for status in STATUSES),
        )
        self.latency = self._histogram(
            "taskserver_request_duration_seconds",
            "Until the answer was ready to be sent, of requests that neither wait nor stream.",
            LATENCIES,
            ("room",),
            tuple((room,) for room in ROOMS),
        )
        self.worker_restarts = self._counter(
            "taskserver_worker_restarts_total", "Worker processes that died and were replaced."
        )

    def __iter__(self) -> Iterator[Counter | Histogram]:
        """All meters."""
        return iter(self._meters)

    @property
    def size(self) -> int:
        """How many cells are in use, from the first one on."""
        return self._end

    def appended(self, lines: int, size: int) -> None:
        """Lines were acknowledged: so many, of ``size`` bytes in all."""
        cells = self._cells
        cells[self.appends.at] += 1
        cells[self.lines.at] += lines
        cells[self.bytes.at] += size

    def committed(self, operations: int, seconds: float) -> None:
        """A transaction with so many operations is durable; to be called by the thread that commits."""
        self.groups.observe(operations)
        self.commits.observe(seconds)

    def store_failed(self, error: StoreUnavailable) -> None:
        """An operation failed; to be called on the event loop."""
        self.store_errors.add(1, int(isinstance(error, StoreFull)))

    def room(self, name: str) -> RoomMeter:
        """Where the requests of a room are counted. Raises ValueError for one that is not in ROOMS."""
        if name not in ROOMS:
            raise ValueError(f"the room {name!r} is new: put it into ROOMS")
        return RoomMeter(self._cells, self.requests, self.latency, ROOMS.index(name))

    def clear_gauges(self) -> None:
        """Begin anew where a process has ended; what it counted stays, since a counter must not go back."""
        for meter in self._meters:
            if isinstance(meter, Counter) and meter.family.kind is Kind.GAUGE:
                meter.clear()

    # --- where each figure stands --------------------------------------------------

    def _counter(
        self, name: str, about: str, labels: tuple[str, ...] = (), rows: Rows = ((),), kind: Kind = Kind.COUNTER
    ) -> Counter:
        counter = Counter(Family(kind, name, about, labels, rows), self._cells, self._take(len(rows)))
        self._meters.append(counter)
        return counter

    def _gauge(self, name: str, about: str, labels: tuple[str, ...], rows: Rows) -> Counter:
        return self._counter(name, about, labels, rows, Kind.GAUGE)

    def _histogram(
        self, name: str, about: str, bounds: tuple[float, ...], labels: tuple[str, ...] = (), rows: Rows = ((),)
    ) -> Histogram:
        at = self._take(len(rows) * Histogram.width(bounds))
        histogram = Histogram(Family(Kind.HISTOGRAM, name, about, labels, rows), self._cells, at, bounds)
        self._meters.append(histogram)
        return histogram

    def _take(self, cells: int) -> int:
        """Where so many cells begin that no other meter has."""
        at, self._end = self._end, self._end + cells
        if self._end > len(self._cells):
            raise ValueError("the meters need more cells: raise SLOT_WORDS")
        return at
