"""What becomes of a call: values, failures with odd texts, time limits, commands, and stopping from outside."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pytest

from taskserver.model import CANCELLED_CODE, Stream
from taskserver.worker.calling import Ended, call
from taskserver.worker.context import Context
from taskserver.worker.errors import BadValue
from taskserver.worker.graph import TaskSettings
from taskserver.worker.stopping import Stopper
from taskserver.worker.values import MAX_VALUE_BYTES, encode_value


def called(function: Callable[[], Any], stopper: Stopper | None = None, **settings: Any) -> tuple[Ended, str]:
    """How a call has ended, and what was written of it."""
    written: list[bytes] = []
    ended = call(
        function,
        (),
        {},
        TaskSettings("t", **settings),
        Context("d", "t"),
        stopper or Stopper(),
        lambda stream, data: written.append(data),
    )
    return ended, b"".join(written).decode()


class Odd(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def raising(error: BaseException) -> Callable[[], None]:
    def raises() -> None:
        raise error

    return raises


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no"), "ValueError: no"),
        (ValueError(), "ValueError"),
        (ValueError("half \ud800 of it, and \0"), "ValueError: half ? of it, and \N{REPLACEMENT CHARACTER}"),
        (Odd(), "Odd: its text cannot be made"),
        (SystemExit(0), "the task called sys.exit(0); a task ends by returning or raising"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (asyncio.CancelledError(), "CancelledError"),
    ],
)
def test_a_failure_is_told_with_its_traceback(error: BaseException, text: str) -> None:
    ended, written = called(raising(error))
    assert (ended.value, ended.code, ended.error, ended.stopped) == (None, 1, text, False)
    assert written.startswith("Traceback (most recent call last):")
    assert "in raises" in written
    assert "taskserver/worker" not in written, "the traceback begins in the task's own code"


@pytest.mark.parametrize("kind", ["function", "async", "command"])
def test_a_time_limit(kind: str) -> None:
    async def waits() -> None:
        await asyncio.sleep(60)

    def spins() -> None:
        while True:
            time.sleep(0.001)

    functions: dict[str, Callable[[], Any]] = {"function": spins, "async": waits, "command": lambda: ["sleep", "60"]}
    ended, written = called(functions[kind], timeout=0.1, command=kind == "command")
    assert (ended.error, ended.code, ended.stopped, written) == ("timed out after 0.1 s", 1, False, "")


def test_it_is_stopped_from_outside() -> None:
    stopper, begun = Stopper(), threading.Event()

    def spins() -> None:
        begun.set()
        while True:
            time.sleep(0.001)

    def stop() -> None:
        assert begun.wait(20)
        stopper.stop("cancelled")

    thread = threading.Thread(target=stop)
    thread.start()
    ended, _ = called(spins, stopper)
    thread.join()
    assert (ended.error, ended.code, ended.stopped) == ("cancelled", CANCELLED_CODE, True)


def test_one_that_was_stopped_before_does_not_begin() -> None:
    stopper = Stopper()
    stopper.stop("cancelled")
    begun: list[int] = []
    ended, _ = called(lambda: begun.append(1), stopper)
    assert (ended.error, ended.stopped, begun) == ("cancelled", True, [])


@pytest.mark.parametrize(
    ("command", "value", "error"),
    [
        (["echo", "one\ntwo"], b'"two"', ""),
        ("echo one; printf two", b'"two"', ""),
        ("true", b'""', ""),
        ("exit 7", None, "command exited with code 7"),
        (["/no/such/program"], None, "cannot run /no/such/program: No such file or directory"),
        (7, None, "the task must return a command, a list of words or a line for the shell: 7"),
    ],
)
def test_commands(command: Any, value: bytes | None, error: str) -> None:
    ended, _ = called(lambda: command, command=True)
    assert (ended.value, ended.error) == (value, error)


def test_streams_of_commands_are_told_apart() -> None:
    written: list[tuple[Stream, bytes]] = []
    settings = TaskSettings("t", command=True)
    call(
        lambda: "echo out; echo err >&2", (), {}, settings, Context("d", "t"), Stopper(), lambda *it: written.append(it)
    )
    assert sorted(written) == [(Stream.STDOUT, b"out\n"), (Stream.STDERR, b"err\n")]


@dataclass(frozen=True)
class Point:
    x: float
    rest: Any


class Odds(Enum):
    NONE = math.nan
    ALL = math.inf
    DEBT = -math.inf


class TestValues:
    @pytest.mark.parametrize(
        ("value", "words"),
        [
            ((n for n in "ab"), r"a generator, which is not a value yet: return list\(...\) of it"),
            (object(), "a object that cannot be JSON"),
            (2**64, "cannot be JSON: Integer exceeds 64-bit range"),
            ({1: 2}, "cannot be JSON: Dict key must be str"),
            ("x" * MAX_VALUE_BYTES, "bytes of JSON, and a value may have"),
        ],
    )
    def test_what_cannot_be_kept(self, value: Any, words: str) -> None:
        with pytest.raises(BadValue, match=words):
            encode_value(value)

    @pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
    def test_no_number_becomes_null_without_a_word(self, number: float) -> None:
        for value in (number, [None, number], {"a": {"b": (1, number)}}, Point(0, [number]), Odds(number)):
            with pytest.raises(BadValue, match=f"has returned {number}, which JSON has no word for"):
                encode_value(value)

    @pytest.mark.parametrize(
        "value", [None, 1, 0.5, "null", [1, [2]], {"a": {"b": [None]}}, {"null": [None, 1.5, Point(1, None)]}]
    )
    def test_what_can(self, value: Any) -> None:
        assert encode_value(value) == encode_value([value])[1:-1]
