"""Progress: what of a run has been done, what can begin, and whether a result can still come. No I/O, no clock."""

from __future__ import annotations

import copy
import enum
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from taskserver.config import MAX_MAP_INDEX
from taskserver.dagmodel import NOT_MAPPED
from taskserver.worker.graph import ALL_DONE, Graph, Node, Output, Param


class State(enum.Enum):
    """Where a task of the dag stands; all its instances together, if it is mapped."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"
    """What it needed has failed."""

    @property
    def over(self) -> bool:
        """Whether it stays so."""
        return self not in (State.WAITING, State.RUNNING)


@dataclass(frozen=True)
class Call:
    """A task, or an instance of a mapped one, that is to be called."""

    node: Node
    map_index: int
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Its name for people."""
        return self.node.task_id if self.map_index == NOT_MAPPED else f"{self.node.task_id}[{self.map_index}]"


@dataclass
class _Mapped:
    """The instances of a mapped task."""

    left: int
    values: list[Any]
    failed: bool = False


@dataclass
class Progress:
    """A run of a dag. ``arguments`` are the values of the dag function's parameters.

    Tell it what has become of each ``Call`` that ``begin`` gives. ``error`` is why
    the run has failed, empty as long as it has not.
    """

    graph: Graph
    arguments: Mapping[str, Any]
    values: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    def __post_init__(self) -> None:
        self.states = dict.fromkeys(self.graph.nodes, State.WAITING)
        self._missing = {task_id: len(node.upstream) for task_id, node in self.graph.nodes.items()}
        self._mapped: dict[str, _Mapped] = {}
        self._free = [node for node in self.graph.nodes.values() if not node.upstream]
        self._stopping = False

    # --- what can begin --------------------------------------------------------------

    def begin(self) -> Iterator[Call]:
        """The calls that can begin now, each once."""
        while self._free:
            node = self._free.pop(0)
            if self.states[node.task_id] is not State.WAITING:
                continue
            if not self._allowed(node):
                self._end(node.task_id, State.SKIPPED)
                continue
            self.states[node.task_id] = State.RUNNING
            if not node.mapped:
                yield Call(node, NOT_MAPPED, self._fill(node.args), self._fill(node.kwargs))
                continue
            calls, problem = self._instances(node)
            if problem:
                self.fail(node.task_id, problem)
            elif not calls:
                self.values[node.task_id] = []
                self._end(node.task_id, State.SUCCESS)
            else:
                self._mapped[node.task_id] = _Mapped(len(calls), [None] * len(calls))
                yield from calls

    @property
    def over(self) -> bool:
        """Whether nothing runs and nothing can begin."""
        return not self._free and all(state.over for state in self.states.values())

    # --- what has become of it -------------------------------------------------------

    def succeeded(self, call: Call, value: Any) -> None:
        """A call has returned."""
        task_id = call.node.task_id
        mapped = self._mapped.get(task_id)
        if mapped is None:
            self.values[task_id] = value
            self._end(task_id, State.SUCCESS)
            return
        mapped.values[call.map_index] = value
        self._one_less(task_id, mapped)

    def failed(self, call: Call, error: str) -> None:
        """A call has failed for good."""
        task_id = call.node.task_id
        self._note(f"task {call.label} has failed: {error}")
        mapped = self._mapped.get(task_id)
        if mapped is None:
            self._end(task_id, State.FAILED)
            return
        mapped.failed = True
        self._one_less(task_id, mapped)

    def fail(self, task_id: str, error: str) -> None:
        """A task has failed before it could be called."""
        self._note(f"task {task_id} has failed: {error}")
        self._end(task_id, State.FAILED)

    def stop(self) -> list[Node]:
        """Let nothing begin any more but what is to run in any case (``all_done``); those tasks are returned."""
        self._stopping = True
        left = []
        for task_id, node in self.graph.nodes.items():
            if self.states[task_id] is State.WAITING:
                if node.settings.trigger_rule == ALL_DONE and not node.mapped:
                    left.append(node)
                else:
                    self._end(task_id, State.SKIPPED)
        return left

    @property
    def hopeless(self) -> bool:
        """Whether the run has failed and no (further) result can come: nobody needs to wait any longer."""
        if not self.error:
            return False
        possible: set[str] = set()  # what has succeeded or still may
        for task_id in self.graph.order:
            if self._possible(task_id, possible):
                possible.add(task_id)
                if self.graph.nodes[task_id].settings.result and not self.states[task_id].over:
                    return False
        return True

    def _possible(self, task_id: str, possible: set[str]) -> bool:
        node, state = self.graph.nodes[task_id], self.states[task_id]
        if state is State.RUNNING:
            mapped = self._mapped.get(task_id)
            return mapped is None or not mapped.failed
        if state.over:
            return state is State.SUCCESS
        return node.settings.trigger_rule == ALL_DONE or node.upstream <= possible

    # --- plumbing --------------------------------------------------------------------

    def _note(self, error: str) -> None:
        self.error = self.error or error

    def _one_less(self, task_id: str, mapped: _Mapped) -> None:
        mapped.left -= 1
        if mapped.left:
            return
        if not mapped.failed:
            self.values[task_id] = mapped.values
        self._end(task_id, State.FAILED if mapped.failed else State.SUCCESS)

    def _end(self, task_id: str, state: State) -> None:
        self.states[task_id] = state
        for behind in self.graph.downstream[task_id]:
            self._missing[behind] -= 1
            if not self._missing[behind]:
                self._free.append(self.graph.nodes[behind])

    def _allowed(self, node: Node) -> bool:
        if node.settings.trigger_rule == ALL_DONE:
            return True
        return not self._stopping and all(self.states[up] is State.SUCCESS for up in node.upstream)

    def _fill(self, value: Any) -> Any:
        """A copy of a value with what its markers stand for; of a task without a value None.

        A copy, since the value is the dag's, and what a run does with it is no other run's business.
        """
        if isinstance(value, Output):
            return self.values.get(value.task_id)
        if isinstance(value, Param):
            return self.arguments[value.name]
        if isinstance(value, dict):
            filled = copy.copy(value)  # of the same kind: a defaultdict, for example
            filled.update({name: self._fill(one) for name, one in value.items()})
            return filled
        if isinstance(value, Mapping):
            return {name: self._fill(one) for name, one in value.items()}
        if isinstance(value, list):
            items = copy.copy(value)
            items[:] = [self._fill(one) for one in value]
            return items
        if isinstance(value, tuple):
            make = getattr(value, "_make", tuple)  # of namedtuples
            return make(self._fill(one) for one in value)
        return value

    def _instances(self, node: Node) -> tuple[list[Call], str]:
        """The instances of a mapped task, or why there can be none."""
        fixed, over = self._fill(node.kwargs), self._fill(node.over)
        if isinstance(node.over, dict):
            for name, items in over.items():
                if not isinstance(items, (list, tuple)):
                    return [], f"it is mapped over {name}, which is {_kind(items)} and not a list"
            total = 1
            for items in over.values():
                total *= len(items)
            combinations: Iterator[dict[str, Any]] = (
                dict(zip(over, items, strict=True)) for items in itertools.product(*over.values())
            )
        else:
            if not isinstance(over, (list, tuple)) or not all(isinstance(item, dict) for item in over):
                return [], "it is mapped over something that is not a list of dictionaries"
            total, combinations = len(over), iter(over)
        if total > MAX_MAP_INDEX:
            return [], f"it is mapped over {total:,} items, and there may be {MAX_MAP_INDEX:,}"
        return [Call(node, index, (), {**fixed, **one}) for index, one in enumerate(combinations)], ""


def _kind(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
