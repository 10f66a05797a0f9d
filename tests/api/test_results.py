"""PROTOCOLS.md, A6: a dag is called like a function, and what comes out is waited for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskserver.config import Limits, Settings
from taskserver.model import Scope
from tests.api.conftest import Serve
from tests.api.conversation import CONNECT, V1, Answer, Api, refused
from tests.api.work import CLAIM, add_task, claim, queued, register
from tests.eventually import eventually

FIELDS = ["id", "dag_id", "run_id", "state", "finished", "error", "results"]


async def work(api: Api, value: Any = 84, state: str | None = None, error: str = "") -> None:
    """Claim the run that is due, do its tasks and end it."""
    run = (await claim(api))["id"]
    task = await add_task(api, run, "load")
    await api.finish(task["id"], result={"type": "json", "data": value})
    await api.json("POST", f"/runs/{run}/finish", body={"claim": CLAIM, "state": state, "error": error})


def call(api: Api, wait: int = 20, headers: dict[str, str] | None = None, **wish: Any) -> asyncio.Task[Answer]:
    return api.begin("POST", f"/dags/etl/run?wait={wait}", body=wish, headers=headers)


async def waiting(api: Api) -> None:
    await eventually(lambda: api.services.waits.count > 0, "the wait")


@pytest.mark.parametrize("prefix", [V1, CONNECT])
async def test_a_call_is_answered_with_the_result(api: Api, prefix: str) -> None:
    api = api.under(prefix)
    await register(api)
    calling = call(api, conf={"n": 42})
    await waiting(api)
    await work(api)
    answer = await calling
    assert answer.status == 200
    assert list(answer.json) == FIELDS
    told = {name: answer.json[name] for name in ("dag_id", "state", "finished", "error", "results")}
    assert told == {"dag_id": "etl", "state": "success", "finished": True, "error": "", "results": {"load": 84}}
    assert await api.json("GET", f"/runs/{answer.json['id']}/result") == answer.json
    assert (await api.json("GET", f"/runs/{answer.json['id']}"))["conf"] == {"n": 42}


async def test_a_failure_is_an_answer_too_with_what_came_out_before(api: Api) -> None:
    await register(api)
    calling = call(api)
    await waiting(api)
    await work(api, 1, "failed", "load is not enough")
    answer = await calling
    assert answer.status == 200
    assert (answer.json["state"], answer.json["error"]) == ("failed", "load is not enough")
    assert answer.json["results"] == {"load": 1}


@pytest.mark.parametrize("prefix", [V1, CONNECT])
async def test_a_run_that_takes_longer_is_waited_for_elsewhere(api: Api, prefix: str) -> None:
    api = api.under(prefix)
    await register(api)
    answer = await api.ask("POST", "/dags/etl/run", body={})
    assert (answer.status, answer.json["state"], answer.json["results"]) == (202, "queued", {})
    assert answer.headers["Location"] == f"{prefix}/runs/{answer.json['id']}/result"
    path = f"/runs/{answer.json['id']}/result"
    async with api.waiting(path, wait=20) as asking:
        await work(api)
    assert (asking.result().status, asking.result().json["results"]) == (200, {"load": 84})


async def test_prefer_counts_where_wait_is_absent(api: Api) -> None:
    await register(api)
    prefer = {"Prefer": "respond-async, wait=20"}
    calling = api.begin("POST", "/dags/etl/run", body={}, headers=prefer)
    await waiting(api)
    await work(api)
    answer = await calling
    assert (answer.status, answer.headers["Preference-Applied"]) == (200, "wait=20")
    now = await api.ask("POST", "/dags/etl/run?wait=0", body={}, headers=prefer)
    assert (now.status, "Preference-Applied" in now.headers) == (202, False)


async def test_a_shutdown_answers_with_202(api: Api) -> None:
    await register(api)
    calling = call(api)
    await waiting(api)
    api.services.waits.drain()
    assert (await calling).status == 202


async def test_without_a_place_to_wait_the_run_that_was_triggered_is_told_all_the_same(serve: Serve) -> None:
    api = await serve(Settings(limits=Limits(waiters_per_key=1)))
    await register(api)
    task_id = await api.create()
    async with api.waiting(f"/tasks/{task_id}", wait=20):
        for wait, headers in (("?wait=20", {}), ("", {"Prefer": "wait=20"})):
            answer = await api.ask("POST", f"/dags/etl/run{wait}", body={}, headers=headers)
            assert (answer.status, answer.json["state"]) == (202, "queued")
            assert "Preference-Applied" not in answer.headers, "it was not waited for"
            assert answer.headers["Location"] == f"{V1}/runs/{answer.json['id']}/result"
            refused(await api.ask("GET", f"/runs/{answer.json['id']}/result", wait=1), 429, 1020)
        await api.finish(task_id)


class TestIdempotency:
    KEY = {"Idempotency-Key": '"8e03978e-40d5"'}  # noqa: RUF012

    async def test_a_repeat_is_answered_with_the_same_run(self, api: Api) -> None:
        await register(api)
        first = await call(api, 0, self.KEY, conf={"n": 1})
        again = call(api, 20, self.KEY, conf={"n": 1})
        await waiting(api)
        await work(api)
        assert ((await again).status, (await again).json["id"]) == (200, first.json["id"])
        assert (await api.ask("POST", "/runs/claim", body={})).status == 204, "there was one run"

    async def test_triggering_knows_it_too(self, api: Api) -> None:
        await register(api)
        runs = [await api.json("POST", "/dags/etl/runs", status=201, body={}, headers=self.KEY) for _ in range(2)]
        assert runs[0] == runs[1]

    async def test_other_words_with_the_same_key_are_refused(self, api: Api) -> None:
        await register(api)
        await call(api, 0, self.KEY, conf={"n": 1})
        payload = refused(await call(api, 0, self.KEY, conf={"n": 2}), 409, 1007, "idempotency key")
        assert payload["dag_id"] == "etl"

    async def test_each_dag_has_its_own(self, api: Api) -> None:
        await register(api)
        await register(api, "other")
        first = await call(api, 0, self.KEY)
        other = await api.ask("POST", "/dags/other/run", body={}, headers=self.KEY)
        assert (other.status, first.json["id"] != other.json["id"]) == (202, True)

    async def test_its_length_is_bounded(self, api: Api) -> None:
        await register(api)
        refused(await call(api, 0, {"Idempotency-Key": "x" * 201}), 400, 25, "Idempotency-Key")


class TestRefusals:
    async def test_what_is_not_there_or_not_valid(self, api: Api) -> None:
        refused(await call(api), 404, 4, "etl")
        await register(api)
        refused(await call(api, 56), 400, 25, "wait")
        refused(await api.ask("POST", "/dags/etl/run", body={"cnf": {}}), 400, 87, "cnf")
        refused(await api.ask("GET", "/runs/none/result"), 404, 4)

    async def test_it_needs_both_scopes_before_anything_is_queued(self, admin: Api) -> None:
        await register(admin)
        writer = await admin.with_key("w", Scope.WRITE, owner="root")
        refused(await call(writer), 403, 22, "read")
        reader = await admin.with_key("r", Scope.READ, owner="root")
        refused(await call(reader), 403, 22, "write")
        assert (await admin.ask("POST", "/runs/claim", body={})).status == 204

    async def test_anothers_run_does_not_exist(self, admin: Api, api: Api) -> None:
        run = await queued(api)
        bob = await admin.with_key("bob")
        refused(await bob.ask("GET", f"/runs/{run}/result"), 404, 4)


async def test_a_run_is_given_back(api: Api) -> None:
    run = await queued(api)
    await claim(api)
    back = await api.json("POST", f"/runs/{run}/release", body={"claim": CLAIM})
    assert (back["state"], back["attempt"]) == ("queued", 1)
    refused(await api.ask("POST", f"/runs/{run}/release", body={"claim": CLAIM}), 409, 1009)
    assert (await claim(api))["id"] == run
