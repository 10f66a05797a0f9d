"""Clients of streams: each format is read with a parser that is not ours."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
from aiohttp import ClientResponse
from httpx_sse import EventSource, ServerSentEvent, aconnect_sse
from yarl import URL

from tests.api.conversation import Api

LIMIT = 20.0  # seconds for anything that a stream is to bring; reached only by a failure
FORMATS = ("text", "ndjson", "sse")
CUT = (httpx.RemoteProtocolError, httpx.ReadError)  # what a broken connection is to a client


@contextlib.asynccontextmanager
async def opened(api: Api, task_id: str, last_id: str | None = None, **query: Any) -> AsyncIterator[ClientResponse]:
    """The answer to a request for output, to be read as it comes."""
    headers = {"Authorization": f"Key {api.key}"}
    if last_id is not None:
        headers["Last-Event-ID"] = last_id
    url = URL(f"{api.prefix}/tasks/{task_id}/output").update_query(query)
    async with api.client.get(url, headers=headers, read_bufsize=1024) as response:
        yield response


class Events:
    """Server-sent events as they come."""

    def __init__(self, source: EventSource) -> None:
        self.response = source.response
        self._events = source.aiter_sse()

    async def next(self) -> ServerSentEvent:
        return await asyncio.wait_for(anext(self._events), LIMIT)

    async def rest(self) -> list[ServerSentEvent]:
        """All until the server closes the stream."""

        async def read() -> list[ServerSentEvent]:
            return [event async for event in self._events]

        return await asyncio.wait_for(read(), LIMIT)


@contextlib.asynccontextmanager
async def events(api: Api, task_id: str, last_id: str | None = None, **query: Any) -> AsyncIterator[Events]:
    """A task's output as server-sent events, through httpx-sse."""
    headers = {"Authorization": f"Key {api.key}"}
    if last_id is not None:
        headers["Last-Event-ID"] = last_id
    base = str(api.client.make_url(api.prefix))
    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=LIMIT) as client:
        async with aconnect_sse(client, "GET", f"/tasks/{task_id}/output", params=query) as source:
            assert source.response.status_code == 200
            yield Events(source)


async def all_events(api: Api, task_id: str, last_id: str | None = None, **query: Any) -> list[ServerSentEvent]:
    """The events of a stream that ends."""
    async with events(api, task_id, last_id, **query) as stream:
        return await stream.rest()


def lines_of(found: list[ServerSentEvent]) -> list[str]:
    """The lines of all `output` events."""
    return [text for event in found if event.event == "output" for text in json.loads(event.data)]


async def next_object(response: ClientResponse) -> Any:
    """The next object of an NDJSON stream."""
    line = await asyncio.wait_for(response.content.readuntil(b"\n"), LIMIT)
    return json.loads(line)


def objects(body: bytes) -> list[Any]:
    """The objects of a whole NDJSON answer."""
    return [json.loads(line) for line in body.split(b"\n") if line]
