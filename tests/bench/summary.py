"""From samples to what is reported: medians, spreads, ratios, and whether a goal is reached. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.figure import CLIENT_CPU, Figure, Metric, Sample, Yardstick


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of some numbers."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one number."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Round:
    """One measurement of each side, and how many cores other programs of the machine used meanwhile."""

    ours: Sample
    yardsticks: Sequence[Sample]
    others: float = 0.0


@dataclass(frozen=True)
class Result:
    """All rounds of a figure beside its yardsticks, or in ``trouble`` why there are none."""

    figure: Figure
    yardsticks: Sequence[Yardstick] = ()
    rounds: Sequence[Round] = ()
    trouble: str = ""

    def ours(self, key: str) -> Spread:
        """Our numbers."""
        return Spread.of([one.ours[key] for one in self.rounds])

    def comparisons(self) -> list[Comparison]:
        """Each metric beside each yardstick that has it."""
        if not self.rounds:
            return []
        return [
            Comparison(self, metric, place)
            for place in range(len(self.yardsticks))
            for metric in self.figure.metrics
            if metric.key in self.rounds[0].yardsticks[place]
        ]

    def others(self) -> float:
        """The most cores that other programs used during a round: noise, if it is much."""
        return max(one.others for one in self.rounds)


@dataclass(frozen=True)
class Comparison:
    """One metric beside one of the result's yardsticks (the one in ``place``)."""

    result: Result
    metric: Metric
    place: int

    @property
    def yardstick(self) -> Yardstick:
        """What ours is beside."""
        return self.result.yardsticks[self.place]

    @property
    def ours(self) -> Spread:
        """Our numbers."""
        return self.result.ours(self.metric.key)

    @property
    def theirs(self) -> Spread:
        """The yardstick's numbers."""
        return Spread.of([theirs for _, theirs in self.pairs])

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """Ours and the yardstick's, round by round."""
        key = self.metric.key
        return [(one.ours[key], one.yardsticks[self.place][key]) for one in self.result.rounds]

    @property
    def ratio(self) -> Spread | None:
        """Ours divided by the yardstick's, round by round; None where a quotient means nothing."""
        if not self.metric.has_ratio or self.metric.has_difference or any(theirs <= 0 for _, theirs in self.pairs):
            return None
        return Spread.of([ours / theirs for ours, theirs in self.pairs])

    @property
    def difference(self) -> Spread | None:
        """Ours less the yardstick's, round by round, where that is what counts."""
        if not self.metric.has_difference:
            return None
        return Spread.of([ours - theirs for ours, theirs in self.pairs])

    @property
    def goal(self) -> float | None:
        """What is to be reached."""
        return next((goal.limit for goal in self.yardstick.goals if goal.key == self.metric.key), None)

    @property
    def is_reached(self) -> bool | None:
        """Whether the median reaches the goal; None without one."""
        if self.goal is None:
            return None
        reached = (self.ratio or self.difference or self.ours).median
        return reached >= self.goal if self.metric.more_is_better else reached <= self.goal

    @property
    def client_cpu(self) -> tuple[float, float] | None:
        """The load generator's highest share of a core while it drove us and while it drove the yardstick."""
        rounds = self.result.rounds
        ours = [one.ours[CLIENT_CPU] for one in rounds if CLIENT_CPU in one.ours]
        samples = [one.yardsticks[self.place] for one in rounds]
        theirs = [sample[CLIENT_CPU] for sample in samples if CLIENT_CPU in sample]
        return (max(ours), max(theirs, default=0.0)) if ours else None


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the sorted numbers that is not below ``share`` (0 to 1) of them: nearest rank, no invention."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def report(results: Sequence[Result], environment: dict[str, Any]) -> dict[str, Any]:
    """Everything that was measured, for ``--json``."""
    rows = [_row(comparison) for result in results for comparison in result.comparisons()]
    missing = [{"figure": result.figure.name, "trouble": result.trouble} for result in results if not result.rounds]
    return {"environment": environment, "rows": rows, "missing": missing}


def _row(comparison: Comparison) -> dict[str, Any]:
    result, metric, yardstick = comparison.result, comparison.metric, comparison.yardstick
    return {
        "figure": result.figure.name,
        "metric": metric.key,
        "unit": metric.unit,
        "more_is_better": metric.more_is_better,
        "beside": yardstick.name,
        "against": yardstick.against,
        "note": result.figure.note,
        "rounds": len(result.rounds),
        "ours": {"median": comparison.ours.median, "all": [ours for ours, _ in comparison.pairs]},
        "yardstick": {"median": comparison.theirs.median, "all": [theirs for _, theirs in comparison.pairs]},
        "ratio": _spread(comparison.ratio),
        "difference": _spread(comparison.difference),
        "goal": comparison.goal,
        "reached": comparison.is_reached,
        "client_cpu": comparison.client_cpu,
        "others": result.others(),
    }


def _spread(spread: Spread | None) -> dict[str, float] | None:
    return None if spread is None else {"median": spread.median, "min": spread.low, "max": spread.high}
