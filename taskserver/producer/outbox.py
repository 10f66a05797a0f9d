"""Outbox: a process' connection to one server, for code that has no event loop of its own."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, ClassVar, TypeVar

from taskserver.client import RunClient
from taskserver.producer.output import Output

T = TypeVar("T")


class Outbox:
    """A client whose event loop runs in a thread of its own, as long as the process does."""

    _all: ClassVar[dict[tuple[str, str], Outbox]] = {}
    _lock = threading.Lock()

    def __init__(self, url: str, key: str) -> None:
        self._loop = asyncio.new_event_loop()
        self.client = RunClient(url, key)
        self.thread = threading.Thread(target=self._loop.run_forever, name="taskserver-outbox", daemon=True)
        contextvars.Context().run(self.thread.start)  # it is nobody's, whoever came first

    @classmethod
    def to(cls, url: str, key: str) -> Outbox:
        """The process' outbox to a server. Raises ValueError for a URL or a key that cannot be one."""
        with cls._lock:
            found = cls._all.get((url, key))
            if found is None:
                found = cls._all[url, key] = cls(url, key)
            return found

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin something in the loop."""
        # Not in the caller's context: what is logged on the way must not become output of the task that calls.
        return contextvars.Context().run(asyncio.run_coroutine_threadsafe, work, self._loop)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something there, and wait for it."""
        return self.start(work).result()

    def open(self, task_id: str, *, lease: float, on_cancel: Callable[[], None]) -> Output:
        """The output of a task that exists."""
        return Output(
            self.client.tasks,
            task_id,
            self._loop,
            lease=lease,
            created=_at_once,
            on_cancel=on_cancel,
            say=_silently,
        )


async def _at_once() -> None:
    """The task is there already."""


def _silently(message: str) -> None:
    """There is nobody to tell."""
