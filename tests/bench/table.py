"""The report as a table for people: on a terminal, and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tests.bench.summary import Comparison, Result

BUSY_CLIENT = 0.9  # of a core: from here on the load generator may be what limits
NOISE = 0.2  # of a core used by others: from here on a round is worth repeating
LEGEND = (
    "↑ more is better, ↓ less is better. With a sign it is no ratio but ours less the yardstick's. to reach: the goal"
    " for the ratio, or for ours where there is no ratio, and whether the median reaches it. client CPU: the load"
    " generator's share of a core, ours / yardstick; with ! it may be the client that was measured. others: the share"
    " of a core that other programs used in the worst round; with ! the ratio is worthless (it tends to flatter):"
    " measure again when the machine is quiet."
)


def show(results: Sequence[Result], environment: dict[str, Any]) -> RenderableType:
    """The environment, a row per metric and yardstick, and what each figure measures."""
    below = [*_troubles(results), *_notes(results), LEGEND]
    return Group(Text(_facts(environment)), _table(results), *map(Text, below))


def markdown(results: Sequence[Result], environment: dict[str, Any]) -> str:
    """The table in Markdown, as GitHub shows it, with the environment below."""
    lines = ["| figure | ours | yardstick | ratio | to reach |", "|---|--:|--:|--:|--:|"]
    for result in results:
        for one in result.comparisons():
            metric = one.metric
            what = f"{result.figure.name} {metric.label}".strip() + f", {_unit(one)}"
            theirs = f"{number(one.theirs.median)} ({one.yardstick.name})"
            lines.append(f"| {what} | {number(one.ours.median)} | {theirs} | {_compared(one)} | {_goal(one)} |")
    facts = f"Medians (lowest–highest ratio of the rounds); {_facts(environment)}."
    return "\n".join([*lines, "", facts, *_troubles(results), ""])


def _facts(environment: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in environment.items())


def _table(results: Sequence[Result]) -> Table:
    table = Table(title="ours beside the yardstick (median of the rounds; the ratio counts)")
    for heading in ("figure", "unit", "beside"):
        table.add_column(heading)
    for heading in ("ours", "yardstick", "ratio (min–max)", "to reach", "rounds", "client CPU", "others"):
        table.add_column(heading, justify="right")
    for result in results:
        for comparison in result.comparisons():
            table.add_row(*_cells(comparison))
        table.add_section()
    return table


def _cells(one: Comparison) -> list[str]:
    return [
        f"{one.result.figure.name} {one.metric.label}".strip(),
        _unit(one),
        one.yardstick.name,
        number(one.ours.median),
        number(one.theirs.median),
        _compared(one),
        _goal(one),
        str(len(one.result.rounds)),
        _client(one.client_cpu),
        _marked(one.result.others(), NOISE),
    ]


def _unit(one: Comparison) -> str:
    return f"{one.metric.unit} {'↑' if one.metric.more_is_better else '↓'}"


def number(value: float) -> str:
    """Three digits or more, with thousands apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _compared(one: Comparison) -> str:
    difference, ratio = one.difference, one.ratio
    if difference is not None:
        return "{} ({}–{})".format(*(_signed(each) for each in (difference.median, difference.low, difference.high)))
    return "–" if ratio is None else f"{ratio.median:.2f} ({ratio.low:.2f}–{ratio.high:.2f})"


def _goal(one: Comparison) -> str:
    """Such as ``≤ 0.85 ✓``: no unit where it is the ratio's."""
    if one.goal is None:
        return ""
    bound, mark = "≥" if one.metric.more_is_better else "≤", "✓" if one.is_reached else "✗"
    if one.ratio is not None:
        return f"{bound} {one.goal:g} {mark}"
    goal = f"+{one.goal:g}" if one.difference is not None else f"{one.goal:g}"
    return f"{bound} {goal} {one.metric.unit} {mark}"


def _signed(value: float) -> str:
    return f"{'−' if value < 0 else '+'}{number(abs(value))}"


def _client(shares: tuple[float, float] | None) -> str:
    if shares is None:
        return ""
    return " / ".join(_marked(share, BUSY_CLIENT) for share in shares)


def _marked(share: float, limit: float) -> str:
    return f"{share:.0%}" + (" !" if share > limit else "")


def _troubles(results: Sequence[Result]) -> list[str]:
    return [f"{result.figure.name}: not measured: {result.trouble}" for result in results if result.trouble]


def _notes(results: Sequence[Result]) -> list[str]:
    """Each note once, with the names of the figures that share it, and then each of their yardsticks."""
    names: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for result in results:
        yardsticks = tuple(f"{one.name}: {one.against}." for one in result.yardsticks)
        names.setdefault((result.figure.note, yardsticks), []).append(result.figure.name)
    return [f"{', '.join(of)}: {note} Beside {' '.join(beside)}" for (note, beside), of in names.items()]
