"""Exposition: the meters of all processes in Prometheus' text format, whichever process is asked.

Nothing is registered anywhere: each scrape turns the numbers as they stand into
what prometheus-client prints.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from taskserver import __version__
from taskserver.board import Board
from taskserver.meters import Counter, Histogram, Kind
from taskserver.model import TaskState

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
TOTAL = "_total"  # prometheus-client puts it behind a counter's name itself


def expose(board: Board, live_tasks: Mapping[TaskState, int] | None) -> bytes:
    """What there is to tell; ``live_tasks`` is None if the store cannot say. Reads /proc, so run it in a thread."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Everything(board, live_tasks))
    return generate_latest(registry)


class _Everything(Collector):
    def __init__(self, board: Board, live_tasks: Mapping[TaskState, int] | None) -> None:
        self._board = board
        self._live_tasks = live_tasks

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily(
            "taskserver_build",
            "Which version runs.",
            value={"version": __version__, "python": platform.python_version()},
        )
        for meter in self._board.total():
            yield _counter(meter) if isinstance(meter, Counter) else _histogram(meter)
        if self._live_tasks is not None:
            live = GaugeMetricFamily("taskserver_live_tasks", "Tasks that have not ended.", labels=("state",))
            for state, count in self._live_tasks.items():
                live.add_metric((state.value,), count)
            yield live
        yield from _processes(self._board)


def _counter(meter: Counter) -> Metric:
    family = meter.family
    kind = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    metric = kind(family.name.removesuffix(TOTAL), family.about, labels=family.labels)
    for row, values in enumerate(family.rows):
        value = meter.value(row)
        if value or not family.sparse:
            metric.add_metric(values, value)
    return metric


def _histogram(meter: Histogram) -> Metric:
    family = meter.family
    bounds = [*(f"{bound:g}" for bound in meter.bounds), "+Inf"]
    metric = HistogramMetricFamily(family.name, family.about, labels=family.labels)
    for row, values in enumerate(family.rows):
        metric.add_metric(values, list(zip(bounds, accumulate(meter.counts(row)), strict=True)), meter.sum(row))
    return metric


def _processes(board: Board) -> Iterable[Metric]:
    """What the kernel tells of each process (Linux), under Prometheus' usual names; the first process is 0."""
    found: dict[str, Metric] = {}
    for slot, pid in board.processes():
        for metric in ProcessCollector(pid=partial(int, pid), registry=None).collect():
            known = found.setdefault(metric.name, metric)
            samples = [sample._replace(labels={"process": str(slot)}) for sample in metric.samples]
            known.samples = samples if known is metric else [*known.samples, *samples]
    return found.values()
