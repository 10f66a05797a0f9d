"""Dags that do what dags do, for the tests of the worker."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from taskserver.worker import context, dag, result, task

log = logging.getLogger("sound")


@dag(display_name="All kinds of output")
def printing() -> Any:
    @task
    def prints(name: str) -> str:
        print(f"{name} begins")
        print(f"{name} complains", file=sys.stderr)
        log.info("%s logs", name)
        sys.stdout.buffer.write(f"{name} writes bytes\n".encode())
        thread = threading.Thread(target=print, args=(f"{name} has a thread",))
        thread.start()
        thread.join()
        time.sleep(0.2)
        sys.stdout.write(f"{name} ends")
        return name

    @task
    async def awaits(names: list[str]) -> int:
        print("awaiting")
        await asyncio.sleep(0.01)
        return len(names)

    return awaits(prints.expand(name=["a", "b", "c"]))


@dag
def children() -> None:
    @result
    @task
    def starts() -> int:
        return subprocess.run(["sh", "-c", "echo a child prints"], check=True).returncode

    starts()


@dag
def commands(word: str = "three") -> Any:
    @task.command
    def shell(word: str) -> str:
        return f"echo one; echo two >&2; echo {word}"

    @task.command
    def fails() -> list[str]:
        return ["sh", "-c", "echo bad; exit 3"]

    fails()
    return shell(word)


@dag
def retrying() -> Any:
    @task(retries=3, retry_delay=0.01)
    def third_time() -> int:
        print(f"try {context().try_number}")
        if context().try_number < 3:
            raise ValueError("not yet")
        return context().try_number

    return third_time()


@dag
def where(folder: str, seconds: float = 0.0) -> Any:
    """Notes each beginning of a task in a file."""

    @task
    def first(folder: str) -> int:
        _note(folder, "first")
        return 1

    @task
    def slow(value: int, folder: str, seconds: float) -> int:
        _note(folder, "slow")
        print("slow begins")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not (Path(folder) / "go").exists():
            time.sleep(0.01)
        return value + 1

    return slow(first(folder), folder, seconds)


@dag
def silent(folder: str) -> Any:
    @task
    def waits(folder: str) -> int:
        while not (Path(folder) / "go").exists():
            time.sleep(0.01)
        return 1

    return waits(folder)


@dag
def bar(folder: str) -> Any:
    @task
    def draws(folder: str) -> None:
        sys.stderr.write("\r\x1b[32m 50%\x1b[0m")
        while not (Path(folder) / "go").exists():
            time.sleep(0.01)
        sys.stderr.write("\r\x1b[32m100%\x1b[0m\n")

    return draws(folder)


again = dag(dag_id="again", retries=2)(where.function)


@dag
def many(count: int = 200) -> Any:
    @task
    def numbers(count: int) -> list[int]:
        return list(range(count))

    @task
    def double(n: int) -> int:
        return 2 * n

    @result
    @task
    def total(values: list[int]) -> int:
        return sum(values)

    return total(double.expand(n=numbers(count)))


def _note(folder: str, what: str) -> None:
    with (Path(folder) / "begun").open("a") as file:
        file.write(f"{what}\n")
