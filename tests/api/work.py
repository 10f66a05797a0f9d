"""The words of the API tests about dags and runs."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from tests.api.conversation import Api

CLAIM = "claim-of-a-worker"
TASKS = [
    {"task_id": "extract", "result": False, "mapped": False},
    {"task_id": "load", "result": True, "mapped": False},
]


async def register(api: Api, dag_id: str = "etl", **wish: Any) -> Any:
    return await api.json("PUT", f"/dags/{quote(dag_id)}", body={"tasks": TASKS, **wish})


async def trigger(api: Api, dag_id: str = "etl", **wish: Any) -> Any:
    return await api.json("POST", f"/dags/{quote(dag_id)}/runs", status=201, body=wish)


async def queued(api: Api, dag_id: str = "etl", **wish: Any) -> str:
    """The id of a queued run of a new dag."""
    await register(api, dag_id, **wish)
    run_id: str = (await trigger(api, dag_id))["id"]
    return run_id


async def claim(api: Api, **wish: Any) -> Any:
    """The run that is due longest."""
    return await api.json("POST", "/runs/claim", body={"claim": CLAIM, **wish})


async def claimed(api: Api, **wish: Any) -> str:
    """The id of a run of a new dag that is worked on with CLAIM."""
    run_id = await queued(api, **wish)
    assert (await claim(api))["id"] == run_id
    return run_id


async def add_task(api: Api, run_id: str, task_id: str = "extract", claim: str | None = CLAIM, **wish: Any) -> Any:
    body = {"task_id": task_id, "claim": claim, **wish}
    return await api.json("POST", f"/runs/{run_id}/tasks", status=201, body=body)


async def run_of(api: Api, run_id: str) -> Any:
    return await api.json("GET", f"/runs/{run_id}")
