"""PROTOCOLS.md, A2 and A6: bad input about dags and runs, and what belongs to others."""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import quote

import pytest

from taskserver.api.tasks.routes import ROUTES
from taskserver.config import MAX_CLAIM_DAGS, MAX_DAG_TASKS, MAX_ERROR_LENGTH, MAX_LEASE, MAX_MAP_INDEX, MAX_RETRIES
from taskserver.web.rooms import Route
from tests.api.conversation import CONNECT, V1, Api, refused
from tests.api.work import CLAIM, claimed, queued, register, run_of, trigger

NOBODYS = str(uuid.UUID(int=7))
RUN_AND_DAG_ROUTES = [route for route in ROUTES if "/runs/{id}" in route.path or "{dag_id}" in route.path]
BAD_KEYS: list[Any] = ["", "a b", "a/b", "a\nb", "a\n", "a,b", "a:b", "x" * 251, ".", "..", 7, None, ["a"], {}, True]
DEEP: Any = 1
for _ in range(300):
    DEEP = [DEEP]


def each(*cases: tuple[Any, str]) -> pytest.MarkDecorator:
    """The test for each of these bodies and a word that the refusal must hold."""
    return pytest.mark.parametrize(
        ("body", "word"), cases, ids=[f"{number} {word}" for number, (_, word) in enumerate(cases)]
    )


class TestDags:
    @pytest.mark.parametrize("dag_id", ["a b", "a/b", "a%b", "a\nb", "a,b", "a\0b", "x" * 251, "..", ".", "a:b", "🎉"])
    async def test_an_id_that_is_none(self, api: Api, dag_id: str) -> None:
        # Percent-encoded dots stay dots: a client that leaves them alone asks for another path.
        path = f"/dags/{quote(dag_id, safe='').replace('.', '%2E')}"
        answer = await api.ask("PUT", path, body={})
        if dag_id in ("..", "."):
            assert answer.status in (400, 404, 405)
        else:
            refused(answer, 400, 25, "dag_id")
            refused(await api.ask("GET", path), 404, 4)
            refused(await api.ask("POST", path + "/runs", body={}), 404, 4)
        assert await api.json("GET", "/dags") == {"dags": []}

    @each(
        ({"extra": 1}, "extra"),
        ([], "invalid"),
        ("x", "invalid"),
        ({"tasks": {}}, "tasks"),
        ({"tasks": "ab"}, "tasks"),
        ({"tasks": None}, "tasks"),
        ({"tasks": ["a"]}, "tasks.0"),
        ({"tasks": [{}]}, "tasks.0.task_id"),
        ({"tasks": [{"task_id": "a", "extra": 1}]}, "tasks.0.extra"),
        ({"tasks": [{"task_id": "a"}, {"task_id": "a"}]}, "twice"),
        ({"tasks": [{"task_id": "a", "result": "yes"}]}, "tasks.0.result"),
        ({"tasks": [{"task_id": "a", "result": 1}]}, "tasks.0.result"),
        ({"tasks": [{"task_id": "a", "mapped": None}]}, "tasks.0.mapped"),
        ({"tasks": [{"task_id": f"t{n}"} for n in range(MAX_DAG_TASKS + 1)]}, "tasks"),
        ({"retries": -1}, "retries"),
        ({"retries": MAX_RETRIES + 1}, "retries"),
        ({"retries": "1"}, "retries"),
        ({"retries": 1.0}, "retries"),
        ({"retries": True}, "retries"),
        ({"retries": None}, "retries"),
        ({"display_name": "x" * 201}, "display_name"),
        ({"display_name": "a\0b"}, "display_name"),
        ({"display_name": None}, "display_name"),
        *(({"tasks": [{"task_id": bad}]}, "tasks.0.task_id") for bad in BAD_KEYS),
    )
    async def test_a_body_that_cannot_be_used(self, api: Api, body: Any, word: str) -> None:
        refused(await api.ask("PUT", "/dags/etl", body=body), 400, 87, word)
        refused(await api.ask("GET", "/dags/etl"), 404, 4)

    async def test_a_body_that_is_no_json(self, api: Api) -> None:
        for data in (b"{", b"\xff", b"{'a':1}", b'{"retries":NaN}', b'{"a":1}{}', b"[" * 5000):
            headers = {"Content-Type": "application/json"}
            refused(await api.ask("PUT", "/dags/etl", data=data, headers=headers), 400, 121)
        refused(await api.ask("PUT", "/dags/etl", data=b"{}", headers={"Content-Type": "text/plain"}), 415, 87)


