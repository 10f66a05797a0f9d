"""Figures whose numbers are known, for the tests of the benchmark."""

from __future__ import annotations

from tests.bench.figure import CLIENT_CPU, Figure, Goal, Metric, Sample, Yardstick
from tests.bench.servers import Bench
from tests.bench.summary import Comparison, Result, Round

RATE = Metric("rate", "", "polls/s", more_is_better=True)
CPU = Metric("cpu", "CPU", "%", more_is_better=False, has_ratio=False)
EXTRA = Metric("rate", "extra", "%", more_is_better=False, has_difference=True)


class Fake(Figure):
    """A figure whose numbers are known: ours is always half of the yardstick's."""

    name = "fake"
    against = "twice of it"
    note = "Nothing is measured."
    metrics: tuple[Metric, ...] = (RATE, CPU)

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def ours(self, bench: Bench) -> Sample:
        self.calls.append("ours")
        return {"rate": 10.0 * len(self.calls), "cpu": 1.5, CLIENT_CPU: 0.25}

    async def yardstick(self, bench: Bench) -> Sample:
        self.calls.append("yardstick")
        return {"rate": 20.0 * len(self.calls), "cpu": 0.0, CLIENT_CPU: 0.95}


class Broken(Fake):
    """A figure whose server goes away."""

    name = "broken"

    async def yardstick(self, bench: Bench) -> Sample:
        raise ConnectionResetError("gone")


class Beyond(Fake):
    """A figure of which the difference counts."""

    metrics = (EXTRA,)
    goals = (Goal("rate", 2.0),)


class Wide(Fake):
    """A figure with a second yardstick, which knows one of the metrics only."""

    name = "wide"

    def yardsticks(self, bench: Bench) -> list[Yardstick]:
        return [*super().yardsticks(bench), Yardstick("rival", "thrice of it", self.rival, (Goal("rate", 0.25),))]

    async def rival(self, bench: Bench) -> Sample:
        self.calls.append("rival")
        return {"rate": 30.0 * len(self.calls)}


class Crowded(Fake):
    """A figure for a machine that does not exist."""

    name = "crowded"
    connections = 2**40


def yardstick(figure: Figure, *goals: Goal) -> Yardstick:
    return Yardstick("twice", figure.against, figure.yardstick, goals)


def result(*pairs: tuple[float, float], figure: Figure | None = None, goals: tuple[Goal, ...] = ()) -> Result:
    figure = figure or Fake()
    rounds = [
        Round({"rate": ours, "cpu": 1.0, CLIENT_CPU: 0.2}, [{"rate": theirs, "cpu": 0.0, CLIENT_CPU: 0.3}], 0.1)
        for ours, theirs in pairs
    ]
    return Result(figure, [yardstick(figure, *goals)], rounds)


def compared(measured: Result, metric: Metric) -> Comparison:
    """How a metric stands beside the first yardstick."""
    return next(one for one in measured.comparisons() if one.metric == metric)
