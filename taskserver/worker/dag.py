"""``@dag``: a function that says which tasks there are and what they get from each other."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, overload

from taskserver.dagmodel import KEY, KEY_ERROR
from taskserver.worker import building
from taskserver.worker.checks import check_name, check_retries
from taskserver.worker.errors import DagError
from taskserver.worker.graph import CANCEL, FINISH, Graph, Node, Output, Param
from taskserver.worker.local import Tested, run_here


class Dag:
    """A dag: its tasks and how they depend on each other. ``@dag`` makes one of a function.

    The function runs once, when it is declared: what it calls are the tasks, and
    what it returns is a result. Its parameters stand for what a caller's ``conf``
    has under their names.
    """

    def __init__(
        self, function: Callable[..., Any], *, dag_id: str, display_name: str, retries: int, on_failure: str
    ) -> None:
        self.dag_id = dag_id
        self.display_name = display_name
        self.retries = retries
        self.on_failure = on_failure
        self.function = function
        code = function.__code__
        self.where = f"{code.co_filename}:{code.co_firstlineno}"
        self.params = _params(dag_id, function)
        self.graph = self._collect()

    def __call__(self) -> Dag:
        """The dag itself: ``my_dag()`` at the end of a file declares nothing anew."""
        return self

    def __repr__(self) -> str:
        return f"<dag {self.dag_id} ({self.where})>"

    @property
    def nodes(self) -> Mapping[str, Node]:
        """Its tasks by their names."""
        return self.graph.nodes

    def test(self, conf: Mapping[str, Any] | None = None) -> Tested:
        """Run it in this process, one task after the other, without a server; retries do not wait."""
        return run_here(self.dag_id, self.graph, self.arguments(conf or {}), conf or {})

    def arguments(self, conf: Mapping[str, Any]) -> dict[str, Any]:
        """What its parameters stand for in a run. Raises DagError if something is missing from ``conf``."""
        missing = [param.name for param in self.params if param.required and param.name not in conf]
        if missing:
            raise DagError(f"conf lacks {', '.join(missing)}: the dag's function has no default for it")
        return {param.name: conf.get(param.name, param.default) for param in self.params}

    def _collect(self) -> Graph:
        graph = Graph(self.dag_id)
        outer = building.GRAPH.set(graph)
        try:
            returned = self.function(**{param.name: param for param in self.params})
        finally:
            building.GRAPH.reset(outer)
        if isinstance(returned, Output) and returned.graph is graph:
            graph.mark_result(returned.task_id)
        graph.complete()
        return graph


@overload
def dag(function: Callable[..., Any], /) -> Dag: ...


@overload
def dag(
    *, dag_id: str | None = None, display_name: str = "", retries: int = 0, on_failure: str = CANCEL
) -> Callable[[Callable[..., Any]], Dag]: ...


def dag(
    function: Callable[..., Any] | None = None,
    /,
    *,
    dag_id: str | None = None,
    display_name: str = "",
    retries: int = 0,
    on_failure: str = CANCEL,
) -> Any:
    """Make a dag of a function.

    Args:
        function: calls tasks; it runs once, now.
        dag_id: the dag's name (default: the function's).
        display_name: its name for people.
        retries: how often a run is taken up again whose worker has died. What its tasks have done by then is kept.
        on_failure: what happens to tasks that still run when a run has failed and no result can come any more. Those
            who wait are told at once; then they are stopped (``cancel``, the default) or run to their end (``finish``).

    Raises DagError.
    """

    def make(function: Callable[..., Any]) -> Dag:
        name = str(dag_id or getattr(function, "__name__", ""))
        _check(function, name, display_name, retries, on_failure)
        made = Dag(function, dag_id=name, display_name=display_name, retries=retries, on_failure=on_failure)
        declared = building.DECLARED.get()
        if declared is not None:
            declared.append(made)
        return made

    return make if function is None else make(function)


def _check(function: Any, dag_id: str, display_name: object, retries: object, on_failure: object) -> None:
    if not inspect.isfunction(function):
        raise DagError(f"@dag must stand on a function, not on {function!r}")
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise DagError(f"dag {dag_id}: its function must be a plain one; its tasks may be async")
    if not KEY.fullmatch(dag_id):
        raise DagError(f"dag {dag_id!r}: its dag_id {KEY_ERROR}")
    check_name(f"dag {dag_id}", "display_name", display_name)
    check_retries(f"dag {dag_id}", retries)
    if on_failure not in (CANCEL, FINISH):
        raise DagError(f"dag {dag_id}: on_failure must be {CANCEL} or {FINISH}, not {on_failure!r}")


def _params(dag_id: str, function: Callable[..., Any]) -> list[Param]:
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise DagError(f"dag {dag_id}: {parameter} cannot be filled from conf; name its parameters")
        found.append(Param(name, parameter.default))
    return found