class TestTriggering:
    @each(
        ({"extra": 1}, "extra"),
        ({"run_id": "mine"}, "run_id"),
        ({"conf": None}, "conf"),
        ({"conf": []}, "conf"),
        ({"conf": "x"}, "conf"),
        ({"conf": {"deep": DEEP}}, "conf"),
        ({"tag": 7}, "tag"),
        ({"tag": "x" * 201}, "tag"),
        ({"tag": "a\0b"}, "tag"),
        ({"tag": ""}, "tag"),
        ({"tag": ".."}, "tag"),
        ({"tag": "0198F7A2-1111-7222-8333-444455556666"}, "tag"),
        ({"note": ["x"]}, "note"),
        ({"note": "x" * (MAX_ERROR_LENGTH + 1)}, "note"),
    )
    async def test_a_body_that_cannot_be_used(self, api: Api, body: Any, word: str) -> None:
        await register(api)
        refused(await api.ask("POST", "/dags/etl/runs", body=body), 400, 87, word)
        assert (await api.ask("POST", "/runs/claim", body={})).status == 204

    async def test_a_conf_that_is_too_large(self, api: Api) -> None:
        await register(api)
        refused(await api.ask("POST", "/dags/etl/runs", body={"conf": {"a": "x" * 2**20}}), 413, 1010, "conf")
        assert (await api.ask("POST", "/runs/claim", body={})).status == 204

    async def test_a_dag_that_does_not_exist(self, api: Api) -> None:
        refused(await api.ask("POST", "/dags/nothing/runs", body={}), 404, 4, "nothing")


class TestClaiming:
    @pytest.mark.parametrize("wait", ["-1", "56", "x", "1.5", "", "1e1"])
    async def test_a_wait_that_is_none(self, api: Api, wait: str) -> None:
        await queued(api)
        refused(await api.ask("POST", "/runs/claim", body={}, wait=wait), 400, 25, "wait", "55")

    @each(
        ({"extra": 1}, "extra"),
        ({"dags": "etl"}, "dags"),
        ({"dags": None}, "dags"),
        ({"dags": ["a"] * (MAX_CLAIM_DAGS + 1)}, "dags"),
        ({"lease": 0}, "lease"),
        ({"lease": -1}, "lease"),
        ({"lease": MAX_LEASE + 1}, "lease"),
        ({"lease": "30"}, "lease"),
        ({"lease": True}, "lease"),
        ({"lease": None}, "lease"),
        ({"claim": "x" * 15}, "claim"),
        ({"claim": "x" * 201}, "claim"),
        ({"claim": "x" * 20 + "\0"}, "claim"),
        ({"claim": 7}, "claim"),
        *(({"dags": ["a", bad]}, "dags.1") for bad in BAD_KEYS),
    )
    async def test_a_body_that_cannot_be_used(self, api: Api, body: Any, word: str) -> None:
        run_id = await queued(api)
        refused(await api.ask("POST", "/runs/claim", body=body), 400, 87, word)
        assert (await run_of(api, run_id))["state"] == "queued"


