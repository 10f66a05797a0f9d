"""``@task`` and ``@result``: functions and commands as the tasks of a dag."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, overload

from taskserver.dagmodel import KEY, KEY_ERROR
from taskserver.worker import building
from taskserver.worker.checks import check_name, check_number, check_retries
from taskserver.worker.errors import DagError
from taskserver.worker.graph import ALL_DONE, ALL_SUCCESS, Marker, Node, Output, TaskSettings

Seconds = float | timedelta


class TaskFunction:
    """A function that is a task: called within a ``@dag`` function, it takes its place in the dag.

    ``function`` is the function itself, for calling it as such.
    """

    def __init__(self, function: Callable[..., Any], settings: TaskSettings, fixed: Mapping[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.settings = settings
        self._fixed = fixed

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """One run of the task with these arguments; values of other tasks among them are what it waits for."""
        kwargs = {**self._fixed, **kwargs}
        self._check(args, kwargs)
        return self._add(Node(self.settings, self.function, args, kwargs))

    def expand(self, **over: Any) -> Any:
        """An instance for each item of a list, which may be another task's value; for each combination of several.

        The value is the list of the instances' values.
        """
        if not over:
            raise DagError(f"{self.settings.task_id}.expand() needs at least one argument=list")
        for name, items in over.items():
            self._check_items(items, f"{name}=")
        self._check((), {**self._fixed, **over})
        return self._add(Node(self.settings, self.function, (), self._fixed, dict(over)))

    def expand_kwargs(self, over: Any) -> Any:
        """An instance for each item of a list of dictionaries with its arguments."""
        self._check_items(over, "")
        self._check((), self._fixed, partial=True)
        return self._add(Node(self.settings, self.function, (), self._fixed, over))

    def partial(self, **fixed: Any) -> TaskFunction:
        """The task with some arguments fixed, to be expanded over the others."""
        self._check((), {**self._fixed, **fixed}, partial=True)
        return TaskFunction(self.function, self.settings, {**self._fixed, **fixed})

    def override(self, **settings: Any) -> TaskFunction:
        """The task with other settings (those of ``@task``): a name of its own for a second call, for example."""
        return TaskFunction(self.function, make_settings(self.settings, settings), self._fixed)

    def as_result(self) -> TaskFunction:
        """The task with its value as a result of the dag; see ``result``."""
        return TaskFunction(self.function, replace(self.settings, result=True), self._fixed)

    def _add(self, node: Node) -> Output:
        graph = building.GRAPH.get()
        if graph is None:
            raise DagError(
                f"{self.settings.task_id}() was called outside of a @dag function; the function itself is"
                f" {self.settings.task_id}.function(...)"
            )
        return graph.add(node)

    def _check(self, args: Sequence[Any], kwargs: Mapping[str, Any], *, partial: bool = False) -> None:
        signature = inspect.signature(self.function)
        try:
            (signature.bind_partial if partial else signature.bind)(*args, **kwargs)
        except TypeError as error:
            raise DagError(f"{self.settings.task_id}(): {error}") from None

    def _check_items(self, items: Any, name: str) -> None:
        if not isinstance(items, (Marker, list, tuple)):
            raise DagError(
                f"{self.settings.task_id} is mapped over {name}{items!r}: it must be a list or a task's value"
            )


class _Task:
    """The decorator ``task``; ``task.command`` is the one for commands."""

    @overload
    def __call__(self, function: Callable[..., Any], /) -> TaskFunction: ...

    @overload
    def __call__(self, /, **settings: Any) -> Callable[[Callable[..., Any]], TaskFunction]: ...

    def __call__(self, function: Callable[..., Any] | None = None, /, **settings: Any) -> Any:
        """Make a function a task. It may be ``async``; what it returns must be JSON and at most 1 MiB of it.

        Settings (times in seconds or as timedelta):
            task_id: its name in the dag (default: the function's).
            name: what its record is called (default: the same).
            retries: how often a failed try is followed by another (default 0).
            retry_delay, backoff, max_retry_delay: the pause before the first retry (1 s), by what each further one
                is longer (2 times), and the longest (300 s).
            timeout: a try that takes longer has failed.
            trigger_rule: ``all_success`` (default): it begins when all that it waits for has succeeded.
                ``all_done``: when all that has ended, however; missing values are None.
        """
        return self._make(function, settings, command=False)

    def command(self, function: Callable[..., Any] | None = None, /, **settings: Any) -> Any:
        """Make a task of a command: the function returns it, as a list of words or as a line for the shell.

        Its output streams into the task's, an exit code other than 0 is a failure,
        and its value is the last line that it wrote to its standard output.
        Settings are those of ``task``.
        """
        return self._make(function, settings, command=True)

    def _make(self, function: Callable[..., Any] | None, settings: dict[str, Any], *, command: bool) -> Any:
        if function is None:
            return lambda decorated: self._make(decorated, settings, command=command)
        if not callable(function) or isinstance(function, TaskFunction):
            raise DagError(f"@task must stand on a function, not on {function!r}")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise DagError(f"task {function.__name__}: a generator is not a value; return a list")
        base = TaskSettings(getattr(function, "__name__", "task"), command=command)
        return TaskFunction(function, make_settings(base, settings), {})


task = _Task()


def result(decorated: Any) -> TaskFunction:
    """Make a task's value a result of its dag: what callers who wait for a run are answered."""
    if not isinstance(decorated, TaskFunction):
        name = getattr(decorated, "__name__", repr(decorated))
        raise DagError(f"@result must stand on top of @task: {name} is not a task")
    return decorated.as_result()


def make_settings(base: TaskSettings, given: Mapping[str, Any]) -> TaskSettings:
    """Settings with others in their place. Raises DagError."""
    known = {"task_id", "name", "retries", "retry_delay", "backoff", "max_retry_delay", "timeout", "trigger_rule"}
    if unknown := given.keys() - known:
        raise DagError(
            f"task {base.task_id}: there is no setting {', '.join(sorted(unknown))}; there are: {_list(known)}"
        )
    times = {name: _seconds(given[name]) for name in ("retry_delay", "max_retry_delay", "timeout") if name in given}
    settings = replace(base, **{**given, **times})
    _check(settings)
    return settings


def _check(settings: TaskSettings) -> None:
    where = f"task {settings.task_id}"
    if not isinstance(settings.task_id, str) or not KEY.fullmatch(settings.task_id):
        raise DagError(f"{where}: its task_id {KEY_ERROR}")
    check_name(where, "name", settings.name)
    check_retries(where, settings.retries)
    for setting in ("retry_delay", "max_retry_delay", "backoff"):
        check_number(where, setting, getattr(settings, setting))
    if settings.trigger_rule not in (ALL_SUCCESS, ALL_DONE):
        raise DagError(f"{where}: trigger_rule must be {ALL_SUCCESS} or {ALL_DONE}, not {settings.trigger_rule!r}")
    if settings.retry_delay < 0 or settings.max_retry_delay < 0 or settings.backoff < 1:
        raise DagError(f"{where}: delays must not be negative, and backoff must be at least 1")
    if settings.timeout is not None:
        check_number(where, "timeout", settings.timeout)
        if settings.timeout <= 0:
            raise DagError(f"{where}: timeout must be more than 0 seconds")


def _seconds(value: Seconds | None) -> float | None:
    return value.total_seconds() if isinstance(value, timedelta) else value


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names))
