"""CORS: what browsers are told when a page of another origin asks (PROTOCOLS.md, "Bounds")."""

from __future__ import annotations

import pytest

from taskserver.config import Settings
from tests.api.conftest import Serve
from tests.api.conversation import Answer, Api
from tests.eventually import eventually

OURS, ALSO_OURS, STRANGER = "https://dash.example.org", "http://localhost:3000", "https://evil.example"
PATHS = ["/v1/tasks", "/api/v2/dags", "/api/v1/executions/nightly", "/nowhere", "/healthz", "/openapi.json", "/docs"]


def cors_headers(answer: Answer) -> set[str]:
    return {name.lower() for name in answer.headers if name.lower().startswith("access-control-")}


@pytest.fixture
async def api(serve: Serve) -> Api:
    return (await serve(Settings(cors_origins=(OURS, ALSO_OURS)))).under("")


async def preflight(api: Api, path: str, origin: str = OURS) -> Answer:
    """What a browser asks first; it sends no key."""
    return await api.ask(
        "OPTIONS",
        path,
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
            "Authorization": "",
        },
    )


@pytest.mark.parametrize("path", PATHS)
async def test_a_preflight_is_answered_everywhere(api: Api, path: str) -> None:
    answer = await preflight(api, path)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == OURS
    assert {"POST", "DELETE", "PUT"} <= set(answer.headers["Access-Control-Allow-Methods"].split(", "))
    allowed = {name.lower() for name in answer.headers["Access-Control-Allow-Headers"].split(", ")}
    assert {"authorization", "content-type", "last-event-id", "prefer"} <= allowed
    assert int(answer.headers["Access-Control-Max-Age"]) > 0
    assert answer.headers["Vary"] == "Origin"
    assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("origin", [OURS, ALSO_OURS])
async def test_answers_and_failures_may_be_read(api: Api, path: str, origin: str) -> None:
    answer = await api.ask("GET", path, headers={"Origin": origin})
    assert answer.headers.getall("Access-Control-Allow-Origin") == [origin]
    assert answer.headers.getall("Vary") == ["Origin"]
    exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
    assert {"Location", "Retry-After", "X-Request-ID", "Airflow-Continuation-Token", "Preference-Applied"} <= {*exposed}
    assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize("path", PATHS)
async def test_others_are_not_mentioned(api: Api, path: str) -> None:
    for answer in (
        await api.ask("GET", path, headers={"Origin": STRANGER}),
        await api.ask("GET", path),
        await preflight(api, path, STRANGER),
    ):
        assert answer.status != 204
        assert not cors_headers(answer)


async def test_what_a_cache_may_keep_says_that_it_depends_on_the_origin(api: Api) -> None:
    assert (await api.ask("GET", "/openapi.json")).headers["Vary"] == "Origin"


async def test_without_origins_there_is_nothing_of_it(serve: Serve) -> None:
    api = (await serve(Settings())).under("")
    for path in PATHS:
        plain = await api.ask("GET", path)
        answer = await api.ask("GET", path, headers={"Origin": OURS})
        assert not cors_headers(answer)
        assert answer.headers.keys() == plain.headers.keys()
        assert (await preflight(api, path)).status in (404, 405)


async def test_everybody(serve: Serve) -> None:
    api = (await serve(Settings(cors_origins=("*",)))).under("")
    for path in PATHS:
        for answer in (await api.ask("GET", path, headers={"Origin": "null"}), await preflight(api, path, STRANGER)):
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            assert "Vary" not in answer.headers
            assert "Access-Control-Allow-Credentials" not in answer.headers


async def test_who_waits_is_told_with_the_headers_of_its_own_origin(api: Api) -> None:
    tasks = api.under("/v1")
    task_id = await tasks.create()
    origins = [OURS, ALSO_OURS, STRANGER, None]
    waits = [
        tasks.begin("GET", path, wait=20, headers={} if origin is None else {"Origin": origin})
        for path in (f"/tasks/{task_id}", f"/tasks/{task_id}/output")
        for origin in origins
    ]
    await eventually(lambda: api.services.waits.count == len(waits))
    await tasks.finish(task_id, output=["x"])
    answers = [await wait for wait in waits]
    assert [answer.json["finished"] for answer in answers] == [True] * len(waits)
    allowed = [answer.headers.get("Access-Control-Allow-Origin") for answer in answers]
    assert allowed == [OURS, ALSO_OURS, None, None] * 2


@pytest.mark.parametrize("encoding", ["text", "ndjson", "sse"])
async def test_streams(api: Api, encoding: str) -> None:
    task_id = await api.under("/v1").done("x")
    answer = await api.under("/v1").ask(
        "GET", f"/tasks/{task_id}/output", format=encoding, follow="true", headers={"Origin": OURS}
    )
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, OURS)
