"""The words of the tests of the executions room: a client, a run that is worked on, events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient
from aiohttp.web import Request
from multidict import CIMultiDictProxy
from yarl import URL

from taskserver.model import Scope
from taskserver.web.context import Services

PREFIX = "/api/v1/executions"
JSON = "application/json"
LIMIT = 20.0  # seconds for what a test waits for; reached only by a failure
UNKNOWN = "0192f3a4-6a37-7c11-8d6e-5f0f5e3c2b10"  # an id that no execution has
LOOK = 0.002

Client = TestClient[Request, None]


@dataclass(frozen=True)
class Answer:
    """What came back, read to its end."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["Content-Type"].startswith(JSON)
        return json.loads(self.body)


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    name: str
    id: str | None
    data: Any


@dataclass(frozen=True)
class Api:
    """A client of a server in this process."""

    client: Client
    services: Services
    key: str
    key_id: str

    # --- any request ---------------------------------------------------------------

    def request(
        self, method: str, path: str, *, body: Any = None, data: Any = None, headers: Any = None, **query: Any
    ) -> Any:
        """A request for a ``/path``, or for one below the room's prefix if it does not begin with /v1 or /api."""
        if not path.startswith(("/v1/", "/api/")):
            path = PREFIX + path
        sent = {"Authorization": f"Key {self.key}", **(headers or {})}
        if body is not None:
            data = json.dumps(body).encode()
            sent.setdefault("Content-Type", JSON)
        url = URL(path, encoded=True).update_query(query)
        return self.client.request(
            method, url, data=data, headers=sent, allow_redirects=False, skip_auto_headers=["Content-Type"]
        )

    async def ask(self, method: str, path: str, **more: Any) -> Answer:
        """The answer to any request; ``body`` is sent as JSON, ``data`` as it is."""
        async with self.request(method, path, **more) as response:
            return Answer(response.status, response.headers, await response.read())

    async def json(self, method: str, path: str, *, status: int = 200, **more: Any) -> Any:
        """The JSON of an answer with this status."""
        answer = await self.ask(method, path, **more)
        assert answer.status == status, answer.body
        return answer.json

    # --- executions ------------------------------------------------------------------

    async def config(self, dag_id: str = "etl", **wish: Any) -> str:
        """The ``config_id`` of a dag that is registered now."""
        return str((await self.json("PUT", f"/v1/dags/{dag_id}", body={"tasks": [], **wish}))["config_id"])

    async def create(self, **wish: Any) -> str:
        """The id of a new execution."""
        if "config_id" not in wish:
            wish["config_id"] = await self.config()
        return str((await self.json("POST", "", status=201, body=wish))["id"])

    async def get(self, id_or_tag: str) -> Any:
        return await self.json("GET", f"/{id_or_tag}")

    async def claim(self, **wish: Any) -> Work:
        """Begin to work on the run that is due."""
        run = await self.json("POST", "/v1/runs/claim", body=wish)
        return Work(self, run["id"], run["claim"])

    async def ended(self, state: str = "success", **wish: Any) -> str:
        """The id of an execution that has ended."""
        execution_id = await self.create(**wish)
        work = await self.claim()
        assert work.run == execution_id
        await work.finish(state)
        return execution_id

    # --- waiting and following ---------------------------------------------------------

    @contextlib.asynccontextmanager
    async def waiting(self, execution_id: str, **wish: Any) -> AsyncIterator[asyncio.Task[Answer]]:
        """A wait that is open in the server by now."""
        before = self.services.waits.count
        asking = asyncio.ensure_future(self.ask("POST", f"/{execution_id}/wait", body=wish))
        try:
            await self.waits(before + 1)
            yield asking
        finally:
            asking.cancel()

    async def waits(self, count: int) -> None:
        """Return when this many waits are open."""
        for _ in range(int(LIMIT / LOOK)):
            if self.services.waits.count == count:
                return
            await asyncio.sleep(LOOK)
        raise AssertionError(f"{self.services.waits.count} waits are open, not {count}")

    async def events(self, execution_id: str, last: str | None = None, **query: Any) -> list[Event]:
        """All events until the server ends the stream."""
        async with self.following(execution_id, last, **query) as stream:
            return [event async for event in stream]

    @contextlib.asynccontextmanager
    async def following(self, execution_id: str, last: str | None = None, **query: Any) -> AsyncIterator[Stream]:
        """An open stream of events."""
        headers = {} if last is None else {"Last-Event-ID": last}
        async with self.request("GET", f"/{execution_id}/events", headers=headers, **query) as response:
            assert response.status == 200, await response.read()
            yield Stream(response)

    # --- others --------------------------------------------------------------------------

    async def with_key(self, name: str, *scopes: Scope) -> Api:
        """The same server, asked with a new key; it may read and write unless scopes are named."""
        key, secret = await self.services.keys.issue(name, scopes or (Scope.READ, Scope.WRITE))
        return Api(self.client, self.services, secret, key.id)


