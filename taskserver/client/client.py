"""TaskClient: one method for each call of the room, and two that follow a task to its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import ceil, inf
from typing import Any

from taskserver.client.answers import (
    Appended,
    KeyInfo,
    OutputPage,
    Pruned,
    TaskInfo,
    TaskPage,
    to_appended,
    to_key,
    to_nothing,
    to_output,
    to_page,
    to_pruned,
    to_task,
)
from taskserver.client.connection import Connected, query, segment
from taskserver.client.retry import Backoff, insist
from taskserver.config import DEFAULT_LIST_LIMIT, DEFAULT_OUTPUT_LIMIT, MAX_OUTPUT_LIMIT, MAX_OUTPUT_WAIT, MAX_TASK_WAIT

EARLY = 0.5  # seconds; an empty answer to a long poll that comes sooner is no sign that waiting works


class TaskClient(Connected):
    """A client for one server and one API key; use it as an async context manager, or ``close`` it.

    Args:
        url: such as ``http://127.0.0.1:8080``; may end in a path, if a proxy serves it there.
        key: the API key.

    Every method may raise ApiError and Unreachable. Raises ValueError for a URL
    or a key that cannot be one.
    """

    def task_url(self, task_id: str) -> str:
        """Where a task is found."""
        return self.url + _task(task_id)

    # --- producing -----------------------------------------------------------------

    async def create(
        self,
        name: str = "",
        *,
        task_id: str | None = None,
        lease: float | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> TaskInfo:
        """Create a queued task. ``lease``: seconds of silence after which the task counts as lost."""
        wish: dict[str, Any] = {"name": name, "labels": dict(labels or {})}
        if task_id is not None:
            wish["id"] = task_id
        if lease is not None:
            wish["lease"] = lease
        return await self._ask(to_task, "POST", "/v1/tasks", wish)

    async def append(
        self, task_id: str, lines: Sequence[str], *, first: int | None = None, closing: bool = False
    ) -> Appended:
        """Append lines; returns when they are durable.

        With ``first``, the number that the first of them is to get, the call may
        be repeated: lines that stand there already are not added again. Another
        end of the output is an ApiError with status 409. An output that has as many
        lines as it may is one with the code OUTPUT_FULL; with ``closing`` the lines may
        use what its payload calls the ``reserve``, which is for a mark and an end.
        """
        return await self._ask(to_appended, "POST", _output(task_id, first, closing), {"lines": list(lines)})

    async def append_ndjson(
        self, task_id: str, body: bytes, *, first: int | None = None, closing: bool = False
    ) -> Appended:
        """The same with lines that bring their stream and time: ``{"text", "stream"?, "time"?}`` each."""
        return await self._ask(to_appended, "POST", _output(task_id, first, closing), body)

    async def finish(
        self,
        task_id: str,
        code: int = 0,
        error: str = "",
        *,
        result: Mapping[str, Any] | None = None,
        lines: Sequence[str] | None = None,
        first: int | None = None,
    ) -> TaskInfo:
        """End a task, with its last lines in the same commit. The same again succeeds and changes nothing.

        ``result`` looks like ``{"type": "…", "data": …}``.
        """
        word: dict[str, Any] = {"code": code, "error": error, "result": result}
        if lines is not None:
            word["output"] = list(lines)
        if first is not None:
            word["first"] = first
        return await self._ask(to_task, "POST", _task(task_id, "/finish"), word)

    async def heartbeat(self, task_id: str) -> bool:
        """Renew the lease; a queued task becomes running. Returns whether the producer is asked to stop."""
        return await self._ask(lambda answer: bool(answer["cancel_requested"]), "POST", _task(task_id, "/heartbeat"))

    async def cancel(self, task_id: str) -> TaskInfo:
        """Ask a task's producer to stop. A repeat changes nothing."""
        return await self._ask(to_task, "POST", _task(task_id, "/cancel"))

    async def delete(self, task_id: str) -> None:
        """Remove a finished task and its output."""
        await self._ask(to_nothing, "DELETE", _task(task_id))

    # --- reading -------------------------------------------------------------------

    async def get(self, task_id: str, *, first: int = 0, wait: int = 0) -> TaskInfo:
        """A task with its lines from ``first`` on, once it has ended or ``wait`` seconds (at most 20) have passed."""
        return await self._ask(to_task, "GET", _task(task_id, first=first, wait=wait), wait=wait)

    async def output(
        self,
        task_id: str,
        *,
        first: int | None = None,
        tail: int | None = None,
        wait: int = 0,
        limit: int = DEFAULT_OUTPUT_LIMIT,
    ) -> OutputPage:
        """At most ``limit`` lines from ``first`` (or ``tail`` lines before the end) on.

        Returns as soon as there is one, the task has ended, or ``wait`` seconds
        (at most 55) have passed.
        """
        path = _task(task_id, "/output", first=first, tail=tail, wait=wait, limit=limit)
        return await self._ask(to_output, "GET", path, wait=wait)

    async def follow(self, task_id: str, *, first: int = 0, patience: float | None = None) -> AsyncIterator[OutputPage]:
        """The output from ``first`` on as it comes, each line once; ends when the task has ended and all is told.

        Each page's ``last`` is a cursor at which a later call goes on. While the
        server cannot be reached or says "later", it is asked again and again, up
        to ``patience`` seconds in a row (None: for ever); then the error is raised.
        """
        finished, backoff = False, Backoff()
        while not finished:
            asked = time.monotonic()
            ask = partial(self.output, task_id, first=first, wait=MAX_OUTPUT_WAIT, limit=MAX_OUTPUT_LIMIT)
            page = await insist(ask, patience)
            finished, first = page.finished, page.last
            if page.lines:
                backoff = Backoff()
                yield page
            elif not finished and time.monotonic() - asked < EARLY:
                await asyncio.sleep(backoff.next())

    async def wait(self, task_id: str, *, timeout: float | None = None, patience: float | None = None) -> TaskInfo:
        """The task once it has ended or ``timeout`` seconds have passed; ``finished`` tells which.

        Its output is left out. ``patience`` is as in ``follow``, but never longer than ``timeout``.
        """
        deadline = time.monotonic() + (inf if timeout is None else timeout)
        # The wait's answer brings the lines from `first` on, so begin where there are none yet.
        first = (await insist(partial(self.output, task_id, tail=0), patience, deadline=deadline)).last
        wait, backoff = 0, Backoff()
        while True:
            asked = time.monotonic()
            task = await insist(partial(self.get, task_id, first=first, wait=wait), patience, deadline=deadline)
            now = time.monotonic()
            if task.finished or now >= deadline:
                return replace(task, output=())
            if wait and now - asked < EARLY:
                await asyncio.sleep(backoff.next())
            first, wait = task.last, ceil(min(MAX_TASK_WAIT, deadline - now))

    async def list_tasks(
        self,
        *,
        state: str | None = None,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int = DEFAULT_LIST_LIMIT,
        cursor: str | None = None,
    ) -> TaskPage:
        """Tasks, the newest first. ``cursor`` is an earlier page's."""
        wish: list[tuple[str, Any]] = [("state", state), ("name", name), ("limit", limit), ("cursor", cursor)]
        wish += [("label", f"{key}={value}") for key, value in (labels or {}).items()]
        return await self._ask(to_page, "GET", "/v1/tasks" + query(wish))

    # --- keys ----------------------------------------------------------------------

    async def create_key(
        self,
        name: str,
        scopes: Iterable[str] = ("read", "write"),
        *,
        owner: str | None = None,
        expires_in: int | None = None,
    ) -> KeyInfo:
        """Make an API key; its ``secret`` is told this once. ``expires_in`` is in seconds."""
        wish = {"name": name, "scopes": list(scopes), "owner": owner, "expires_in": expires_in}
        return await self._ask(to_key, "POST", "/v1/keys", wish)

    async def list_keys(self) -> Sequence[KeyInfo]:
        """All API keys, revoked and expired ones included, the oldest first."""
        return await self._ask(lambda answer: [to_key(key) for key in answer["keys"]], "GET", "/v1/keys")

    async def revoke_key(self, id_or_name: str) -> KeyInfo:
        """End a key at once."""
        return await self._ask(to_key, "DELETE", "/v1/keys/" + segment(id_or_name))

    # --- retention -----------------------------------------------------------------

    async def prune(self, older_than: int, *, dry_run: bool = False) -> Pruned:
        """Remove some of what has ended more than ``older_than`` seconds ago, or count all of it; see ``Pruned``."""
        wish = {"older_than": older_than, "dry_run": dry_run}
        return await self._ask(to_pruned, "POST", "/v1/prune", wish)


def _task(task_id: str, action: str = "", **asked: Any) -> str:
    return f"/v1/tasks/{segment(task_id)}{action}{query(asked.items())}"


def _output(task_id: str, first: int | None, closing: bool) -> str:
    return _task(task_id, "/output", first=first, closing="true" if closing else None)
