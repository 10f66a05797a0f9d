"""Curves from a run, drawn with matplotlib (the extra ``bench``)."""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.summary import Comparison, Result
from tests.bench.table import number

SIZE = (8.0, 4.8)  # inches
COLOURS = ("#1f5fa8", "#c2571a", "#3c8a4a")  # of the lines in their order; told apart by the colour-blind too
GREY = "#777777"
LABEL_GAP = 0.06  # of the chart's height
OURS = "taskserver"


class PlotterMissing(Exception):
    """matplotlib is not installed."""


@dataclass(frozen=True)
class Line:
    """A named line of a chart; points are (x, y)."""

    name: str
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """What is drawn: ``dotted`` are lines of the same names and colours as ``lines``, but less important."""

    title: str
    subtitle: str
    x_label: str
    y_label: str
    lines: list[Line]
    dotted: Sequence[Line] = ()
    y_log: bool = True
    y_unit: str = ""
    limit: tuple[str, float] | None = None


Draw = Callable[[Sequence[Result], float], list[Path]]
"""Takes the results and the scale of what was stored."""


def load_plotter(folder: Path) -> Draw:
    """A function that draws the curves of some results into ``folder`` and tells which files it made.

    Raises PlotterMissing here, and not after an hour of measuring.
    """
    try:
        figures = importlib.import_module("matplotlib.figure")
        matplotlib = importlib.import_module("matplotlib")
    except ImportError:
        raise PlotterMissing("--plot needs matplotlib: pip install '.[bench]'") from None
    folder.mkdir(parents=True, exist_ok=True)
    # The same picture for the same numbers; text stays text, in whatever sans-serif font the reader has.
    matplotlib.rcParams.update({"svg.hashsalt": OURS, "svg.fonttype": "none", "font.family": "sans-serif"})

    def draw(results: Sequence[Result], scale: float) -> list[Path]:
        charts = {"wake": wake_chart(results), "growth": growth_chart(results, scale)}
        drawn = []
        for name, chart in charts.items():
            if chart is not None:
                drawn.append(folder / f"{name}.svg")
                _draw(figures.Figure(figsize=SIZE, layout="constrained"), chart, drawn[-1])
        return drawn

    return draw


def wake_chart(results: Sequence[Result]) -> Chart | None:
    """How soon waiters are woken, by how many there are: ours and every yardstick. None for less than two points."""
    return _if_curve(
        Chart(
            "Waking long polls by one appended line",
            "from the producer's request to the clients' last byte; solid: p99, dotted: p50",
            "waiting clients",
            "milliseconds",
            _sides(results, "wake-append", "p99"),
            _sides(results, "wake-append", "p50"),
            y_unit=" ms",
        )
    )


def growth_chart(results: Sequence[Result], scale: float = 1.0) -> Chart | None:
    """What operations cost by how much is stored, beside an empty database. None for less than two points."""
    compared = _compared(results, "growth")
    names = list(dict.fromkeys(one.metric.label for _, one in compared))
    lines = [
        Line(name, [(x * scale, one.ratio.median) for x, one in compared if one.metric.label == name and one.ratio])
        for name in names
    ]
    goals = {one.goal for _, one in compared if one.goal is not None}
    return _if_curve(
        Chart(
            "What is stored costs nothing",
            "time beside the same on an empty database (1.0)",
            "stored lines (100 to a task)",
            "ratio",
            lines,
            y_log=False,
            y_unit=" ×",
            limit=("goal", max(goals)) if goals else None,
        )
    )


def _if_curve(chart: Chart) -> Chart | None:
    return chart if any(len(line.points) > 1 for line in chart.lines) else None


def _compared(results: Sequence[Result], curve: str) -> list[tuple[float, Comparison]]:
    """What was measured on a curve, by its x."""
    found = [
        (result.figure.point.x, one)
        for result in results
        if result.figure.point is not None and result.figure.point.curve == curve
        for one in result.comparisons()
    ]
    return sorted(found, key=lambda pair: pair[0])


def _sides(results: Sequence[Result], curve: str, key: str) -> list[Line]:
    """Ours and each yardstick."""
    compared = [(x, one) for x, one in _compared(results, curve) if one.metric.key == key]
    ours = {x: one.ours.median for x, one in compared}
    names = dict.fromkeys(one.yardstick.name for _, one in compared)
    theirs = [
        Line(name, [(x, one.theirs.median) for x, one in compared if one.yardstick.name == name]) for name in names
    ]
    return [Line(OURS, list(ours.items())), *theirs]


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Places as near to the wanted ones as they can be, in the same order, each ``gap`` or more from the next."""
    places = list(wanted)
    order = sorted(range(len(places)), key=places.__getitem__)
    for below, above in itertools.pairwise(order):
        places[above] = max(places[above], places[below] + gap)
    return places


def _draw(figure: Any, chart: Chart, file: Path) -> None:
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_yscale("log" if chart.y_log else "linear")
    low, high = _y_limits(chart)
    axes.set_ylim(low, high)
    for line, colour in zip(chart.lines, COLOURS, strict=False):
        axes.plot(*zip(*line.points, strict=True), color=colour, marker="o", markersize=5, linewidth=2)
    for line, colour in zip(chart.dotted, COLOURS, strict=False):
        axes.plot(*zip(*line.points, strict=True), color=colour, linestyle=":", linewidth=1.5)
    if chart.limit is not None:
        name, limit = chart.limit
        axes.axhline(limit, color=GREY, linestyle="--", linewidth=1)
        axes.text(0.01, limit, name, transform=axes.get_yaxis_transform(), color=GREY, va="bottom")
    _label_ends(axes, chart, low, high)
    ticks = sorted({x for line in chart.lines for x, _ in line.points})
    axes.set_xticks(ticks, [f"{x:,.0f}" for x in ticks])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:,g}")
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    axes.set_title(chart.title, loc="left", fontweight="bold", pad=24)
    axes.text(0, 1.03, chart.subtitle, transform=axes.transAxes, color=GREY)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, metadata={"Date": None})


def _y_limits(chart: Chart) -> tuple[float, float]:
    values = [y for line in (*chart.lines, *chart.dotted) for _, y in line.points]
    if chart.limit is not None:
        values.append(chart.limit[1])
    return (min(values) / 1.5, max(values) * 1.5) if chart.y_log else (0.0, max(values) * 1.15)


def _label_ends(axes: Any, chart: Chart, low: float, high: float) -> None:
    """Name and last value of each line at its right end, none over another."""

    def height(y: float) -> float:
        return math.log(y / low) / math.log(high / low) if chart.y_log else (y - low) / (high - low)

    ends = [line.points[-1] for line in chart.lines]
    places = spread([height(y) for _, y in ends], LABEL_GAP)
    for line, (x, y), place, colour in zip(chart.lines, ends, places, COLOURS, strict=False):
        axes.annotate(
            f"{line.name} {number(y)}{chart.y_unit}",
            (x, place),
            xycoords=("data", "axes fraction"),
            xytext=(10, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            fontweight="bold",
            annotation_clip=False,
        )