@dataclass
class Stream:
    """Server-sent events as they come; ``comments`` and ``retry`` are noted on the side."""

    response: ClientResponse
    comments: int = 0
    retry: int | None = None

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Event:
        event = await self.next()
        if event is None:
            raise StopAsyncIteration
        return event

    async def next(self) -> Event | None:
        """The next event; None at the orderly end of the stream."""
        fields: dict[str, str] = {}
        while line := (await asyncio.wait_for(self.response.content.readline(), LIMIT)).decode():
            name, _, value = line.rstrip("\n").partition(":")
            value = value.removeprefix(" ")
            if line == "\n" and "data" in fields:
                return Event(fields.get("event", "message"), fields.get("id"), json.loads(fields["data"]))
            if name == "retry":
                self.retry = int(value)
            elif name:
                fields[name] = value
            elif line != "\n":
                self.comments += 1
        assert not fields, "the stream was cut within an event"
        return None


@dataclass(frozen=True)
class Work:
    """A run in the hands of its claimant."""

    api: Api
    run: str
    claim: str

    async def task(self, task_id: str, map_index: int = -1, **wish: Any) -> str:
        """Create a task of the run; its id under /v1/tasks."""
        body = {"task_id": task_id, "map_index": map_index, "claim": self.claim, **wish}
        found: str = (await self.api.json("POST", f"/v1/runs/{self.run}/tasks", status=201, body=body))["id"]
        return found

    async def start(self, task: str) -> None:
        await self.api.json("POST", f"/v1/tasks/{task}/heartbeat")

    async def end(self, task: str, **word: Any) -> None:
        await self.api.json("POST", f"/v1/tasks/{task}/finish", body=word)

    async def done(self, task_id: str, map_index: int = -1, **word: Any) -> str:
        """A task that has run and ended."""
        task = await self.task(task_id, map_index)
        await self.start(task)
        await self.end(task, **word)
        return task

    async def finish(self, state: str | None = None, **word: Any) -> None:
        await self.api.json("POST", f"/v1/runs/{self.run}/finish", body={"claim": self.claim, "state": state, **word})


def refused(answer: Answer, status: int, code: str, *words: str) -> None:
    """Check that an answer is a failure in the room's shape whose text has these words."""
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == JSON
    assert answer.headers["Cache-Control"] == "no-store"
    found = answer.json
    assert list(found) == ["detail", "error_code", "correlation_id", "timestamp"]
    assert found["error_code"] == code, found
    for word in words:
        assert word in found["detail"], found
    assert uuid.UUID(found["correlation_id"]).version == 4
    assert moment(found["timestamp"])


def faults(answer: Answer) -> list[Mapping[str, Any]]:
    """Check that an answer is a refusal of values; what it lists."""
    assert answer.status == 422, answer.body
    assert answer.headers["Content-Type"] == JSON
    found = answer.json
    assert list(found) == ["detail"]
    listed: list[Mapping[str, Any]] = found["detail"]
    assert listed
    for fault in listed:
        assert {"type", "loc", "msg"} <= set(fault) <= {"type", "loc", "msg", "input", "ctx"}
    return listed


def moment(text: str) -> datetime:
    """A time as the room writes it, which is in UTC and has microseconds."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z")
