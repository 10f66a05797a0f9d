"""Running a dag in this process, for tests of its tasks."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from taskserver.model import Stream
from taskserver.worker.calling import Ended, call
from taskserver.worker.context import Context
from taskserver.worker.graph import Graph
from taskserver.worker.progress import Call, Progress
from taskserver.worker.stopping import Stopper
from taskserver.worker.values import decode_value


@dataclass(frozen=True)
class Tested:
    """How a run in this process ended.

    Attributes:
        state: ``success`` or ``failed``.
        results: the values of the tasks that are results.
        values: those of all tasks.
        error: why it failed.
    """

    state: str
    results: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def run_here(dag_id: str, graph: Graph, arguments: Mapping[str, Any], conf: Mapping[str, Any]) -> Tested:
    """Run all tasks, one after the other; what they print goes where it would go anyway."""
    progress = Progress(graph, arguments)
    while not progress.over:
        for made in progress.begin():
            ended = _call(made, dag_id, conf)
            if ended.value is None:
                progress.failed(made, ended.error)
            else:
                progress.succeeded(made, decode_value(ended.value))
    results = {
        task_id: value
        for task_id, value in sorted(progress.values.items())
        if graph.nodes[task_id].settings.result and value is not None
    }
    return Tested("failed" if progress.error else "success", results, progress.values, progress.error)


def _call(made: Call, dag_id: str, conf: Mapping[str, Any]) -> Ended:
    settings, ended = made.node.settings, Ended(None)
    for try_number in range(1, settings.retries + 2):
        context = Context(dag_id, settings.task_id, conf=conf, map_index=made.map_index, try_number=try_number)
        ended = call(made.node.function, made.args, made.kwargs, settings, context, Stopper(), _print)
        if ended.value is not None:
            break
    return ended


def _print(stream: Stream, data: bytes) -> None:
    target = sys.stderr if stream is Stream.STDERR else sys.stdout
    target.write(data.decode("utf-8", "replace"))
