"""A child process of ``--executor processes``: runs one try after the other, and stops those that its parent names.

Its parent talks to it through a pipe, not by signals: a signal may mean all
processes of a group (Ctrl-C, systemd), cannot say why or which try is meant,
and may come when that has ended.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from taskserver.worker import capture
from taskserver.worker.dag import Dag
from taskserver.worker.errors import TaskStopped
from taskserver.worker.loading import load_dags
from taskserver.worker.remote import Done, Job, Work, run_job
from taskserver.worker.stopping import Stopper

WAKE = signal.SIGUSR1
"""What the process sends to its own main thread: it wakes what blocks there, as an exception alone would not."""


@dataclass(frozen=True)
class Loaded:
    """A call of a task that the child process has loaded by itself."""

    dag_id: str
    task_id: str
    args: tuple[Any, ...]
    kwargs: Any

    def __call__(self) -> Work:
        return _dags[self.dag_id].nodes[self.task_id].function, self.args, self.kwargs


class Child:
    """This process' side of the pipe: it gets ``(try, reason)`` for what is to stop, and tells which tries begin."""

    def __init__(self, control: Connection) -> None:
        self.pid = os.getpid()
        self._control = control
        self._lock = threading.Lock()
        self._told = ("", "")
        self._task = ""
        self._stopper: Stopper | None = None

    def run(self, job: Job) -> Done:
        """Run a try in the main thread."""
        stopper = Stopper(interrupt=lambda thread: signal.pthread_kill(thread, WAKE))
        with self._lock:
            self._task, self._stopper = job.task, stopper
            told, reason = self._told
        self._control.send(job.task)
        if told == job.task:
            stopper.stop(reason)
        try:
            return run_job(job, stopper)
        finally:
            with self._lock:
                self._task, self._stopper = "", None

    def listen(self) -> None:
        """Stop what is to stop, until the parent has died; the process dies with it, and with all that runs in it."""
        parent = multiprocessing.parent_process()
        assert parent is not None
        sources: list[Any] = [parent.sentinel, self._control]
        while parent.sentinel not in (ready := wait(sources)):
            if self._control in ready:
                try:
                    self._take(*self._control.recv())
                except (EOFError, OSError):  # the parent has no more use for this process
                    sources.remove(self._control)
        os._exit(1)  # nobody renews the run's lease any more

    def on_wake(self, number: int, frame: Any) -> None:
        """The signal's handler: stop the task's function, if that is what it was sent for."""
        stopper = self._stopper
        if stopper is not None and stopper.reason and stopper.raising:
            raise TaskStopped

    def on_end(self, number: int, frame: Any) -> None:
        """SIGTERM's: the worker, which gets it too, says what it means. What a task forks is not the worker's."""
        if os.getpid() != self.pid:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _take(self, task: str, reason: str) -> None:
        with self._lock:
            self._told = (task, reason)
            stopper = self._stopper if task == self._task else None
        if stopper is not None:
            stopper.stop(reason)


_dags: dict[str, Dag] = {}
_child: Child


def prepare(sources: tuple[str, ...], control: Connection) -> None:
    """Make this process a child that can run tries of the dags in these files or modules."""
    global _child
    _child = Child(control)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the worker says what it means
    signal.signal(signal.SIGTERM, _child.on_end)  # not SIG_IGN, which programs that tasks start would inherit
    signal.signal(WAKE, _child.on_wake)
    threading.Thread(target=_child.listen, daemon=True).start()
    capture.install()
    _dags.update(load_dags(sources))


def run(job: Job) -> Done:
    """Run a try."""
    return _child.run(job)
