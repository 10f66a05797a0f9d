"""RunClient: dags are triggered like functions and waited for; the other half is for those who work on runs."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from math import ceil, inf
from typing import Any

from taskserver.client.answers import RunFailed, RunInfo, TailLine, TaskInfo, to_nothing, to_run, to_task
from taskserver.client.client import EARLY, TaskClient
from taskserver.client.connection import Connected, Connection, query, segment
from taskserver.client.retry import Backoff, insist
from taskserver.config import DEFAULT_RUN_LEASE, MAX_OUTPUT_WAIT, MAX_TASK_WAIT

LOOK = 0.5  # seconds between two looks for new tasks of a run that is tailed

Value = Any


class RunClient(Connected):
    """A client for dags and runs; arguments and errors are those of ``TaskClient``, which is in ``tasks``."""

    def __init__(self, url: str, key: str, *, connection: Connection | None = None) -> None:
        super().__init__(url, key, connection=connection)
        self.tasks = TaskClient(url, key, connection=self.connection)

    # --- calling -------------------------------------------------------------------

    async def trigger(
        self,
        dag_id: str,
        conf: Mapping[str, Any] | None = None,
        *,
        tag: str | None = None,
        note: str | None = None,
        idempotency_key: str | None = None,
        patience: float = 0,
    ) -> RunInfo:
        """Queue a run.

        A server that is away is asked again for ``patience`` seconds; there is one
        run all the same, because each call has an idempotency key, the given one or
        a new one.
        """
        body, headers = _wish(conf, tag, note), _once(idempotency_key)
        ask = partial(self._ask, to_run, "POST", f"/v1/dags/{segment(dag_id)}/runs", body, headers=headers)
        return await insist(ask, patience)

    async def call(
        self,
        dag_id: str,
        conf: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        patience: float = 0,
    ) -> RunInfo:
        """Trigger a run and wait for its end, in one request if it comes soon. See ``trigger`` and ``wait``."""
        deadline = _deadline(timeout)
        wait = ceil(max(0.0, min(MAX_TASK_WAIT, deadline - time.monotonic())))
        path = f"/v1/dags/{segment(dag_id)}/run{query([('wait', wait)])}"
        ask = partial(
            self._ask, to_run, "POST", path, _wish(conf, None, None), headers=_once(idempotency_key), wait=wait
        )
        run = await insist(ask, patience)
        if run.finished or time.monotonic() >= deadline:
            return run
        return await self.wait(run.id, timeout=deadline - time.monotonic(), patience=patience)

    async def wait(self, run: str, *, timeout: float | None = None, patience: float | None = None) -> RunInfo:
        """The run (``RunInfo.id``) with its results once it has ended or ``timeout`` seconds have passed.

        ``finished`` tells which. ``patience`` is as in ``TaskClient.follow``.
        """
        deadline, backoff = _deadline(timeout), Backoff()
        while True:
            asked = time.monotonic()
            wait = ceil(max(0.0, min(MAX_OUTPUT_WAIT, deadline - asked)))
            path = f"/v1/runs/{segment(run)}/result{query([('wait', wait)])}"
            seen = await insist(partial(self._ask, to_run, "GET", path, wait=wait), patience, deadline=deadline)
            if seen.finished or time.monotonic() >= deadline:
                return seen
            if time.monotonic() - asked < EARLY:
                await asyncio.sleep(backoff.next())

    async def result(
        self, run: str, task_id: str | None = None, *, timeout: float | None = None, patience: float | None = None
    ) -> Value:
        """The value of a result task, or (None) of the only one.

        Raises RunFailed, TimeoutError (of asyncio), and LookupError if there is no
        such result, or there are several.
        """
        seen = await self.wait(run, timeout=timeout, patience=patience)
        if not seen.finished:
            raise asyncio.TimeoutError(f"run {run} is {seen.state} after {timeout:g} s")
        if seen.state != "success":
            raise RunFailed(seen)
        if task_id is None and len(seen.results) != 1:
            raise LookupError(f"run {run} has {len(seen.results)} results: {', '.join(seen.results) or 'none'}")
        return next(iter(seen.results.values())) if task_id is None else seen.results[task_id]

    async def tail(self, run: str, *, patience: float | None = None) -> AsyncIterator[TailLine]:
        """What the run's tasks print, each line once and in its task's order, until all of them have ended."""
        lines: asyncio.Queue[TailLine] = asyncio.Queue(maxsize=10_000)
        following: dict[str, asyncio.Task[None]] = {}
        try:
            over = False
            while not over or not lines.empty() or not all(task.done() for task in following.values()):
                if not over:
                    seen = await insist(partial(self.get, run), patience)
                    over = seen.finished
                    for task in seen.tasks:
                        if task.id not in following:
                            following[task.id] = asyncio.create_task(self._follow(task, lines, patience))
                with contextlib.suppress(asyncio.TimeoutError):
                    yield await asyncio.wait_for(lines.get(), LOOK)
                    while not lines.empty():
                        yield lines.get_nowait()
            for ended in following.values():
                ended.result()
        finally:
            for follower in following.values():
                follower.cancel()
            await asyncio.gather(*following.values(), return_exceptions=True)

    async def _follow(self, task: TaskInfo, lines: asyncio.Queue[TailLine], patience: float | None) -> None:
        place = task.run or {}
        async for page in self.tasks.follow(task.id, patience=patience):
            for text in page.lines:
                await lines.put(TailLine(place["task_id"], place["map_index"], text))

    async def get(self, run: str) -> RunInfo:
        """A run and its tasks."""
        return await self._ask(to_run, "GET", f"/v1/runs/{segment(run)}")

    async def cancel(self, run: str) -> RunInfo:
        """Ask a run's worker and tasks to stop. A repeat changes nothing."""
        return await self._ask(to_run, "POST", f"/v1/runs/{segment(run)}/cancel")

    # --- working -------------------------------------------------------------------

    async def put_dag(
        self, dag_id: str, tasks: Sequence[Mapping[str, Any]], *, retries: int = 0, display_name: str = ""
    ) -> None:
        """Register a dag, or replace what was registered. A task is ``{"task_id", "result"?, "mapped"?}``."""
        body = {"tasks": tasks, "retries": retries, "display_name": display_name}
        await self._ask(to_nothing, "PUT", f"/v1/dags/{segment(dag_id)}", body)

    async def claim(
        self, dags: Sequence[str], claim: str, *, lease: float = DEFAULT_RUN_LEASE, wait: int = 0
    ) -> RunInfo | None:
        """The run that is due longest, now to be worked on with the secret ``claim``; None if none comes in time.

        A repeat with the same secret returns the same run.
        """
        body = {"dags": list(dags), "claim": claim, "lease": lease}
        return await self._ask(
            lambda answer: None if answer is None else to_run(answer),
            "POST",
            f"/v1/runs/claim{query([('wait', wait)])}",
            body,
            wait=wait,
        )

    async def create_task(
        self,
        run: str,
        task_id: str,
        *,
        claim: str,
        own_id: str | None = None,
        map_index: int = -1,
        try_number: int = 1,
        name: str = "",
        lease: float | None = None,
        finish: Mapping[str, Any] | None = None,
    ) -> TaskInfo:
        """Create a task of a run; ``own_id`` is its id as a task.

        With ``finish`` (``{"code", "error", "result"}``) it has ended, in the same commit.
        """
        body: dict[str, Any] = {"task_id": task_id, "map_index": map_index, "try_number": try_number, "claim": claim}
        body |= {"id": own_id, "name": name, "lease": lease, "finish": finish}
        given = {name: value for name, value in body.items() if value is not None}
        return await self._ask(to_task, "POST", f"/v1/runs/{segment(run)}/tasks", given)

    async def heartbeat(self, run: str, claim: str) -> bool:
        """Renew a claim. Returns whether somebody has asked the run to stop."""
        body = {"claim": claim}
        return await self._ask(
            lambda answer: bool(answer["cancel_requested"]), "POST", f"/v1/runs/{segment(run)}/heartbeat", body
        )

    async def release(self, run: str, claim: str) -> RunInfo:
        """Give a claimed run back."""
        return await self._ask(to_run, "POST", f"/v1/runs/{segment(run)}/release", {"claim": claim})

    async def finish(self, run: str, claim: str, state: str, error: str = "") -> RunInfo:
        """End a run as ``success`` or ``failed``. The same again changes nothing."""
        body = {"claim": claim, "state": state, "error": error}
        return await self._ask(to_run, "POST", f"/v1/runs/{segment(run)}/finish", body)


def _wish(conf: Mapping[str, Any] | None, tag: str | None, note: str | None) -> dict[str, Any]:
    return {"conf": dict(conf or {}), "tag": tag, "note": note}


def _once(key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": key or secrets.token_urlsafe(16)}


def _deadline(timeout: float | None) -> float:
    return inf if timeout is None else time.monotonic() + timeout
