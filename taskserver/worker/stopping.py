"""Stopper: makes a function that runs in some thread stop, as far as Python can."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from taskserver.worker.errors import TaskStopped


class Stopper:
    """Stops one call, from any thread.

    Python code in a thread is stopped by an exception (``TaskStopped``) that is
    raised at its next bytecode: a call that blocks in C, such as ``time.sleep``,
    has to return first. What knows a better way to stop names it with ``by``.

    Attributes:
        reason: why the call was stopped, empty as long as it was not.
        interrupt: raises TaskStopped in the thread with this identifier.
        told: called when the call is stopped.
        raising: whether ``interrupt`` is the way to stop it at the moment.
    """

    def __init__(self, interrupt: Callable[[int], None] | None = None, told: Callable[[], None] | None = None) -> None:
        self.reason = ""
        self.interrupt = interrupt or _interrupt
        self.raising = False
        self._told = told
        self._lock = threading.RLock()  # a signal's handler may stop what it interrupts
        self._stop: Callable[[], None] | None = None

    def stop(self, reason: str) -> None:
        """Stop the call; one that has not begun will not. A repeat does nothing."""
        with self._lock:
            if self.reason:
                return
            self.reason = reason
            if self._stop is not None:
                self._stop()
        if self._told is not None:
            self._told()

    @contextmanager
    def by(self, stop: Callable[[], None]) -> Iterator[None]:
        """Within the context ``stop`` is what stops the call. Raises TaskStopped if it is stopped already."""
        with self._lock:
            if self.reason:
                raise TaskStopped
            before, self._stop = self._stop, stop
        try:
            yield
        finally:
            with self._lock:
                self._stop = before

    @contextmanager
    def by_raising(self) -> Iterator[None]:
        """Within the context, which this thread is in, the call is stopped by an exception. It does not leave it."""
        thread = threading.get_ident()
        self.raising = True  # before somebody can interrupt
        try:
            with self.by(lambda: self.interrupt(thread)):
                yield
        finally:
            self.raising = False
            if self.reason:
                _raise_in(thread, None)  # one that is on its way would arrive later

    @contextmanager
    def after(self, seconds: float | None) -> Iterator[None]:
        """Within the context the call is stopped when so many seconds have passed."""
        if seconds is None:
            yield
            return
        timer = threading.Timer(seconds, self.stop, [timed_out(seconds)])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def timed_out(seconds: float) -> str:
    """The reason of a call that took too long."""
    return f"timed out after {seconds:g} s"


def _interrupt(thread: int) -> None:
    _raise_in(thread, TaskStopped)


def _raise_in(thread: int, exception: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), None if exception is None else ctypes.py_object(exception)
    )
