"""Dags whose tasks take their time to stop, for workers that end or die in the middle of them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from taskserver.worker import context, dag, result, task


@dag(retries=1)
def lingering(folder: str, seconds: float) -> Any:
    """Its first try runs until it is stopped, and then for so many seconds more."""

    @task
    def work(folder: str, seconds: float) -> int:
        _note(folder, f"begin {context().try_number}")
        try:
            while context().try_number == 1:
                time.sleep(0.01)
        finally:
            if context().try_number == 1:
                time.sleep(seconds)
            _note(folder, f"end {context().try_number}")
        return context().try_number

    return work(folder, seconds)


fleeting = dag(dag_id="fleeting")(lingering.function)


@dag(retries=1)
def program(folder: str, stubborn: bool = False) -> Any:
    """Its first try is a command that goes on for minutes; a stubborn one does not end with a SIGTERM."""

    @task.command
    def runs(folder: str, stubborn: bool) -> str:
        if context().try_number > 1:
            return "echo again"
        return f"{'trap : TERM;' if stubborn else ''} echo $$ > {folder}/pid; for n in $(seq 3000); do sleep 0.1; done"

    return runs(folder, stubborn)


@dag(on_failure="finish")
def tidy(folder: str) -> None:
    """Fails at once; what cleans up behind that waits for a task that takes its time."""

    @task
    def breaks() -> None:
        raise RuntimeError("broken")

    @task
    def long(folder: str) -> None:
        while not (Path(folder) / "go").exists():
            time.sleep(0.01)

    @task(trigger_rule="all_done")
    def clean(value: None) -> str:
        return "cleaned"

    breaks()
    clean(long(folder))


@dag
def patience(folder: str) -> None:
    """Two tasks at a time that wait, one of them as a command."""

    @result
    @task
    def waits(folder: str) -> int:
        _note(folder, "waits")
        while not (Path(folder) / "go").exists():
            time.sleep(0.01)
        return 1

    @result
    @task.command
    def runs(folder: str) -> str:
        return f"echo runs in $$ >> {folder}/notes; until [ -e {folder}/go ]; do sleep 0.05; done; echo 2"

    waits(folder)
    runs(folder)


def _note(folder: str, what: str) -> None:
    with (Path(folder) / "notes").open("a") as file:
        file.write(f"{what} in {os.getpid()}\n")
