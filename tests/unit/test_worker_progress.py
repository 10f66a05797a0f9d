"""What of a run can begin, and when nobody needs to wait any longer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taskserver.worker import dag, result, task
from taskserver.worker.progress import Call, Progress, State


@task
def step(*values: Any) -> Any: ...


def named(name: str, **settings: Any) -> Any:
    return step.override(task_id=name, **settings)


def progress_of(function: Callable[..., Any]) -> Progress:
    return Progress(dag(function).graph, {})


def begin(progress: Progress) -> dict[str, Call]:
    """What can begin, by its label."""
    return {made.label: made for made in progress.begin()}


def test_each_begins_when_all_that_it_needs_has_succeeded() -> None:
    def my_dag() -> None:
        a = named("a")()
        named("d")(named("b")(a), named("c")(a))

    progress = progress_of(my_dag)
    calls = begin(progress)
    assert list(calls) == ["a"]
    assert begin(progress) == {}
    progress.succeeded(calls["a"], 1)
    calls = begin(progress)
    assert {label: made.args for label, made in calls.items()} == {"b": (1,), "c": (1,)}
    progress.succeeded(calls["b"], 2)
    assert begin(progress) == {}
    progress.succeeded(calls["c"], 3)
    (last,) = begin(progress).values()
    assert last.args == (2, 3)
    progress.succeeded(last, 4)
    assert (progress.over, progress.error, progress.hopeless) == (True, "", False)


def test_without_results_the_first_failure_is_the_end() -> None:
    def my_dag() -> None:
        named("a")()
        named("b")()

    progress = progress_of(my_dag)
    calls = begin(progress)
    progress.failed(calls["a"], "broken")
    assert (progress.hopeless, progress.over) == (True, False)
    progress.succeeded(calls["b"], 1)
    assert (progress.over, progress.error) == (True, "task a has failed: broken")


def test_as_long_as_a_result_may_come_it_is_waited_for() -> None:
    def my_dag() -> None:
        named("a")()
        result(step).override(task_id="late")(named("b")())

    progress = progress_of(my_dag)
    calls = begin(progress)
    progress.failed(calls["a"], "broken")
    hopeless = [progress.hopeless]
    progress.failed(calls["b"], "broken too")
    assert [*hopeless, progress.hopeless] == [False, True]
    assert begin(progress) == {}
    assert (progress.over, progress.states["late"]) == (True, State.SKIPPED)


def test_a_result_that_comes_in_any_case_is_waited_for() -> None:
    def my_dag() -> None:
        result(step).override(task_id="summary", trigger_rule="all_done")(named("a")())

    progress = progress_of(my_dag)
    progress.failed(begin(progress)["a"], "broken")
    assert not progress.hopeless
    (summary,) = begin(progress).values()
    assert summary.args == (None,)


def test_a_result_of_which_an_instance_has_failed_cannot_come() -> None:
    def my_dag() -> None:
        result(task(task_id="mapped")(lambda n: n)).expand(n=[1, 2])

    progress = progress_of(my_dag)
    calls = begin(progress)
    assert list(calls) == ["mapped[0]", "mapped[1]"]
    progress.failed(calls["mapped[0]"], "broken")
    assert progress.hopeless


def test_after_the_end_only_what_is_to_run_in_any_case_begins() -> None:
    def my_dag() -> None:
        a, b = named("a")(), named("b")()
        named("c")(b)
        named("clean", trigger_rule="all_done")(a, b)

    progress = progress_of(my_dag)
    calls = begin(progress)
    progress.failed(calls["a"], "broken")
    assert [node.task_id for node in progress.stop()] == ["clean"]
    assert begin(progress) == {}
    progress.succeeded(calls["b"], 1)
    assert list(begin(progress)) == ["clean"]
    assert progress.states["c"] is State.SKIPPED


def test_a_long_chain_and_many_instances_are_no_trouble() -> None:
    def my_dag() -> None:
        before: Any = 0
        for number in range(999):
            before = named(f"t{number}")(before)

    progress = progress_of(my_dag)
    for number in range(999):
        calls = begin(progress)
        progress.succeeded(calls[f"t{number}"], number)
    assert progress.over
