"""Whose line it is: what tasks of one process print and log, from threads and pools of theirs too."""

from __future__ import annotations

import asyncio
import contextvars
import io
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from taskserver.client import TaskClient
from taskserver.model import Stream
from taskserver.producer.output import Output
from taskserver.worker import capture, context
from taskserver.worker.context import CURRENT, Context

LIMIT = 20.0  # seconds for what another thread does; reached only by a failure


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
        patch.setattr(ThreadPoolExecutor, "submit", ThreadPoolExecutor.submit)
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


def test_a_task_whose_output_has_no_room_does_not_hold_up_what_others_log() -> None:
    full, room = threading.Event(), threading.Event()

    def waits(stream: Stream, data: bytes) -> bool:
        full.set()
        return room.wait(2 * LIMIT)

    with captured() as process:

        def floods() -> None:
            with capture.into(waits):
                process.log.info("too much")

        flooding = threading.Thread(target=floods)
        flooding.start()
        assert full.wait(LIMIT)
        others: list[Sink] = []
        other = threading.Thread(target=lambda: others.append(process.task(lambda: process.log.info("mine"))))
        other.start()
        other.join(LIMIT)
        held_up = other.is_alive()
        room.set()
        flooding.join()
        other.join()
    assert (held_up, [written.text for written in others]) == (False, ["INFO x: mine\n"])


async def test_what_the_sending_logs_is_not_part_of_what_is_sent() -> None:
    sinks: list[object] = []
    begun = asyncio.Event()

    async def created() -> None:
        sinks.append(capture.current_sink())
        begun.set()

    def prints(output: Output) -> None:
        with capture.into(output.write):
            output.write(Stream.STDOUT, b"line\n")

    async with TaskClient("http://127.0.0.1:1", "x" * 40) as client:
        output = Output(
            client, "x", asyncio.get_running_loop(), lease=30, created=created, on_cancel=begun.set, say=print
        )
        await asyncio.to_thread(prints, output)
        await asyncio.wait_for(begun.wait(), LIMIT)
        output.abandon()
    assert sinks == [None]


class TestPools:
    def test_what_is_printed_in_a_pool_that_outlives_its_first_task_is_that_of_who_asked(self) -> None:
        with captured() as process, ThreadPoolExecutor(1) as pool:
            one = process.task(lambda: pool.submit(print, "by one").result())
            two = process.task(lambda: list(pool.map(print, ["by two"])))
            pool.submit(print, "by nobody").result()
        assert (one.text, two.text, process.terminal.getvalue()) == ("by one\n", "by two\n", "by nobody\n")

    def test_so_is_the_tasks_context(self) -> None:
        with captured() as process, ThreadPoolExecutor(1) as pool:
            ids = []
            for task_id in ("one", "two"):

                def asks(task_id: str = task_id) -> None:
                    CURRENT.set(Context("d", task_id))
                    ids.append(pool.submit(lambda: context().task_id).result())

                process.task(asks)
            assert ids == ["one", "two"]
            assert "code that runs as a task" in str(pool.submit(context).exception())

    def test_what_a_pools_initializer_has_set_is_still_there(self) -> None:
        connection = contextvars.ContextVar("connection", default="none")
        got: list[str] = []
        with captured() as process, ThreadPoolExecutor(1, initializer=connection.set, initargs=("open",)) as pool:
            process.task(lambda: got.append(pool.submit(connection.get).result()))
        assert got == ["open"]


def test_what_a_thread_prints_when_its_task_has_ended_goes_where_it_went_before() -> None:
    ended = threading.Event()

    def late() -> None:
        ended.wait(LIMIT)
        sys.stdout.write("late\n")
        sys.stdout.buffer.write(b"bytes\n")
        process.log.warning("logged")

    with captured() as process:
        threads = [threading.Thread(target=late)]
        written = process.task(threads[0].start)
        ended.set()
        threads[0].join()
    assert (written.text, process.terminal.getvalue()) == ("", "late\nbytes\nlogged\n")
