"""From samples to what is reported: medians, spreads and ratios. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.figure import CLIENT_CPU, Figure, Metric, Sample


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
    yardstick: Sample
    others: float = 0.0


@dataclass(frozen=True)
class Result:
    """All rounds of a figure, or in ``trouble`` why there are none."""

    figure: Figure
    rounds: Sequence[Round] = ()
    trouble: str = ""

    def ours(self, metric: Metric) -> Spread:
        """Our numbers."""
        return Spread.of([one.ours[metric.key] for one in self.rounds])

    def yardstick(self, metric: Metric) -> Spread:
        """The yardstick's numbers."""
        return Spread.of([one.yardstick[metric.key] for one in self.rounds])

    def ratio(self, metric: Metric) -> Spread | None:
        """Ours divided by the yardstick's, round by round; None where a quotient means nothing."""
        if not metric.has_ratio or metric.has_difference or any(one.yardstick[metric.key] <= 0 for one in self.rounds):
            return None
        return Spread.of([one.ours[metric.key] / one.yardstick[metric.key] for one in self.rounds])

    def difference(self, metric: Metric) -> Spread | None:
        """Ours less the yardstick's, round by round, where that is what counts."""
        if not metric.has_difference:
            return None
        return Spread.of([one.ours[metric.key] - one.yardstick[metric.key] for one in self.rounds])

    def client_cpu(self) -> tuple[float, float] | None:
        """The load generator's highest share of a core while it drove us and while it drove the yardstick."""
        ours = [one.ours[CLIENT_CPU] for one in self.rounds if CLIENT_CPU in one.ours]
        theirs = [one.yardstick[CLIENT_CPU] for one in self.rounds if CLIENT_CPU in one.yardstick]
        return (max(ours), max(theirs, default=0.0)) if ours else None

    def others(self) -> float:
        """The most cores that other programs used during a round: noise, if it is much."""
        return max(one.others for one in self.rounds)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the sorted numbers that is not below ``share`` (0 to 1) of them: nearest rank, no invention."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def report(results: Sequence[Result], environment: dict[str, Any]) -> dict[str, Any]:
    """Everything that was measured, for ``--json``."""
    rows = [_row(result, metric) for result in results for metric in result.figure.metrics if result.rounds]
    missing = [{"figure": result.figure.name, "trouble": result.trouble} for result in results if not result.rounds]
    return {"environment": environment, "rows": rows, "missing": missing}


def _row(result: Result, metric: Metric) -> dict[str, Any]:
    return {
        "figure": result.figure.name,
        "metric": metric.key,
        "unit": metric.unit,
        "more_is_better": metric.more_is_better,
        "against": result.figure.against,
        "note": result.figure.note,
        "rounds": len(result.rounds),
        "ours": {"median": result.ours(metric).median, "all": [one.ours[metric.key] for one in result.rounds]},
        "yardstick": {
            "median": result.yardstick(metric).median,
            "all": [one.yardstick[metric.key] for one in result.rounds],
        },
        "ratio": _spread(result.ratio(metric)),
        "difference": _spread(result.difference(metric)),
        "client_cpu": result.client_cpu(),
        "others": result.others(),
    }


def _spread(spread: Spread | None) -> dict[str, float] | None:
    return None if spread is None else {"median": spread.median, "min": spread.low, "max": spread.high}
