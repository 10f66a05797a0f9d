"""Whose line it is: what tasks of one process print and log, from threads and pools of theirs too."""

from __future__ import annotations

import contextvars
import io
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from taskserver.model import Stream
from taskserver.worker import capture


class Sink:
    """A task's output."""

    def __init__(self) -> None:
        self.data: list[tuple[Stream, bytes]] = []
        self.closed = False

    def write(self, stream: Stream, data: bytes) -> bool:
        """As ``Output.write``."""
        if not self.closed:
            self.data.append((stream, data))
        return not self.closed

    def around(self, function: Callable[[], object]) -> None:
        """Capture what the function prints; its end closes the output."""
        with capture.into(self.write):
            function()
        self.closed = True

    @property
    def text(self) -> str:
        """All that was written."""
        return b"".join(data for _, data in self.data).decode()


class Captured:
    """A process whose streams are captured. ``terminal`` has what went where it went before."""

    def __init__(self, handler: logging.Handler, terminal: io.StringIO) -> None:
        self.terminal = terminal
        self.log = logging.Logger("x")
        self.log.addHandler(handler)

    def task(self, function: Callable[[], object]) -> Sink:
        """Run a function as a task is run: in a context of its own, with an output of its own."""
        sink = Sink()
        contextvars.Context().run(sink.around, function)
        return sink


@contextmanager
def captured() -> Iterator[Captured]:
    """A process after ``capture.install``, until the end of the context.

    Not a fixture: pytest gives each phase of a test streams of its own.
    """
    terminal = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        patch.setattr(sys, "stderr", terminal)
        patch.setattr(capture, "_installed", False)
        patch.setattr(threading.Thread, "start", threading.Thread.start)  # so that it is put back
        patch.setattr(logging.root, "level", logging.root.level)
        patch.setattr(logging.root, "handlers", [])
        capture.install()
        yield Captured(logging.root.handlers[0], terminal)


def test_what_is_logged_stands_in_the_tasks_output() -> None:
    with captured() as process:
        written = process.task(lambda: process.log.info("%d items", 3))
    assert written.text == "INFO x: 3 items\n"


def test_a_record_that_does_not_fit_its_arguments_fails_no_task() -> None:
    with captured() as process:
        written = process.task(lambda: process.log.info("%d items", "three"))
    assert written.closed, "the task has gone on to its end"
    assert "--- Logging error ---" in written.text
    assert "Message: '%d items'" in written.text
