"""PROTOCOLS.md, C1 and C2: create an execution, look at it by id or tag."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any
from urllib.parse import quote

import pytest

from taskserver.model import Scope, now_us
from tests.api.executions.conversation import UNKNOWN, Api, moment, refused


async def test_a_new_execution_is_a_queued_run(api: Api) -> None:
    config_id = await api.config("etl")
    before = now_us() / 1e6
    answer = await api.json(
        "POST", "", status=201, body={"config_id": config_id, "tag": "nightly", "metadata": {"n": 1}}
    )
    assert list(answer) == ["id", "config_id", "status", "started_at", "completed_at", "tag"]
    assert uuid.UUID(answer["id"]).version == 7
    assert before <= moment(answer["started_at"]).timestamp() <= now_us() / 1e6
    assert answer["config_id"] == config_id
    assert (answer["status"], answer["completed_at"], answer["tag"]) == ("running", None, "nightly")
    run = await api.json("GET", f"/v1/runs/{answer['id']}")
    assert (run["dag_id"], run["run_id"], run["state"]) == ("etl", answer["id"], "queued")
    assert (run["metadata"], run["tag"]) == ({"n": 1}, "nightly")


async def test_only_the_configuration_is_needed(api: Api) -> None:
    answer = await api.json("POST", "", status=201, body={"config_id": await api.config()})
    assert answer["tag"] is None
    shown = await api.get(answer["id"])
    assert shown == {**answer, "metadata": None, "error_info": None}


async def test_null_stands_for_absent(api: Api) -> None:
    execution_id = await api.create(tag=None, metadata=None)
    shown = await api.get(execution_id)
    assert (shown["tag"], shown["metadata"]) == (None, None)


async def test_the_worker_that_claims_it_learns_what_was_asked_for(api: Api) -> None:
    execution_id = await api.create(metadata={"rows": [1, 2.5, None, {"ä": "\u2028"}]}, tag="nightly")
    run = await api.json("POST", "/v1/runs/claim", body={})
    assert run["id"] == execution_id
    assert run["metadata"] == {"rows": [1, 2.5, None, {"ä": "\u2028"}]}
    assert run["tag"] == "nightly"


async def test_executions_that_are_created_at_the_same_moment_are_all_kept(api: Api) -> None:
    config_id = await api.config()
    ids = await asyncio.gather(*(api.create(config_id=config_id) for _ in range(50)))
    assert len(set(ids)) == 50


async def test_a_registered_configuration_keeps_its_id(api: Api) -> None:
    first = await api.config("etl")
    execution_id = await api.create(config_id=first)
    assert await api.config("etl", retries=3) == first
    assert (await api.get(execution_id))["config_id"] == first


# --- by id and by tag ----------------------------------------------------------


async def test_an_id_may_be_written_in_capitals_and_without_hyphens(api: Api) -> None:
    execution_id = await api.create()
    assert (await api.get(execution_id.upper()))["id"] == execution_id
    assert (await api.get(uuid.UUID(execution_id).hex))["id"] == execution_id


async def test_of_a_tag_the_newest_execution_counts(api: Api) -> None:
    first = await api.create(tag="nightly")
    other = await api.create(tag="weekly")
    assert (await api.get("nightly"))["id"] == first
    second = await api.create(tag="nightly")
    assert (await api.get("nightly"))["id"] == second
    assert (await api.get("weekly"))["id"] == other
    assert (await api.get(first))["tag"] == "nightly"


@pytest.mark.parametrize(
    "tag", ["a/b", "ä ö", "100%", "a?b#c", "%2F", "...", " ", "x" * 200, "🏁", "wait", "a\nb", "0" * 31]
)
async def test_a_tag_may_hold_any_character(api: Api, tag: str) -> None:
    execution_id = await api.create(tag=tag)
    shown = await api.get(quote(tag, safe=""))
    assert (shown["id"], shown["tag"]) == (execution_id, tag)


@pytest.mark.parametrize(
    "name",
    [str(uuid.UUID(int=7)), UNKNOWN.replace("-", ""), "nightly", "x" * 201, "a%00b", "..%2F..", "%F0%9F%8F%81", "%FF"],
)
async def test_an_unknown_id_or_tag_does_not_exist(api: Api, name: str) -> None:
    refused(await api.ask("GET", f"/{name}"), 404, "execution_not_found", "there is no execution")


# --- how it stands -------------------------------------------------------------


async def test_a_claimed_execution_still_runs(api: Api) -> None:
    execution_id = await api.create()
    created = await api.get(execution_id)
    await api.claim()
    assert await api.get(execution_id) == created


async def test_a_completed_execution(api: Api) -> None:
    shown = await api.get(await api.ended("success"))
    assert (shown["status"], shown["error_info"]) == ("completed", None)
    assert moment(shown["completed_at"]) > moment(shown["started_at"])


async def test_a_failed_execution_says_why(api: Api) -> None:
    execution_id = await api.create()
    work = await api.claim()
    await work.finish("failed", error="the disk is on fire")
    shown = await api.get(execution_id)
    assert (shown["status"], shown["error_info"]) == ("failed", {"message": "the disk is on fire"})


async def test_an_execution_that_failed_without_a_word_has_an_error_info_too(api: Api) -> None:
    assert (await api.get(await api.ended("failed")))["error_info"] == {"message": "execution failed"}


async def test_a_cancelled_execution(api: Api) -> None:
    execution_id = await api.create()
    await api.json("POST", f"/v1/runs/{execution_id}/cancel")
    shown = await api.get(execution_id)
    assert shown["status"] == "cancelled"
    assert "cancelled" in shown["error_info"]["message"]
    assert shown["completed_at"] is not None


async def test_an_execution_whose_worker_is_lost_is_interrupted(api: Api) -> None:
    execution_id = await api.create()
    await api.claim(lease=0.1)
    waited = await api.json("POST", f"/{execution_id}/wait", body={"timeout": 30})
    assert waited["status"] == "interrupted"
    shown = await api.get(execution_id)
    assert shown["status"] == "interrupted"
    assert "lost" in shown["error_info"]["message"]


# --- whose it is ---------------------------------------------------------------


async def test_executions_of_others_do_not_exist(admin: Api, api: Api) -> None:
    bob = await admin.with_key("bob")
    execution_id = await api.create(tag="nightly")
    for name in (execution_id, "nightly"):
        refused(await bob.ask("GET", f"/{name}"), 404, "execution_not_found", name)
        assert (await admin.get(name))["id"] == execution_id
    bobs = await bob.create(config_id=await bob.config("bobs"), tag="nightly")
    assert (await bob.get("nightly"))["id"] == bobs
    assert (await api.get("nightly"))["id"] == execution_id
    assert (await admin.get("nightly"))["id"] == bobs


async def test_configurations_of_others_do_not_exist(admin: Api, api: Api) -> None:
    bob = await admin.with_key("bob")
    config_id = await api.config()
    unknown = str(uuid.uuid4())
    for wish in (config_id, unknown):
        answer = await bob.ask("POST", "", body={"config_id": wish})
        refused(answer, 400, "config_not_found", f"there is no configuration '{wish}'")
    assert (await admin.json("POST", "", status=201, body={"config_id": config_id}))["config_id"] == config_id


@pytest.mark.parametrize(
    ("scope", "method", "path", "body", "status"),
    [
        (Scope.READ, "POST", "", {}, 403),
        (Scope.READ, "GET", "/x", None, 404),
        (Scope.READ, "POST", "/x/wait", {}, 404),
        (Scope.READ, "GET", "/x/events", None, 404),
        (Scope.READ, "GET", "/x/lineage", None, 404),
        (Scope.WRITE, "POST", "", {}, 422),
        (Scope.WRITE, "GET", "/x", None, 403),
        (Scope.WRITE, "POST", "/x/wait", {}, 403),
        (Scope.WRITE, "GET", "/x/events", None, 403),
        (Scope.WRITE, "GET", "/x/lineage", None, 403),
    ],
)
async def test_creating_needs_write_and_all_else_read(
    admin: Api, scope: Scope, method: str, path: str, body: Any, status: int
) -> None:
    client = await admin.with_key("carl", scope)
    answer = await client.ask(method, path, body=body)
    assert answer.status == status
    if status == 403:
        refused(answer, 403, "forbidden", "scope")
