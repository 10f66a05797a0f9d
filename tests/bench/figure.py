"""Figure: one thing that is measured, on our server and on its yardstick."""

from __future__ import annotations

import abc
from collections.abc import Mapping
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


class Figure(abc.ABC):
    """What is measured, against what, and how.

    Attributes:
        name: what ``--only`` picks it by.
        against: what the yardstick is, in a few words.
        note: what is measured, for the reader of the table: also what makes the comparison hard or easy for us.
        metrics: the numbers that each sample holds.
        connections: how many are open at once, for the limit of file descriptors.
    """

    name: str
    against: str
    note: str
    metrics: tuple[Metric, ...]
    connections: int = 64

    @abc.abstractmethod
    async def ours(self, bench: Bench) -> Sample:
        """Measure the server once, from its start on. It is called before ``yardstick`` in the first round."""

    @abc.abstractmethod
    async def yardstick(self, bench: Bench) -> Sample:
        """Measure the yardstick once in the same way."""
