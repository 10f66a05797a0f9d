"""The words of the tests of the Airflow room: its callers, a run that is worked on, lines of a wait."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from aiohttp import ClientPayloadError, ClientResponse
from yarl import URL

from taskserver.model import Scope
from tests.api.conversation import Answer, Api
from tests.eventually import LIMIT, eventually

JSON = "application/json"
NDJSON = "application/x-ndjson"
V2 = "/api/v2"
DAG = "my_dag"


@dataclass(frozen=True)
class Airflow:
    """A caller of Airflow's API, with the same key also one of ours."""

    api: Api
    credential: str | None = None  # a token; without it the key itself

    # --- any request ---------------------------------------------------------------

    async def ask(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> Answer:
        """Any request below ``/api/v2``, or of ``/auth``; see ``Api.ask``."""
        prefix = "" if path.startswith("/auth") else V2
        return await self.api.under(prefix).ask(method, path, headers={**self.headers, **(headers or {})}, **more)

    async def json(self, method: str, path: str, *, status: int = 200, **more: Any) -> Any:
        """The JSON of an answer with this status."""
        return shown(await self.ask(method, path, **more), status)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.credential or self.api.key}"}

    # --- tokens --------------------------------------------------------------------

    async def login(self, username: str, password: str) -> str:
        """A token."""
        body = {"username": username, "password": password}
        token: str = (await self.json("POST", "/auth/token", status=201, body=body))["access_token"]
        return token

    def bearing(self, token: str) -> Airflow:
        """The same caller with a token."""
        return Airflow(self.api, token)

    async def with_key(self, name: str, *scopes: Scope, **more: Any) -> Airflow:
        """A caller with a new key on the same server."""
        return Airflow(await self.api.with_key(name, *scopes, **more))

    # --- dags and runs -------------------------------------------------------------

    async def dag(self, *tasks: str, dag_id: str = DAG, mapped: tuple[str, ...] = ()) -> None:
        """Register a dag; the tasks that are named are its results."""
        listed = [{"task_id": task_id, "result": True, "mapped": task_id in mapped} for task_id in tasks]
        await self.api.json("PUT", f"/dags/{dag_id}", body={"tasks": listed})

    async def trigger(self, dag_id: str = DAG, /, **wish: Any) -> Any:
        """A new run."""
        return await self.json("POST", f"/dags/{dag_id}/dagRuns", body={"logical_date": None, **wish})

    async def begin(self, *tasks: str, mapped: tuple[str, ...] = ()) -> Work:
        """A run of a dag with these results, in the hands of its claimant."""
        await self.dag(*tasks, mapped=mapped)
        run = await self.trigger()
        claimed = await self.api.json("POST", "/runs/claim", body={})
        assert claimed["run_id"] == run["dag_run_id"]
        return Work(self, claimed["id"], claimed["run_id"], claimed["claim"])


