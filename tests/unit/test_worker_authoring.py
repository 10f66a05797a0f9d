"""Dags as they are written: what is declared, what it comes to in-process, and what is refused with which words."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, NamedTuple

import pytest

from taskserver.worker import Dag, DagError, context, dag, result, task


@task
def one() -> int:
    return 1


@task
def double(n: int) -> int:
    return 2 * n


@task
def total(values: list[int]) -> int:
    return sum(values)


def results(declared: Dag) -> list[str]:
    """The tasks that a dag marks as results."""
    return [task_id for task_id, node in declared.nodes.items() if node.settings.result]


class TestResults:
    def test_a_task_is_marked(self) -> None:
        @dag
        def my_dag() -> None:
            @task
            def fetch_data() -> dict[str, int]:
                return {"answer": 42}

            @result
            @task
            def compute(data: dict[str, int]) -> int:
                return data["answer"] * 2

            compute(fetch_data())

        assert my_dag() is my_dag
        assert results(my_dag) == ["compute"]
        assert my_dag.test().results == {"compute": 84}

    def test_a_returned_output_is_marked(self) -> None:
        @dag
        def my_dag() -> Any:
            return double(one())

        assert results(my_dag) == ["double"]
        assert my_dag.test().results == {"double": 2}

    @pytest.mark.parametrize("returned", [7, "text", None, lambda out: [out], lambda out: {"a": out}])
    def test_anything_else_is_ignored(self, returned: Any) -> None:
        @dag
        def my_dag() -> Any:
            out = one()
            return returned(out) if callable(returned) else returned

        assert results(my_dag) == []

    def test_one_that_was_marked_can_be_mapped(self) -> None:
        @dag
        def my_dag() -> None:
            result(double).expand(n=[1, 2, 3])

        assert my_dag.test().results == {"double": [2, 4, 6]}

    def test_one_with_fixed_arguments_keeps_them(self) -> None:
        @task
        def joined(a: int, b: int, c: int = 0) -> list[int]:
            return [a, b, c]

        @dag
        def my_dag() -> None:
            result(joined.partial(b=1, c=9)).expand(a=[1, 2])

        assert my_dag.test().results == {"joined": [[1, 1, 9], [2, 1, 9]]}


class TestMapping:
    def test_over_a_list_that_is_known_only_at_run_time(self) -> None:
        @task
        def numbers(count: int) -> list[int]:
            return list(range(count))

        @dag
        def my_dag(count: int = 3) -> Any:
            return total(double.expand(n=numbers(count)))

        assert my_dag.test().results == {"total": 6}
        assert my_dag.test({"count": 5}).results == {"total": 20}
        assert my_dag.test({"count": 0}).values == {"numbers": [], "double": [], "total": 0}

    def test_over_combinations_and_with_fixed_arguments(self) -> None:
        @task
        def joined(a: int, b: int, c: int) -> list[int]:
            return [a, b, c]

        @dag
        def my_dag() -> Any:
            return joined.partial(c=9).expand(a=[1, 2], b=[3, 4])

        assert my_dag.test().results == {"joined": [[1, 3, 9], [1, 4, 9], [2, 3, 9], [2, 4, 9]]}

    def test_over_dictionaries_of_arguments(self) -> None:
        @task
        def joined(a: int, b: int, c: int = 0) -> list[int]:
            return [a, b, c]

        @dag
        def my_dag() -> Any:
            return joined.partial(a=1).expand_kwargs([{"b": 2}, {"b": 3, "c": 4}])

        assert my_dag.test().results == {"joined": [[1, 2, 0], [1, 3, 4]]}

    @pytest.mark.parametrize("value", [7, None, "text", {"a": 1}])
    def test_over_what_is_no_list_it_fails(self, value: Any) -> None:
        @task
        def gives() -> Any:
            return value

        @dag
        def my_dag() -> Any:
            return double.expand(n=gives())

        tested = my_dag.test()
        assert (tested.state, "not a list" in tested.error) == ("failed", True)

    def test_an_instance_that_fails_fails_the_task(self) -> None:
        @task
        def picky(n: int) -> int:
            if n == 2:
                raise ValueError("not two")
            return n

        @dag
        def my_dag() -> Any:
            return total(picky.expand(n=[1, 2, 3]))

        tested = my_dag.test()
        assert (tested.state, tested.error) == ("failed", "task picky[1] has failed: ValueError: not two")
        assert tested.results == {}


class TestRunning:
    def test_values_in_lists_and_dictionaries_are_filled_in(self) -> None:
        @task
        def takes(value: Any) -> Any:
            return value

        @dag
        def my_dag(name: str = "x") -> Any:
            return takes({"a": [one(), (name, 2)], "b": 3})

        assert my_dag.test().results == {"takes": {"a": [1, ["x", 2]], "b": 3}}

    def test_what_was_written_arrives_as_what_it_is_and_is_no_other_runs(self) -> None:
        class Point(NamedTuple):
            x: int
            y: Any

        @task
        def takes(point: Point, seen: defaultdict[str, list[int]]) -> list[Any]:
            seen["new"].append(point.x)
            return [type(seen).__name__, point.y, dict(seen)]

        @dag
        def my_dag(n: int = 5) -> Any:
            return takes(Point(1, [n]), defaultdict(list, {"old": [7]}))

        for _ in range(2):
            assert my_dag.test().results == {"takes": ["defaultdict", [5], {"old": [7], "new": [1]}]}

    def test_async_functions_and_context(self) -> None:
        @task
        async def waits() -> list[Any]:
            await asyncio.sleep(0)
            here = context()
            return [here.dag_id, here.task_id, dict(here.conf), here.map_index, here.try_number]

        @dag
        def my_dag() -> Any:
            return waits()

        assert my_dag.test({"a": 1}).results == {"waits": ["my_dag", "waits", {"a": 1}, -1, 1]}
        with pytest.raises(RuntimeError, match="code that runs as a task"):
            context()

    def test_a_value_is_what_json_makes_of_it(self) -> None:
        @task
        def gives() -> Any:
            return (1, 2)

        @task
        def kind(value: Any) -> str:
            return type(value).__name__

        @dag
        def my_dag() -> Any:
            return kind(gives())

        assert my_dag.test().results == {"kind": "list"}

    def test_retries(self) -> None:
        @task(retries=2, retry_delay=timedelta(seconds=60))
        def third() -> int:
            assert context().try_number == 3
            return 3

        @dag
        def my_dag() -> Any:
            return third()

        assert my_dag.test().results == {"third": 3}

    def test_what_is_cleaned_up_in_any_case(self) -> None:
        @task
        def breaks() -> None:
            raise RuntimeError("broken")

        @task(trigger_rule="all_done")
        def cleans(value: None) -> str:
            return f"cleaned up {value}"

        @dag
        def my_dag() -> None:
            broken = breaks()
            double(broken)
            cleans(broken)

        tested = my_dag.test()
        assert (tested.state, tested.error) == ("failed", "task breaks has failed: RuntimeError: broken")
        assert tested.values == {"cleans": "cleaned up None"}

    def test_order_without_values(self) -> None:
        seen: list[str] = []

        def noting(name: str) -> Callable[[], None]:
            return lambda: seen.append(name)

        @dag
        def my_dag() -> None:
            c, b, a = (task(task_id=name)(noting(name))() for name in "cba")
            a >> [b, c]
            b >> c

        assert my_dag.test().state == "success"
        assert seen == ["a", "b", "c"]

    def test_a_second_call_has_a_name_of_its_own(self) -> None:
        @dag
        def my_dag() -> Any:
            return total([double(1), double.override(task_id="again", retries=1)(2)])

        assert my_dag.test().results == {"total": 6}
        assert my_dag.nodes["again"].settings.retries == 1


def _declares(function: Callable[..., Any], **settings: Any) -> None:
    dag(**settings)(function) if settings else dag(function)


def twice() -> None:
    one()
    one()


def circle() -> None:
    a, b, c = (one.override(task_id=name)() for name in "abc")
    a >> b >> c >> a


def generator() -> Iterator[int]:
    yield 1


async def coroutine() -> None: ...


def starred(*args: int) -> None:
    one()


def other_dag() -> None:
    stolen = []

    @dag
    def first() -> None:
        stolen.append(one())

    double(stolen[0])


@pytest.mark.parametrize(
    ("declare", "words"),
    [
        (lambda: dag(lambda: None), "dag_id must be|has no tasks"),
        (lambda: dag(twice), "two tasks are called 'one'"),
        (lambda: dag(circle), "wait for each other: . -> . -> . -> ."),
        (lambda: dag(generator), "must be a plain one"),
        (lambda: dag(coroutine), "must be a plain one"),
        (lambda: dag(other_dag), "of another dag, first"),
        (lambda: dag(len), "@dag must stand on a function"),
        (lambda: dag(dag_id="a/b")(twice), "its dag_id must be"),
        (lambda: dag(on_failure="ignore")(twice), "on_failure must be"),
        (lambda: dag(retries=-1)(twice), "retries must be"),
        (lambda: dag(retries="3")(twice), "retries must be 0 to 100, not '3'"),  # type: ignore[call-overload]
        (lambda: dag(display_name=None)(twice), "its display_name must be a text"),  # type: ignore[call-overload]
        (lambda: result(print), "@result must stand on top of @task"),
        (lambda: task(one), "@task must stand on a function"),
        (lambda: task(generator), "a generator is not a value"),
        (lambda: task(retry=1)(print), "there is no setting retry"),
        (lambda: task(trigger_rule="one_failed")(print), "trigger_rule must be"),
        (lambda: task(timeout=0)(print), "timeout must be"),
        (lambda: task(timeout="5")(print), "timeout must be a number, not '5'"),
        (lambda: task(retry_delay=None)(print), "retry_delay must be a number, not None"),
        (lambda: task(backoff=float("nan"))(print), "backoff must be a number, not nan"),
        (lambda: task(retries=True)(print), "retries must be 0 to 100, not True"),
        (lambda: task(name=None)(print), "its name must be a text"),
        (lambda: task(task_id="a b")(print), "its task_id must be"),
        (one, "outside of a @dag function"),
        (lambda: dag(starred), "cannot be filled from conf"),
    ],
)
def test_what_cannot_be_is_refused(declare: Callable[[], Any], words: str) -> None:
    with pytest.raises(DagError, match=words):
        declare()


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        (lambda: double(), DagError, "missing a required argument: 'n'"),
        (lambda: double(m=1), DagError, "unexpected keyword argument 'm'|missing a required argument"),
        (lambda: double.expand(), DagError, "needs at least one"),
        (lambda: double.expand(n=7), DagError, "it must be a list or a task's value"),
        (lambda: double.expand_kwargs({"n": 1}), DagError, "must be a list"),
        (lambda: list(one()), TypeError, "known only when the dag runs"),
        (lambda: 1 if one() else 2, TypeError, "known only when the dag runs"),
        (lambda: one()["key"], TypeError, "the value of task one is known only"),
    ],
)
def test_a_body_that_cannot_be_is_refused(body: Callable[[], Any], error: type[Exception], words: str) -> None:
    def my_dag() -> None:
        body()

    with pytest.raises(error, match=words):
        dag(my_dag)


@pytest.mark.parametrize(
    "use",
    [
        str, "hello {}".format, "{:>5}".format, lambda n: f"{n}", lambda n: f"{n:d}", "%s".__mod__, print,
        lambda n: n == 1, lambda n: n != 1, lambda n: n < 1, lambda n: n <= 1, lambda n: n > 1, lambda n: n >= 1,
        lambda n: n in (1, 2), lambda n: n in {1, 2}, lambda n: 1 in n, lambda n: n in [[1]], lambda n: {n: 1},
        lambda n: n + 1, lambda n: 1 - n, lambda n: "a" + n, lambda n: "%d" * n, lambda n: 2**n, lambda n: n // 2,
        lambda n: n % 2, lambda n: divmod(7, n), lambda n: n & 1, lambda n: 1 | n, lambda n: -n, abs, round,
        int, float, complex, bool, len, list, range, sum, bytes, hash, reversed, lambda n: "abc"[n], lambda n: n[0],
        lambda n: not n, lambda n: n and 1,
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["parameter", "value"])
def test_what_is_not_known_yet_says_so_however_it_is_used(use: Callable[[Any], object], kind: str) -> None:
    def my_dag(n: Any) -> None:
        used = n if kind == "parameter" else double(n)
        assert repr(used) == ("<the dag's parameter n>" if kind == "parameter" else "<the value of task double>")
        use(used)

    with pytest.raises(TypeError, match="known only when the dag runs: pass it to a task"):
        dag(my_dag)


def test_conf_must_have_what_the_function_needs() -> None:
    @dag
    def my_dag(n: int, m: int = 1) -> Any:
        return total([n, m])

    assert my_dag.test({"n": 2}).results == {"total": 3}
    with pytest.raises(DagError, match="conf lacks n"):
        my_dag.test()
