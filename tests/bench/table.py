"""The report as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tests.bench.figure import Metric
from tests.bench.summary import Result

BUSY_CLIENT = 0.9  # of a core: from here on the load generator may be what limits
NOISE = 0.2  # of a core used by others: from here on a round is worth repeating


def show(results: Sequence[Result], environment: dict[str, Any]) -> RenderableType:
    """The environment, a row per metric, and what each figure measures."""
    facts = ", ".join(f"{name} {value}" for name, value in environment.items())
    return Group(Text(facts), _table(results), *_notes(results))


def _table(results: Sequence[Result]) -> Table:
    table = Table(title="ours beside the yardstick (median of the rounds; the ratio counts)")
    table.add_column("figure")
    table.add_column("unit")
    for heading in ("ours", "yardstick", "ratio (min–max)", "rounds", "client CPU", "others"):
        table.add_column(heading, justify="right")
    for result in results:
        if result.rounds:
            for metric in result.figure.metrics:
                table.add_row(*_cells(result, metric))
        else:
            table.add_row(result.figure.name, "", Text(f"not measured: {result.trouble}", overflow="fold"))
        table.add_section()
    return table


def _cells(result: Result, metric: Metric) -> list[str]:
    return [
        f"{result.figure.name} {metric.label}".strip(),
        f"{metric.unit} {'↑' if metric.more_is_better else '↓'}",
        number(result.ours(metric).median),
        number(result.yardstick(metric).median),
        _compared(result, metric),
        str(len(result.rounds)),
        _client(result.client_cpu()),
        _marked(result.others(), NOISE),
    ]


def number(value: float) -> str:
    """Three digits or more, with thousands apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _compared(result: Result, metric: Metric) -> str:
    difference = result.difference(metric)
    if difference is not None:
        return "{} ({}–{})".format(*(_signed(one) for one in (difference.median, difference.low, difference.high)))
    ratio = result.ratio(metric)
    return "–" if ratio is None else f"{ratio.median:.2f} ({ratio.low:.2f}–{ratio.high:.2f})"


def _signed(value: float) -> str:
    return f"{'−' if value < 0 else '+'}{number(abs(value))}"


def _client(shares: tuple[float, float] | None) -> str:
    if shares is None:
        return ""
    return " / ".join(_marked(share, BUSY_CLIENT) for share in shares)


def _marked(share: float, limit: float) -> str:
    return f"{share:.0%}" + (" !" if share > limit else "")


def _notes(results: Sequence[Result]) -> list[Text]:
    """Each note once, with the names of the figures that share it."""
    names: dict[tuple[str, str], list[str]] = {}
    for result in results:
        names.setdefault((result.figure.note, result.figure.against), []).append(result.figure.name)
    notes = [Text(f"{', '.join(of)}: {note} Yardstick: {against}.") for (note, against), of in names.items()]
    legend = (
        "↑ more is better, ↓ less is better. With a sign it is no ratio but ours less the yardstick's. client CPU: the"
        " load generator's share of a core, ours / yardstick; with ! it may be the client that was measured. others:"
        " the share of a core that other programs used in the worst round; with ! the ratio is worthless (it tends to"
        " flatter): measure again when the machine is quiet."
    )
    return [*notes, Text(legend)]
