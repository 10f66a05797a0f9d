"""What those wait for who wait for a run's end, and how it is told (PROTOCOLS.md, B3)."""

from __future__ import annotations

import uuid

from aiohttp import hdrs, web

from taskserver.api.airflow.shapes import last_line
from taskserver.audience import Subject
from taskserver.dagmodel import Run
from taskserver.meters import Waiter
from taskserver.runs import run_topic
from taskserver.web.context import Services
from taskserver.web.seats import Told
from taskserver.web.streaming import make_part

Selection = tuple[str, ...] | None


class LineStream(web.StreamResponse):
    """NDJSON without a ``Content-Type``.

    Airflow's own client breaks on each type that it could have: it refuses those
    that it does not know, and parses several lines of ``application/json`` as
    one value.
    """

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.popall(hdrs.CONTENT_TYPE, None)  # aiohttp puts one where there is none


class RunEnd(Subject[Told]):
    """The end of a run, with the results of the same tasks."""

    waiter = Waiter.RUN

    def __init__(self, core: Services, run_id: uuid.UUID, wanted: Selection) -> None:
        self.topics = (run_topic(run_id),)
        self._core = core
        self._run_id = run_id
        self._wanted = wanted

    async def look(self) -> tuple[Told | None, bool]:
        run = await self._core.runs.head(self._run_id)
        if not run.finished:
            return None, False
        line = await end_line(self._core, run, self._wanted)
        return Told(0, len(line), make_part(line, last=True)), True


async def end_line(core: Services, run: Run, wanted: Selection) -> bytes:
    """What is told of a finished run."""
    return last_line(run, await core.runs.results(run, wanted))
