"""Dags that do next to nothing, so that what is measured is the way to them and back."""

from __future__ import annotations

from typing import Any

from taskserver.worker import dag, task


def answer() -> dict[str, int]:
    return {"answer": 42}


def doubled(data: dict[str, int]) -> int:
    return data["answer"] * 2


def same(n: int) -> int:
    return n


def count(values: list[int]) -> int:
    return len(values)


@dag
def two_tasks() -> Any:
    return task(doubled)(task(answer)())


@dag
def mapped(items: int) -> Any:
    numbers = task(task_id="numbers")(lambda items: list(range(items)))(items)
    return task(count)(task(same).expand(n=numbers))
