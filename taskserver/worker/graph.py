"""The graph of a dag: tasks, and what each of them needs before it can begin."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from taskserver.config import MAX_DAG_TASKS
from taskserver.worker.errors import DagError

ALL_SUCCESS, ALL_DONE = "all_success", "all_done"
CANCEL, FINISH = "cancel", "finish"


@dataclass(frozen=True)
class TaskSettings:
    """How a task is run; times are in seconds. See ``task`` for what they mean."""

    task_id: str
    name: str = ""
    retries: int = 0
    retry_delay: float = 1.0
    backoff: float = 2.0
    max_retry_delay: float = 300.0
    timeout: float | None = None
    trigger_rule: str = ALL_SUCCESS
    command: bool = False
    result: bool = False

    def delay(self, retry: int) -> float:
        """Seconds before the retry with this number, 1 for the first."""
        return float(min(self.max_retry_delay, self.retry_delay * self.backoff ** min(retry - 1, 64)))


class Marker:
    """A value that is known only when the dag runs. Used as if it were known, it says so."""

    label: str

    def __repr__(self) -> str:
        return f"<{self.label}>"

    def _unknown(self, *_: object) -> NoReturn:
        raise TypeError(f"{self.label} is known only when the dag runs: pass it to a task, and use it there")

    # Each of these would say something wrong of the value without a word, or say with other words that it cannot.
    __str__ = __format__ = __bytes__ = _unknown
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _unknown
    __hash__ = _unknown  # `n in {1, 2}` compares nothing if the hashes differ
    __bool__ = __int__ = __float__ = __complex__ = __index__ = __round__ = _unknown
    __iter__ = __len__ = __contains__ = __getitem__ = __setitem__ = __delitem__ = __reversed__ = _unknown
    __add__ = __sub__ = __mul__ = __matmul__ = __truediv__ = __floordiv__ = __mod__ = __divmod__ = __pow__ = _unknown
    __radd__ = __rsub__ = __rmul__ = __rmatmul__ = __rtruediv__ = __rfloordiv__ = _unknown
    __rmod__ = __rdivmod__ = __rpow__ = _unknown
    __and__ = __or__ = __xor__ = __rand__ = __ror__ = __rxor__ = _unknown
    __neg__ = __pos__ = __abs__ = __invert__ = _unknown


class Param(Marker):
    """A parameter of the ``@dag`` function: what the caller's ``conf`` has under its name."""

    def __init__(self, name: str, default: Any = inspect.Parameter.empty) -> None:
        self.name = name
        self.default = default
        self.label = f"the dag's parameter {name}"

    @property
    def required(self) -> bool:
        """Whether the caller must give it."""
        return self.default is inspect.Parameter.empty


class Output(Marker):
    """What a task will return. ``a >> b`` lets b begin behind a without taking its value."""

    def __init__(self, graph: Graph, task_id: str) -> None:
        self.graph = graph
        self.task_id = task_id
        self.label = f"the value of task {task_id}"

    def __rshift__(self, other: Output | Sequence[Output]) -> Any:
        for one in [other] if isinstance(other, Output) else other:
            self.graph.add_order(self, one)
        return other

    def __lshift__(self, other: Output | Sequence[Output]) -> Any:
        for one in [other] if isinstance(other, Output) else other:
            self.graph.add_order(one, self)
        return other

    def __rrshift__(self, other: Sequence[Output]) -> Output:
        self << other
        return self

    def __rlshift__(self, other: Sequence[Output]) -> Output:
        self >> other
        return self


@dataclass
class Node:
    """A task of a dag. ``over`` is None, or what it is mapped over: a list of arguments, or lists by argument."""

    settings: TaskSettings
    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    over: Any = None
    upstream: set[str] = field(default_factory=set)

    @property
    def task_id(self) -> str:
        """Its name in the dag."""
        return self.settings.task_id

    @property
    def mapped(self) -> bool:
        """Whether it has an instance for each item of a list."""
        return self.over is not None


class Graph:
    """The tasks of one dag, in the order in which they were called."""

    def __init__(self, dag_id: str) -> None:
        self.dag_id = dag_id
        self.nodes: dict[str, Node] = {}
        self.downstream: dict[str, list[str]] = {}
        self.order: list[str] = []
        """The tasks, each behind those that it waits for; known when the graph is complete."""

    def add(self, node: Node) -> Output:
        """Add a task. Raises DagError."""
        task_id = node.task_id
        if task_id in self.nodes:
            raise DagError(
                f"dag {self.dag_id}: two tasks are called {task_id!r};"
                f" give one of them another name: {task_id}.override(task_id=...)(...)"
            )
        if len(self.nodes) >= MAX_DAG_TASKS:
            raise DagError(f"dag {self.dag_id}: more than {MAX_DAG_TASKS} tasks; map one over a list instead (expand)")
        for found in markers((node.args, node.kwargs, node.over)):
            if isinstance(found, Output):
                self._check_mine(found, f"task {task_id}")
                node.upstream.add(found.task_id)
        self.nodes[task_id] = node
        return Output(self, task_id)

    def add_order(self, before: Output, behind: Output) -> None:
        """Let one task begin behind another."""
        self._check_mine(before, "an order")
        self._check_mine(behind, "an order")
        self.nodes[behind.task_id].upstream.add(before.task_id)

    def mark_result(self, task_id: str) -> None:
        """Make a task's value a result of the dag."""
        node = self.nodes[task_id]
        node.settings = replace(node.settings, result=True)

    def complete(self) -> None:
        """Say that all tasks are there. Raises DagError if some wait for each other."""
        if not self.nodes:
            raise DagError(f"dag {self.dag_id} has no tasks: its function must call some")
        self.downstream = {task_id: [] for task_id in self.nodes}
        for node in self.nodes.values():
            for task_id in sorted(node.upstream):
                self.downstream[task_id].append(node.task_id)
        waiting = {task_id: len(node.upstream) for task_id, node in self.nodes.items()}
        free = [task_id for task_id, count in waiting.items() if not count]
        while free:
            self.order.append(free.pop())
            for task_id in self.downstream[self.order[-1]]:
                waiting[task_id] -= 1
                if not waiting[task_id]:
                    free.append(task_id)
        stuck = {task_id for task_id, count in waiting.items() if count}
        if stuck:
            raise DagError(f"dag {self.dag_id}: tasks wait for each other: {' -> '.join(self._circle(stuck))}")

    def _circle(self, stuck: set[str]) -> list[str]:
        """A way around: whoever waits for ever waits for somebody who does too, so going back comes around."""
        path = [min(stuck)]
        while path.count(path[-1]) < 2:
            path.append(min(self.nodes[path[-1]].upstream & stuck))
        return path[path.index(path[-1]) :][::-1]

    def _check_mine(self, output: Output, what: str) -> None:
        if output.graph is not self:
            raise DagError(f"dag {self.dag_id}: {what} takes {output.label} of another dag, {output.graph.dag_id}")


def markers(value: Any) -> Iterator[Marker]:
    """The markers in a value, also within lists, tuples and dictionaries."""
    if isinstance(value, Marker):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from markers(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from markers(one)
