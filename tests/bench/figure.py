"""Figure: one thing that is measured, on our server and on its yardsticks."""

from __future__ import annotations

import abc
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.bench.servers import Bench

CLIENT_CPU = "client_cpu"
"""Key of a sample: the share of one core that the load generator used. Near 1 it is the client that was measured."""

Sample = Mapping[str, float]
"""What one measurement gave: a number for each metric's key, and possibly for CLIENT_CPU."""


@dataclass(frozen=True)
class Metric:
    """One number of a figure.

    ``has_ratio`` is off where the yardstick's number is so near to zero that a
    quotient means nothing. ``has_difference``: what counts is how much ours is
    beyond the yardstick's, and not the ratio.
    """

    key: str
    label: str
    unit: str
    more_is_better: bool
    has_ratio: bool = True
    has_difference: bool = False


@dataclass(frozen=True)
class Goal:
    """What is to be reached of the metric with this key: ``more_is_better`` tells which way.

    It is of the ratio, or of the difference where that is what counts, or of our own number where neither means
    anything.
    """

    key: str
    limit: float


@dataclass(frozen=True)
class Yardstick:
    """Something that ours is measured beside.

    Attributes:
        name: what it is called in the table.
        against: what it is and does, in a sentence without its full stop.
        measure: takes one sample; it may lack metrics that mean nothing there.
        goals: what ours is to reach beside it.
    """

    name: str
    against: str
    measure: Callable[[Bench], Awaitable[Sample]]
    goals: tuple[Goal, ...] = ()


@dataclass(frozen=True)
class Point:
    """Where a figure stands on a curve that ``--plot`` draws: the curve's name, and how much of it there is."""

    curve: str
    x: float


class Figure(abc.ABC):
    """What is measured, against what, and how.

    Attributes:
        name: what ``--only`` picks it by.
        beside: what the yardstick is called in the table.
        against: what it is, in a sentence.
        note: what is measured, for the reader of the table: also what makes the comparison hard or easy for us.
        metrics: the numbers that each sample holds.
        goals: what is to be reached beside the yardstick.
        connections: how many are open at once, for the limit of file descriptors.
        point: its place on a curve, if it has one.
        only_plotted: it is there for the curve: measured with ``--plot`` or where ``--only`` names it.
        on_postgres: it is about PostgreSQL: measured with ``--database``, and then only such figures are.
    """

    name: str
    beside: str = "bare aiohttp"
    against: str
    note: str
    metrics: tuple[Metric, ...]
    goals: tuple[Goal, ...] = ()
    connections: int = 64
    point: Point | None = None
    only_plotted: bool = False
    on_postgres: bool = False

    def missing(self, bench: Bench) -> str:
        """What ``bench`` lacks for this figure, in words; empty if it can be measured."""
        return ""

    def yardsticks(self, bench: Bench) -> Sequence[Yardstick]:
        """What ours is measured beside: ``yardstick``, and what else ``bench`` has been given the software for."""
        return [Yardstick(self.beside, self.against, self.yardstick, self.goals)]

    async def prepare(self, bench: Bench) -> None:
        """Make what is measured on, where that takes long: called before the rounds."""
        return

    @abc.abstractmethod
    async def ours(self, bench: Bench) -> Sample:
        """Measure the server once, from its start on. It is called before the yardsticks in the first round."""

    @abc.abstractmethod
    async def yardstick(self, bench: Bench) -> Sample:
        """Measure the yardstick that is always there once, in the same way."""
