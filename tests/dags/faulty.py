"""Dags whose tasks do what tasks should not."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from taskserver.worker import dag, result, task

print("this module prints when it is imported")


def _raises() -> None:
    print("about to fail")
    raise ValueError("what was given is no good")


def _exits() -> None:
    sys.exit(3)


def _generates() -> Any:
    return (n for n in range(3))


def _returns_object() -> Any:
    return object()


def _returns_much() -> str:
    return "x" * 2**20


def _hangs() -> None:
    while True:
        time.sleep(0.01)


def _forks() -> int:
    if os.fork() == 0:
        print("from the child")
        return 1
    os.wait()
    return 2


def _closes() -> str:
    sys.stdout.close()
    os.close(1)
    print("still here")
    return "closed"


def _floods() -> int:
    for number in range(200_000):
        print(f"line {number}")
    return 200_000


FAULTS: dict[str, Callable[[], Any]] = {
    "raises": _raises,
    "exits": _exits,
    "generates": _generates,
    "returns_object": _returns_object,
    "returns_much": _returns_much,
    "hangs": _hangs,
    "forks": _forks,
    "closes": _closes,
    "floods": _floods,
}


def _declare(name: str) -> None:
    @dag(dag_id=name)
    def faulty() -> Any:
        return task(task_id="work", timeout=1.0 if name == "hangs" else None)(FAULTS[name])()


for _name in FAULTS:
    _declare(_name)


@dag
def dies() -> None:
    @task
    def work() -> None:
        os._exit(9)

    work()


@dag
def cleaning(folder: str) -> None:
    """What has failed is told at once, and cleaned up behind that."""

    @task
    def breaks() -> None:
        raise RuntimeError("broken")

    @task
    def long(folder: str) -> None:
        while not (Path(folder) / "go").exists():
            time.sleep(0.01)

    @result
    @task
    def never(broken: None, waited: None) -> None: ...

    @task(trigger_rule="all_done")
    def clean(value: None, folder: str) -> str:
        (Path(folder) / "cleaned").touch()
        return "cleaned"

    broken = breaks()
    waited = long(folder)
    never(broken, waited)
    clean(waited, folder)


patient = dag(dag_id="patient", on_failure="finish")(cleaning.function)
