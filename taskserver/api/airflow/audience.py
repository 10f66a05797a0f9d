"""Audiences: those who wait for the same thing are told together, before any of their handlers goes on.

A handler that is woken takes a tenth of a millisecond to finish its answer, so
the last of a thousand would be told after a tenth of a second. Here the end of
a run is looked at, read and encoded once, and written to all connections in one
go; the handlers finish afterwards.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from taskserver.api.airflow.linestream import LineStream, last_chunks
from taskserver.api.airflow.shapes import last_line
from taskserver.dagmodel import Run
from taskserver.errors import TaskServerError
from taskserver.keys import Caller
from taskserver.web.context import Services

log = logging.getLogger(__name__)

Selection = tuple[str, ...] | None


class Audience:
    """Those who wait with one key for the end of one run, with the same results selected.

    ``topic`` wakes its members' waits when they have been told. ``over``: nobody
    will be told any more. Like a wake-up, an audience only shortens a wait: if
    something keeps it from telling, its members find the end at their next look.
    """

    def __init__(self, core: Services, caller: Caller, run_id: uuid.UUID, wanted: Selection, topic: str) -> None:
        self._core = core
        self._caller = caller
        self._run_id = run_id
        self._wanted = wanted
        self.topic = topic
        self.over = False
        self.seats = 0
        self._members: dict[LineStream, None] = {}
        self._task = asyncio.create_task(self._wait())

    @property
    def draining(self) -> bool:
        """Whether the server is shutting down."""
        return self._core.waits.draining

    def add(self, stream: LineStream) -> None:
        """Have a stream told. It must be prepared."""
        self._members[stream] = None

    def discard(self, stream: LineStream) -> None:
        """Leave a stream alone, whether it was told or not."""
        self._members.pop(stream, None)

    def close(self) -> None:
        """Nobody waits any more."""
        self._task.cancel()

    async def run(self) -> Run:
        """The run as committed last. Raises RunNotFound, BadCredential."""
        return await self._core.runs.get(self._caller, self._run_id)

    async def last_line(self, run: Run) -> bytes:
        """What is told of the finished run."""
        return last_line(run, await self._core.runs.results(run, self._wanted))

    async def _wait(self) -> None:
        try:
            run = await self._core.runs.wait_end(self._caller, self._run_id, math.inf)
            if run.finished:
                line = await self.last_line(run)
                chunks = last_chunks(line)
                for stream in self._members:
                    stream.end_with(line, chunks)
        except TaskServerError as error:
            log.debug("run %s: nobody is told: %s", self._run_id, error)
        finally:
            self.over = True
            self._core.wakeup.publish((self.topic,))


class Audiences:
    """The audiences of a server."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, uuid.UUID, Selection], Audience] = {}
        self._numbers = itertools.count()

    @contextmanager
    def seat(self, core: Services, caller: Caller, run_id: uuid.UUID, wanted: Selection) -> Iterator[Audience]:
        """The audience for these, for as long as the context lasts."""
        key = (caller.key_id, run_id, wanted)
        audience = self._open.get(key)
        if audience is None or audience.over:
            audience = self._open[key] = Audience(core, caller, run_id, wanted, f"told:{next(self._numbers)}")
        audience.seats += 1
        try:
            yield audience
        finally:
            audience.seats -= 1
            if not audience.seats:
                audience.close()
                if self._open.get(key) is audience:
                    del self._open[key]