class TestWorking:
    @pytest.mark.parametrize(
        ("path", "body", "word"),
        [
            ("tasks", {}, "task_id"),
            ("tasks", {"task_id": "a", "extra": 1}, "extra"),
            ("tasks", {"task_id": "a", "map_index": -2}, "map_index"),
            ("tasks", {"task_id": "a", "map_index": MAX_MAP_INDEX + 1}, "map_index"),
            ("tasks", {"task_id": "a", "map_index": "0"}, "map_index"),
            ("tasks", {"task_id": "a", "try_number": 0}, "try_number"),
            ("tasks", {"task_id": "a", "try_number": MAX_RETRIES + 2}, "try_number"),
            ("tasks", {"task_id": "a", "claim": 7}, "claim"),
            ("tasks", {"task_id": "a", "id": "a/b"}, "id"),
            ("tasks", {"task_id": "a", "lease": 0}, "lease"),
            *(("tasks", {"task_id": bad}, "task_id") for bad in BAD_KEYS),
            ("heartbeat", {}, "claim"),
            ("heartbeat", {"claim": None}, "claim"),
            ("heartbeat", {"claim": CLAIM, "lease": 3}, "lease"),
            ("finish", {"state": "queued"}, "state"),
            ("finish", {"state": "cancelled"}, "state"),
            ("finish", {"state": True}, "state"),
            ("finish", {"error": 7}, "error"),
            ("finish", {"error": "x" * (MAX_ERROR_LENGTH + 1)}, "error"),
            ("finish", {"error": "a\0b"}, "error"),
            ("finish", {"claim": []}, "claim"),
            ("finish", {"extra": 1}, "extra"),
        ],
    )
    async def test_a_body_that_cannot_be_used(self, api: Api, path: str, body: Any, word: str) -> None:
        run_id = await claimed(api)
        if path != "heartbeat" and isinstance(body, dict):
            body = {"claim": CLAIM, **body}
        refused(await api.ask("POST", f"/runs/{run_id}/{path}", body=body), 400, 87, word)
        run = await run_of(api, run_id)
        assert (run["state"], run["tasks"]) == ("running", [])

    @pytest.mark.parametrize("run_id", [NOBODYS, "x", "7", "%00", "..%2F..", "a%2Fb", "%C3%A9", "%FF", "x" * 2000])
    async def test_a_run_that_does_not_exist(self, api: Api, run_id: str) -> None:
        bodies = {"tasks": {"task_id": "a"}, "heartbeat": {"claim": CLAIM}, "finish": {}, "cancel": None}
        for path, body in bodies.items():
            refused(await api.ask("POST", f"/runs/{run_id}/{path}", body=body), 404, 4, "no run")
        for method in ("GET", "HEAD", "DELETE"):
            refused(await api.ask(method, f"/runs/{run_id}"), 404, 4, "no run")

    async def test_a_name_of_a_run_is_no_id(self, api: Api) -> None:
        await register(api)
        run = await trigger(api, tag="nightly")
        for name in (run["run_id"], "nightly"):
            refused(await api.ask("GET", f"/runs/{quote(name, safe='')}"), 404, 4)


BODIES = {
    "tasks": {"task_id": "a", "claim": CLAIM},
    **{step: {"claim": CLAIM} for step in ("heartbeat", "finish", "release")},
}


@pytest.mark.parametrize("prefix", [V1, CONNECT])
@pytest.mark.parametrize("route", RUN_AND_DAG_ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_what_belongs_to_others_does_not_exist(admin: Api, api: Api, prefix: str, route: Route) -> None:
    run_id = await claimed(api)
    before = await run_of(api, run_id)
    bob = await admin.with_key("bob", prefix=prefix)
    body = BODIES.get(route.path.rpartition("/")[2])
    theirs = await bob.ask(route.method, route.path.format(id=run_id, dag_id="etl"), body=body)
    if (route.method, route.path) == ("PUT", "/dags/{dag_id}"):
        refused(theirs, 409, 1006)  # its id is taken, as that of a task is
    else:
        refused(theirs, 404, 4)
        nobodys = await bob.ask(route.method, route.path.format(id=NOBODYS, dag_id="nob"), body=body)
        assert theirs.body.replace(run_id.encode(), NOBODYS.encode()).replace(b"etl", b"nob") == nobodys.body
    assert await run_of(api, run_id) == before
    admins = await admin.under(prefix).ask(route.method, route.path.format(id=run_id, dag_id="etl"), body=body)
    assert admins.status in (200, 201, 202, 204, 409)
