"""A child process hears which try is to stop, and stops no other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

import pytest

from taskserver.worker import child
from taskserver.worker.child import WAKE, Child
from taskserver.worker.errors import TaskStopped
from taskserver.worker.stopping import Stopper


class Parent:
    """Has this process play a child: the main thread runs tries, and a thread of it listens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.control, theirs = multiprocessing.Pipe()
        self._alive, sentinel = multiprocessing.Pipe()
        self._ends: tuple[Connection, ...] = (self.control, theirs, sentinel)
        self.exits: list[int] = []
        monkeypatch.setattr(child, "run_job", self._run_job)
        monkeypatch.setattr(multiprocessing, "parent_process", lambda: SimpleNamespace(sentinel=sentinel))
        monkeypatch.setattr(os, "_exit", self.exits.append)
        self.child = Child(theirs)
        self._listening = threading.Thread(target=self.child.listen)
        self._listening.start()

    def run(self, task: str, *stops: tuple[str, str]) -> str:
        """Run a try during which the parent wants others and itself to stop; why it was stopped."""
        return str(self.child.run(SimpleNamespace(task=task, stops=stops)))  # type: ignore[arg-type]

    def die(self) -> None:
        """Be gone, and see what the child does."""
        self._alive.close()
        self._listening.join(20)
        for end in self._ends:
            end.close()

    def _run_job(self, job: Any, stopper: Stopper) -> str:
        for stop in job.stops:
            self.control.send(stop)
        with pytest.raises(TaskStopped), stopper.by_raising():
            time.sleep(60)
        return stopper.reason


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Parent]:
    parent = Parent(monkeypatch)
    before = signal.signal(WAKE, parent.child.on_wake)
    try:
        yield parent
    finally:
        signal.signal(WAKE, before)
        parent.die()


def test_a_try_is_stopped_for_its_own_reason(parent: Parent) -> None:
    assert parent.run("one", ("one", "cancelled")) == "cancelled"
    assert parent.control.recv() == "one", "it has told of its beginning"


def test_a_word_that_comes_too_late_stops_no_other(parent: Parent) -> None:
    assert parent.run("two", ("one", "too late"), ("two", "in time")) == "in time"


def test_one_that_comes_before_the_try_is_kept(parent: Parent) -> None:
    parent.control.send(("three", "before it began"))
    assert parent.run("three") == "before it began"


def test_signals_from_elsewhere_stop_nothing(parent: Parent) -> None:
    os.kill(os.getpid(), WAKE)
    assert parent.run("four", ("four", "cancelled")) == "cancelled"


def test_it_dies_with_its_parent(parent: Parent) -> None:
    parent.die()
    assert parent.exits == [1]