@dataclass(frozen=True)
class Work:
    """A run in the hands of its claimant: on the one side his words, on the other Airflow's."""

    airflow: Airflow
    id: str
    run_id: str
    claim: str

    @property
    def path(self) -> str:
        return path_of(self.run_id)

    async def task(self, task_id: str, map_index: int = -1, try_number: int = 1) -> str:
        """Create a task of the run; its id under /v1/tasks."""
        body = {"task_id": task_id, "map_index": map_index, "try_number": try_number, "claim": self.claim}
        found: str = (await self.airflow.api.json("POST", f"/runs/{self.id}/tasks", status=201, body=body))["id"]
        return found

    async def done(self, task_id: str, value: Any = None, map_index: int = -1, **word: Any) -> str:
        """A task that has ended with a value."""
        task = await self.task(task_id, map_index)
        await self.airflow.api.finish(task, result={"type": "json", "data": value}, **word)
        return task

    async def finish(self, state: str | None = "success") -> None:
        """End the run."""
        await self.airflow.api.json("POST", f"/runs/{self.id}/finish", body={"claim": self.claim, "state": state})

    async def delete(self) -> None:
        assert (await self.airflow.api.ask("DELETE", f"/runs/{self.id}")).status == 204

    # --- waiting -------------------------------------------------------------------

    async def wait(self, **query: Any) -> list[Any]:
        """The lines of a wait, to its end."""
        async with self.waiting(**query) as lines:
            return [line async for line in lines]

    @contextlib.asynccontextmanager
    async def waiting(self, interval: float = 60, **query: Any) -> AsyncIterator[Lines]:
        """An open wait."""
        async with self.open(self.path + "/wait", interval=interval, **query) as response:
            assert response.status == 200, await response.read()
            assert "Content-Type" not in response.headers
            yield Lines(response)

    @contextlib.asynccontextmanager
    async def following(self, task_id: str, try_number: int = 1, **query: Any) -> AsyncIterator[Lines]:
        """A log as NDJSON."""
        path = f"{self.path}/taskInstances/{task_id}/logs/{try_number}"
        async with self.open(path, accept=NDJSON, **query) as response:
            assert response.status == 200, await response.read()
            assert response.headers["Content-Type"] == NDJSON
            yield Lines(response)

    @contextlib.asynccontextmanager
    async def open(self, path: str, accept: str = "*/*", **query: Any) -> AsyncIterator[ClientResponse]:
        """A request whose answer is not read yet."""
        headers = {**self.airflow.headers, "Accept": accept}
        url = URL(V2 + path, encoded=True).update_query(query)
        async with self.airflow.api.client.get(url, headers=headers) as response:
            yield response

    async def log(self, task_id: str, try_number: int = 1, status: int = 200, **query: Any) -> Any:
        """A log as JSON."""
        path = f"{self.path}/taskInstances/{task_id}/logs/{try_number}"
        return await self.airflow.json("GET", path, status=status, headers={"Accept": JSON}, **query)

    async def waits(self, count: int) -> None:
        """Return when this many waits are open in the server."""
        waits = self.airflow.api.services.waits
        await eventually(lambda: waits.count == count, f"{count} open waits")


@dataclass
class Lines:
    """Lines of JSON as they come."""

    response: ClientResponse

    def __aiter__(self) -> Lines:
        return self

    async def __anext__(self) -> Any:
        line = await asyncio.wait_for(self.response.content.readline(), LIMIT)
        if not line:
            raise StopAsyncIteration
        assert line.endswith(b"\n"), line
        return json.loads(line)

    async def next(self) -> Any:
        """The next line."""
        return await anext(self)

    async def breaks_off(self) -> list[Any]:
        """Read until the connection breaks: an orderly end is a mistake. What came before."""
        seen = []
        try:
            while True:
                seen.append(await self.next())
        except StopAsyncIteration:
            raise AssertionError(f"the stream has ended in order, behind {seen}") from None
        except (ClientPayloadError, ConnectionError, RuntimeError):  # the last is aiohttp's word for a closed one
            return seen


def path_of(run_id: str, dag_id: str = DAG) -> str:
    """A run's path below ``/api/v2``, with its ids percent-encoded."""
    return f"/dags/{encoded(dag_id)}/dagRuns/{encoded(run_id)}"


def encoded(name: str) -> str:
    """An id as a segment of a path; dots too, since clients take ``..`` for a way up."""
    return quote(name, safe="").replace(".", "%2E")


def shown(answer: Answer, status: int = 200) -> Any:
    """Check an answer's status and the headers of all answers in JSON; its JSON."""
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == JSON
    assert answer.headers["Cache-Control"] == "no-store"
    assert "WWW-Authenticate" not in answer.headers
    return json.loads(answer.body)


def detail(answer: Answer, status: int) -> Any:
    """Check that an answer is a failure in the room's shape; its ``detail``."""
    found = shown(answer, status)
    assert list(found) == ["detail"]
    return found["detail"]


def faults(answer: Answer) -> list[tuple[str, list[Any]]]:
    """Check that an answer is a refusal of values; type and place of each."""
    listed = detail(answer, 422)
    assert listed
    for fault in listed:
        assert {"type", "loc", "msg"} <= set(fault) <= {"type", "loc", "msg", "input", "ctx"}
        assert isinstance(fault["msg"], str)
    return sorted((fault["type"], fault["loc"]) for fault in listed)
