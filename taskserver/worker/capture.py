"""What a task prints and logs goes into its own output, also where several run in one process.

``sys.stdout``, ``sys.stderr`` and the root logger are replaced once for the
process; where their lines go is the business of the context (``contextvars``)
of who writes. Threads that a task starts inherit its context, as all do from
Python 3.14 on if it is told so; a pool's thread, which may outlive the task
that was its first, takes over whose line it is with each call. What belongs to
no task, or to one that has ended, goes where it went before.
"""

from __future__ import annotations

import contextvars
import io
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TextIO, TypeVar

from taskserver.model import Stream
from taskserver.producer.echo import write_all
from taskserver.producer.pump import Stop
from taskserver.worker.command import start_pump, wait_for_pumps
from taskserver.worker.context import CURRENT

Write = Callable[[Stream, bytes], bool]
"""Takes some output; False if it takes nothing any more."""

T = TypeVar("T")

LOG_FORMAT = "%(levelname)s %(name)s: %(message)s"  # the time is kept with each line anyway

_SINK: contextvars.ContextVar[Write | None] = contextvars.ContextVar("taskserver_sink", default=None)
_installed = False
_forked = False
_own: dict[Stream, int] = {}
"""Copies of descriptors 1 and 2, made before the first task got them; kept, as late lines may be on their way there."""


class _Bytes(io.RawIOBase):
    """``sys.stdout.buffer``"""

    def __init__(self, text: CapturedStream) -> None:
        self._text = text

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        taken = bytes(data)
        self._text.write_bytes(taken)
        return len(taken)


class CapturedStream(io.TextIOBase):
    """In the place of ``sys.stdout`` or ``sys.stderr``: what a task writes goes to its sink. It cannot be closed."""

    def __init__(self, stream: Stream, original: TextIO) -> None:
        self._stream = stream
        self._original = original
        self.buffer = _Bytes(self)

    encoding = "utf-8"
    errors = "backslashreplace"

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        sink = current_sink()
        if sink is None:
            return self._original.write(text)
        data = text.encode("utf-8", "backslashreplace")
        if not sink(self._stream, data):
            self._write_late(data)
        return len(text)

    def write_bytes(self, data: bytes) -> None:
        """What ``buffer`` is given."""
        sink = current_sink()
        if sink is None:
            self._original.write(data.decode("utf-8", "replace"))
        elif not sink(self._stream, data):
            self._write_late(data)

    def _write_late(self, data: bytes) -> None:
        """Write what comes from a task that has ended, at once: what waits in a buffer may end up with another one."""
        if own := _own.get(self._stream):
            write_all(own, data)
        else:
            self._original.write(data.decode("utf-8", "replace"))
            self._original.flush()

    def flush(self) -> None:
        if current_sink() is None:
            self._original.flush()

    def close(self) -> None:
        """Do nothing: the next task wants to write too."""

    def fileno(self) -> int:
        return self._original.fileno()

    def isatty(self) -> bool:
        return False


class _NoLock:
    """In the place of a handler's lock, whoever asks for it how."""

    def acquire(self) -> None:
        """Do nothing."""

    def release(self) -> None:
        """Do nothing."""

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, *how: object) -> None:
        """Do nothing."""


class _Handler(logging.Handler):
    """Log records of tasks; those of nobody's are left to whom they would go without it.

    Tasks do not wait for each other: each output has a lock of its own, and one
    that has no room must not hold up what others log, nor what the event loop
    does that makes the room.
    """

    def createLock(self) -> None:  # noqa: N802 - logging's name
        """No lock: what is below is safe from any thread."""
        self.lock = _NoLock()  # type: ignore[assignment]

    def emit(self, record: logging.LogRecord) -> None:
        sink = current_sink()
        try:
            if sink is not None and sink(
                Stream.STDERR, (self.format(record) + "\n").encode("utf-8", "backslashreplace")
            ):
                return
        except Exception:  # a record that does not fit its arguments fails no task: logging itself tells of it
            self.handleError(record)
            return
        if record.levelno >= logging.WARNING and len(logging.root.handlers) == 1 and logging.lastResort is not None:
            logging.lastResort.handle(record)


def current_sink() -> Write | None:
    """Where the lines of this context go; None: nowhere in particular."""
    return None if _forked else _SINK.get()


def install() -> None:
    """Replace the process' streams. A repeat does nothing."""
    global _installed
    if _installed:
        return
    _installed = True
    sys.stdout = CapturedStream(Stream.STDOUT, sys.stdout)
    sys.stderr = CapturedStream(Stream.STDERR, sys.stderr)
    handler = _Handler()
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    logging.root.addHandler(handler)
    if logging.root.level > logging.INFO:
        logging.root.setLevel(logging.INFO)
    os.register_at_fork(after_in_child=_note_fork)
    _inherit_context()


@contextmanager
def into(sink: Write) -> Iterator[None]:
    """Within the context what is printed and logged goes to ``sink``."""
    token = _SINK.set(sink)
    try:
        yield
    finally:
        _SINK.reset(token)


@contextmanager
def descriptors(sink: Write) -> Iterator[None]:
    """Within the context what anybody in this process writes to descriptors 1 and 2 goes to ``sink``.

    Child processes and C code write there. For processes that run one task at a time.
    """
    if not _own:
        _own.update({stream: os.dup(fd) for stream, fd in _FDS.items()})
    stop, pumps = Stop(), []
    for stream, fd in _FDS.items():
        read, write = os.pipe()
        os.dup2(write, fd)
        os.close(write)
        pumps.append(start_pump(read, stream, sink, stop))
    try:
        yield
    finally:
        for stream, fd in _FDS.items():
            os.dup2(_own[stream], fd)
        wait_for_pumps(pumps, stop)


_FDS = {Stream.STDOUT: 1, Stream.STDERR: 2}


def _note_fork() -> None:
    """In a child that a task has forked: its copy of the output is nobody's."""
    global _forked
    _forked = True


def _inherit_context() -> None:
    """Let threads begin with a copy of the context that starts them, and calls in pools know whose they are."""
    submit = ThreadPoolExecutor.submit

    def submit_from_here(
        pool: ThreadPoolExecutor, function: Callable[..., T], /, *args: Any, **kwargs: Any
    ) -> Future[T]:
        return submit(pool, _as_here(function), *args, **kwargs)

    ThreadPoolExecutor.submit = submit_from_here  # type: ignore[method-assign,assignment]
    if getattr(sys.flags, "thread_inherit_context", False):
        return
    start = threading.Thread.start

    def start_with_context(thread: threading.Thread) -> None:
        if current_sink() is not None:
            context, run = contextvars.copy_context(), thread.run
            thread.run = lambda: context.run(run)  # type: ignore[method-assign]
        start(thread)

    threading.Thread.start = start_with_context  # type: ignore[method-assign,assignment]


def _as_here(function: Callable[..., T]) -> Callable[..., T]:
    """The function, as part of the task that runs here (if there is one), whoever may call it.

    The rest of the context stays the caller's: a pool's initializer may have set something there.
    """
    sink, task = current_sink(), CURRENT.get()

    def call(*args: Any, **kwargs: Any) -> T:
        before = _SINK.set(sink), CURRENT.set(task)
        try:
            return function(*args, **kwargs)
        finally:
            _SINK.reset(before[0])
            CURRENT.reset(before[1])

    return call
