"""TaskHandler: what a program logs, as the output of a task."""

from __future__ import annotations

import logging
import threading
from typing import Any

from taskserver.model import Stream
from taskserver.producer.outbox import Outbox

LEASE = 30.0  # seconds, as with `taskserver run`


class TaskHandler(logging.Handler):
    """Ships log records as lines of a task; warnings and worse as its standard error.

        logging.getLogger().addHandler(TaskHandler("http://127.0.0.1:8080", key, name="nightly"))

    Records are sent in the background, in order and each once; while the server is
    away they are kept in a file. ``close`` (which ``logging.shutdown`` calls at the
    program's end) waits for them.

    Args:
        url: the server.
        key: an API key.
        task_id: a task that exists, which stays open; None: a new one, which ends with the handler.
        name: the new task's name.
        patience: seconds for which ``close`` waits for a server that is away.

    Attributes:
        task_id: where the records are found.

    Raises ApiError and Unreachable if the task cannot be created.
    """

    def __init__(
        self, url: str, key: str, task_id: str | None = None, *, name: str = "", patience: float = 30.0
    ) -> None:
        super().__init__()
        self._outbox = Outbox.to(url, key)
        self._own = task_id is None
        self._patience = patience
        self._closed = False
        self.task_id = task_id or self._outbox.do(self._outbox.client.tasks.create(name, lease=LEASE)).id
        self._output = self._outbox.open(self.task_id, lease=LEASE, on_cancel=_go_on)
        self._output.keep_alive()

    def handle(self, record: logging.LogRecord) -> Any:
        """Take a record, but none of the sending: that must neither be sent nor wait for who waits for it."""
        return threading.current_thread() is not self._outbox.thread and super().handle(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record."""
        try:
            line = self.format(record) + "\n"
        except Exception:
            self.handleError(record)
            return
        stream = Stream.STDERR if record.levelno >= logging.WARNING else Stream.STDOUT
        self._output.write(stream, line.encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """Wait until what was logged has arrived, and end the handler's own task. A repeat does nothing."""
        if not self._closed:
            self._closed = True
            arrived = self._outbox.do(self._output.close(self._patience))
            if self._own and arrived:
                self._outbox.do(self._outbox.client.tasks.finish(self.task_id))
        super().close()


def _go_on() -> None:
    """A program is not ended because its log was cancelled."""
