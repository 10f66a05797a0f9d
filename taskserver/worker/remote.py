"""A try in a process that is not the worker's: a child process, or a worker of a Dask cluster.

Such a process speaks to the server by itself: output goes the shortest way, is
safe once acknowledged, and a flood of it holds up the task that floods, not the
cluster's scheduler. It creates the try's record first, which works once for
each try: if Dask runs a lost call again, the second one finds that it is not
the first and does nothing.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any

from taskserver.model import CANCELLED_CODE, new_id
from taskserver.producer.outbox import Outbox
from taskserver.producer.output import Output
from taskserver.worker import capture
from taskserver.worker.calling import Ended, call
from taskserver.worker.context import Context
from taskserver.worker.errors import TaskStopped
from taskserver.worker.graph import TaskSettings
from taskserver.worker.record import CANCELLED, LOST, Lost, Place, Record
from taskserver.worker.stopping import Stopper

Work = tuple[Callable[..., Any], tuple[Any, ...], Any]
"""A function, its arguments and its named arguments."""


@dataclass(frozen=True)
class Job:
    """A try, as it is sent. ``work`` finds what is to be called where it runs."""

    url: str
    key: str = field(repr=False)  # Dask logs what it could not run
    place: Place
    work: Callable[[], Work]
    settings: TaskSettings
    context: Context
    task: str = ""
    """The record's id; empty: one that nobody else has, so that a second run of the job finds the try taken."""


@dataclass(frozen=True)
class Done:
    """What became of a job: how the call ended; or, if ``lost``, it was not (to be) run here.

    ``unended``: the record of a try that was stopped. Whoever sent the job ends it, for only he knows why it was.
    """

    ended: Ended
    lost: str = ""
    unended: str = ""


def run_job(job: Job, stopper: Stopper | None = None) -> Done:
    """Run a try from the creation of its record to its end, in this thread.

    With a ``stopper`` the process is all the job's, so its descriptors are captured too.
    """
    capture.install()
    run = _Run(job, Outbox.to(job.url, job.key), stopper or Stopper(), whole_process=stopper is not None)
    return contextvars.Context().run(run.run)


class _Run:
    def __init__(self, job: Job, outbox: Outbox, stopper: Stopper, *, whole_process: bool) -> None:
        self._job = job
        self._outbox = outbox
        self._record = Record(outbox.client, job.place, job.task or new_id())
        self._stopper = stopper
        self._whole_process = whole_process

    def run(self) -> Done:
        try:
            self._outbox.do(self._record.create())
        except Lost as error:
            return Done(Ended(None), str(error))
        output = self._outbox.open(self._record.task, lease=self._job.place.lease, on_cancel=self._on_cancel)
        if self._whole_process:
            output.keep_alive()  # makes its file, before a task that closes descriptor 1 lets it become that
        keeping = self._outbox.start(self._record.keep(self._stopper))
        try:
            ended = self._call(output)
            if self._stopper.reason == LOST:
                self._outbox.do(self._abandon(output))
                return Done(ended, LOST)
            self._outbox.do(output.close(self._job.place.lease))
            if ended.stopped:
                return Done(ended, unended=self._record.task)
            self._outbox.do(self._record.finish(ended))
        except Lost as error:
            return Done(Ended(None), str(error))
        finally:
            keeping.cancel()
        return Done(ended)

    def _call(self, output: Output) -> Ended:
        job = self._job
        with ExitStack() as stack:
            stack.enter_context(capture.descriptors(output.write) if self._whole_process else nullcontext())
            stack.enter_context(capture.into(output.write))
            try:
                function, args, kwargs = job.work()
            except Exception as error:
                return Ended(None, 1, f"the task cannot be loaded where it is to run: {type(error).__name__}: {error}")
            try:
                return call(function, args, kwargs, job.settings, job.context, self._stopper, output.write)
            except TaskStopped:  # it came when the task's own code had ended
                return Ended(None, CANCELLED_CODE, self._stopper.reason, stopped=True)

    def _on_cancel(self) -> None:
        self._stopper.stop(CANCELLED)

    async def _abandon(self, output: Output) -> None:
        output.abandon()
