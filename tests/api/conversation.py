"""The words of the API tests: one client with one key, and what it says."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp.test_utils import TestClient
from aiohttp.web import Request
from multidict import CIMultiDictProxy
from yarl import URL

from taskserver.model import MICROSECONDS, Scope, now_us
from taskserver.web.context import Services
from tests.eventually import LOOK, eventually

JSON = "application/json; charset=utf-8"
NDJSON = "application/x-ndjson"
TEXT = "text/plain; charset=utf-8"

V1 = "/v1"
CONNECT = "/__api__/v1"

SEAL_LIMIT = 60.0  # seconds; reached only by a failure

Client = TestClient[Request, None]


@dataclass(frozen=True)
class Answer:
    """What came back, read to its end."""

    method: str
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["Content-Type"] == JSON
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass(frozen=True)
class Api:
    """A client of a server in this process. What it says of ``id`` is a task's."""

    client: Client
    services: Services
    key: str
    key_id: str
    prefix: str = V1

    # --- any request ---------------------------------------------------------------

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        **query: Any,
    ) -> Answer:
        """Any request below the prefix; ``body`` is sent as JSON, ``data`` as it is, ``path`` as it is written."""
        sent = {"Authorization": f"Key {self.key}", **(headers or {})}
        if body is not None:
            data = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        if isinstance(data, bytes):
            data = io.BytesIO(data)  # as aiohttp wants large ones
        url = URL(self.prefix + path, encoded=True)
        if query:
            url = url.update_query(query)
        async with self.client.request(
            method,
            url,
            data=data,
            headers=sent,
            allow_redirects=False,
            skip_auto_headers=["Content-Type"],  # the test decides what it names
        ) as response:
            return Answer(method, response.status, response.headers, await response.read())

    async def json(self, method: str, path: str, *, status: int = 200, **more: Any) -> Any:
        """The JSON of an answer with this status."""
        answer = await self.ask(method, path, **more)
        assert answer.status == status, answer.body
        return answer.json

    # --- a task's life ---------------------------------------------------------------

    async def create(self, *texts: str, **wish: Any) -> str:
        """A new task's id. With lines it is running, without it is queued."""
        task_id: str = (await self.json("POST", "/tasks", status=201, body=wish))["id"]
        if texts:
            await self.append(task_id, *texts)
        return task_id

    async def append(self, task_id: str, *texts: str, **query: Any) -> Any:
        return await self.json("POST", f"/tasks/{task_id}/output", body={"lines": texts}, **query)

    async def finish(self, task_id: str, **word: Any) -> Any:
        return await self.json("POST", f"/tasks/{task_id}/finish", body=word)

    async def cancel(self, task_id: str) -> Any:
        return await self.json("POST", f"/tasks/{task_id}/cancel")

    async def delete(self, task_id: str) -> None:
        assert (await self.ask("DELETE", f"/tasks/{task_id}")).status == 204

    async def done(self, *texts: str, **word: Any) -> str:
        """A finished task's id."""
        task_id = await self.create()
        await self.finish(task_id, output=texts, **word)
        return task_id

    async def sealed(self) -> None:
        """Return once the server has sealed all that has ended."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SEAL_LIMIT
        while await self.services.store.unsealed(1):
            assert loop.time() < deadline, "the sealer has not come to its end"
            await asyncio.sleep(LOOK)

    # --- looking -----------------------------------------------------------------------

    async def task(self, task_id: str, **query: Any) -> Any:
        """State and output (A1)."""
        return await self.json("GET", f"/tasks/{task_id}", **query)

    async def output(self, task_id: str, **query: Any) -> Any:
        """A page of output alone (A5)."""
        return await self.json("GET", f"/tasks/{task_id}/output", **query)

    async def lines(self, task_id: str) -> list[str]:
        found: list[str] = (await self.task(task_id))["output"]
        return found

    def begin(self, method: str, path: str, **more: Any) -> asyncio.Task[Answer]:
        """A request that is under way while the test goes on."""
        return asyncio.ensure_future(self.ask(method, path, **more))

    @contextlib.asynccontextmanager
    async def waiting(self, path: str, **query: Any) -> AsyncIterator[asyncio.Task[Answer]]:
        """A request that waits in the server by now. It must have been answered at the end of the block, or soon is."""
        open_before = self.services.waits.count
        asking = self.begin("GET", path, **query)
        try:
            await eventually(lambda: asking.done() or self.services.waits.count > open_before, "the wait")
            assert not asking.done(), asking.result()
            yield asking
            await asking
        finally:
            asking.cancel()

    # --- others --------------------------------------------------------------------------

    async def with_key(
        self, name: str, *scopes: Scope, owner: str | None = None, seconds: float | None = None, prefix: str = V1
    ) -> Api:
        """The same server, asked with a new key; all scopes but ``admin`` unless they are named."""
        key, secret = await self.services.keys.issue(
            name,
            scopes or (Scope.READ, Scope.WRITE),
            owner=owner,
            expires_at=None if seconds is None else now_us() + round(seconds * MICROSECONDS),
        )
        return Api(self.client, self.services, secret, key.id, prefix)

    def under(self, prefix: str) -> Api:
        """The same client under another prefix."""
        return Api(self.client, self.services, self.key, self.key_id, prefix)

    async def raw(self, request: bytes) -> bytes:
        """Send bytes over a connection of their own; all that comes back until the server closes it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.client.port)
        try:
            writer.write(request)
            return await asyncio.wait_for(reader.read(), 20)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


def refused(answer: Answer, status: int, code: int, *words: str) -> Any:
    """Check that an answer is a failure in the shape of A2 whose text has these words; its payload."""
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == JSON
    assert answer.headers["Cache-Control"] == "no-store"
    if answer.method == "HEAD":
        assert answer.body == b""
        return None
    found = answer.json
    assert list(found) == ["code", "error", "payload"]
    assert found["code"] == code, found
    assert isinstance(found["error"], str)
    for word in words or (" ",):
        assert word in found["error"], found
    assert found["payload"] is None or isinstance(found["payload"], dict)
    return found["payload"]
