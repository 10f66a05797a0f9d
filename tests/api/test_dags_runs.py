"""PROTOCOLS.md, A6: dags are registered, runs of them triggered, claimed, worked on and ended."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from taskserver.model import MICROSECONDS, now_us
from tests.api.conversation import CONNECT, V1, Api, refused
from tests.api.stream_client import LIMIT
from tests.api.work import CLAIM, TASKS, add_task, claim, claimed, queued, register, run_of, trigger
from tests.eventually import eventually

RUN_FIELDS = [
    "id", "dag_id", "run_id", "state", "finished", "error", "conf", "metadata", "tag", "note", "attempt", "queued_at",
    "run_after", "started_at", "finished_at", "cancel_requested",
]  # fmt: skip

LONG = 3600 * MICROSECONDS  # longer than any lease


class TestDags:
    @pytest.mark.parametrize("prefix", [V1, CONNECT])
    async def test_a_dag_is_shown_as_it_was_registered(self, api: Api, prefix: str) -> None:
        api = api.under(prefix)
        dag = await register(api, display_name="Nightly load", retries=3)
        assert uuid.UUID(dag["config_id"])
        assert dag["created_at"] == dag["updated_at"]
        times = {name: dag[name] for name in ("config_id", "created_at", "updated_at")}
        assert dag == {"dag_id": "etl", "display_name": "Nightly load", "retries": 3, "tasks": TASKS, **times}
        assert await api.json("GET", "/dags/etl") == dag
        assert await api.json("GET", "/dags") == {"dags": [dag]}

    async def test_nothing_need_be_said(self, api: Api) -> None:
        dag = await api.json("PUT", "/dags/etl")
        assert (dag["display_name"], dag["retries"], dag["tasks"]) == ("etl", 0, [])
        (task,) = (await api.json("PUT", "/dags/etl", body={"tasks": [{"task_id": "a"}]}))["tasks"]
        assert task == {"task_id": "a", "result": False, "mapped": False}

    async def test_registering_again_replaces_it(self, api: Api) -> None:
        before = await register(api, retries=3)
        after = await register(api, tasks=[])
        assert (after["retries"], after["tasks"]) == (0, [])
        assert (after["config_id"], after["created_at"]) == (before["config_id"], before["created_at"])
        assert after["updated_at"] > before["updated_at"]

    @pytest.mark.parametrize("dag_id", ["a", "A.b-c_9", "größe", "数据", "...", "x" * 250])
    async def test_ids(self, api: Api, dag_id: str) -> None:
        assert (await register(api, dag_id))["dag_id"] == dag_id
        assert (await trigger(api, dag_id))["dag_id"] == dag_id

    async def test_each_owner_has_its_own(self, admin: Api, api: Api) -> None:
        bob = await admin.with_key("bob")
        await register(bob, "bobs")
        await register(api, "anns")
        assert [dag["dag_id"] for dag in (await api.json("GET", "/dags"))["dags"]] == ["anns"]
        assert [dag["dag_id"] for dag in (await admin.json("GET", "/dags"))["dags"]] == ["anns", "bobs"]

    async def test_anothers_id_is_taken(self, admin: Api, api: Api) -> None:
        dag = await register(api, retries=3)
        bob = await admin.with_key("bob")
        assert refused(await bob.ask("PUT", "/dags/etl", body={}), 409, 1006, "etl") == {"dag_id": "etl"}
        assert await api.json("GET", "/dags/etl") == dag


class TestTriggering:
    async def test_a_run_is_queued(self, api: Api) -> None:
        await register(api)
        conf = {"day": "2026-11-20", "odd": [None, 1.5, {"": "\u2028\0"}]}
        run = await trigger(api, conf=conf, tag="nightly", note="a note")
        assert list(run) == RUN_FIELDS
        assert uuid.UUID(run["id"]).version == 7
        assert run["run_id"].startswith("manual__")
        assert (run["dag_id"], run["state"], run["finished"], run["error"]) == ("etl", "queued", False, "")
        assert (run["conf"], run["metadata"], run["tag"], run["note"]) == (conf, None, "nightly", "a note")
        assert (run["attempt"], run["started_at"], run["finished_at"]) == (0, None, None)
        assert run["run_after"] == run["queued_at"]
        assert await run_of(api, run["id"]) == {**run, "tasks": []}

    async def test_nothing_need_be_said(self, api: Api) -> None:
        await register(api)
        run = await api.json("POST", "/dags/etl/runs", status=201)
        assert (run["conf"], run["tag"], run["note"]) == ({}, None, None)
        again = await api.json("POST", "/dags/etl/runs", status=201, body={"tag": None, "note": None})
        assert again["id"] > run["id"]

    async def test_what_is_nested_as_deep_as_can_be_is_shown_everywhere(self, api: Api) -> None:
        await register(api)
        conf: Any = 1
        for _ in range(252):
            conf = {"a": conf}
        run = await trigger(api, conf=conf)
        assert (await run_of(api, run["id"]))["conf"] == conf
        assert (await claim(api))["conf"] == conf

    async def test_runs_that_are_triggered_at_the_same_moment_are_all_kept(self, api: Api) -> None:
        await register(api)
        runs = await asyncio.gather(*(trigger(api) for _ in range(50)))
        assert len({run["id"] for run in runs}) == len({run["run_id"] for run in runs}) == 50


class TestClaiming:
    async def test_the_run_and_the_proof_are_given(self, api: Api) -> None:
        run_id = await queued(api)
        run = await api.json("POST", "/runs/claim")
        assert list(run) == [*RUN_FIELDS, "claim"]
        assert (run["id"], run["state"], run["attempt"]) == (run_id, "running", 1)
        assert len(run["claim"]) >= 16
        shown = await run_of(api, run_id)
        assert "claim" not in shown
        assert run["claim"] not in str(shown)

    async def test_without_a_run_there_is_no_content(self, api: Api) -> None:
        answer = await api.ask("POST", "/runs/claim", body={})
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["Cache-Control"] == "no-store"

    async def test_a_claim_waits_for_a_run(self, api: Api) -> None:
        await register(api)
        claiming = api.begin("POST", "/runs/claim", body={}, wait=20)
        await eventually(lambda: api.services.waits.count == 1)
        run = await trigger(api)
        answer = await asyncio.wait_for(claiming, LIMIT)
        assert (answer.status, answer.json["id"]) == (200, run["id"])

    async def test_when_the_time_is_up_there_is_none(self, api: Api) -> None:
        assert (await api.ask("POST", "/runs/claim", body={}, wait=1)).status == 204

    async def test_a_drain_answers_at_once(self, api: Api) -> None:
        claiming = api.begin("POST", "/runs/claim", body={}, wait=55)
        await eventually(lambda: api.services.waits.count == 1)
        api.services.waits.drain()
        assert (await asyncio.wait_for(claiming, LIMIT)).status == 204

    async def test_a_lost_answer_is_asked_for_again(self, api: Api) -> None:
        run_id = await claimed(api)
        await trigger(api)
        assert (await claim(api))["id"] == run_id
        assert (await claim(api))["attempt"] == 1

    async def test_only_the_dags_that_are_named_are_given(self, api: Api) -> None:
        await queued(api, "a")
        run_id = await queued(api, "b")
        assert (await api.ask("POST", "/runs/claim", body={"dags": ["c"]})).status == 204
        assert (await claim(api, dags=["b", "c"]))["id"] == run_id

    async def test_nobody_gets_anothers_run(self, admin: Api, api: Api) -> None:
        run_id = await claimed(api)
        await trigger(api)
        bob = await admin.with_key("bob")
        assert (await bob.ask("POST", "/runs/claim", body={"claim": CLAIM})).status == 204
        assert (await claim(api))["id"] == run_id

    async def test_heartbeats_tell_of_a_cancel_request(self, api: Api) -> None:
        run_id = await claimed(api)
        beat = {"claim": CLAIM}
        assert await api.json("POST", f"/runs/{run_id}/heartbeat", body=beat) == {"cancel_requested": False}
        assert (await api.json("POST", f"/runs/{run_id}/cancel"))["state"] == "running"
        assert await api.json("POST", f"/runs/{run_id}/heartbeat", body=beat) == {"cancel_requested": True}

    async def test_a_run_whose_claimant_is_lost_is_offered_again_and_then_interrupted(self, api: Api) -> None:
        run_id = await queued(api, retries=1)
        await claim(api)
        task = await add_task(api, run_id)
        claiming = api.begin("POST", "/runs/claim", body={"claim": CLAIM + "2"}, wait=20)
        await eventually(lambda: api.services.waits.count == 1)
        await api.services.store.expire_runs(now_us() + LONG)
        second = (await claiming).json
        assert (second["id"], second["attempt"]) == (run_id, 2)
        lost = await api.task(task["id"])
        assert (lost["state"], lost["code"]) == ("interrupted", 255)
        assert lost["error"].startswith("claimant lost")
        refused(await api.ask("POST", f"/runs/{run_id}/heartbeat", body={"claim": CLAIM}), 409, 1009)
        again = await add_task(api, run_id, claim=CLAIM + "2", try_number=2)
        await api.services.store.expire_runs(now_us() + LONG)
        assert (await api.task(again["id"]))["state"] == "interrupted"
        run = await run_of(api, run_id)
        assert (run["state"], run["finished"], run["attempt"]) == ("interrupted", True, 2)
        assert run["error"].startswith("claimant lost")


class TestTasks:
    async def test_a_task_is_created_in_its_place(self, api: Api) -> None:
        run_id = await claimed(api)
        task = await add_task(api, run_id, "load", map_index=3, try_number=2, labels={"a": "b"}, lease=60)
        assert (task["name"], task["state"], task["labels"], task["lease"]) == ("load", "queued", {"a": "b"}, 60.0)
        assert task["run"] == {"id": run_id, "task_id": "load", "map_index": 3, "try_number": 2}
        assert await api.task(task["id"]) == task
        (shown,) = (await run_of(api, run_id))["tasks"]
        assert shown == {name: value for name, value in task.items() if name not in ("output", "result")}

    async def test_it_is_a_task_as_any_other(self, api: Api) -> None:
        run_id = await claimed(api)
        task_id = (await add_task(api, run_id, id="mine", name="my name"))["id"]
        assert task_id == "mine"
        await api.append(task_id, "a")
        await api.finish(task_id, output=["b"], result={"type": "json", "data": [1]})
        assert await api.lines(task_id) == ["a", "b"]
        assert [task["id"] for task in (await api.json("GET", "/tasks"))["tasks"]] == ["mine"]

    async def test_a_place_is_taken_once(self, api: Api) -> None:
        run_id = await claimed(api)
        task = await add_task(api, run_id)
        body = {"task_id": "extract", "claim": CLAIM}
        answer = await api.ask("POST", f"/runs/{run_id}/tasks", body=body)
        assert refused(answer, 409, 1001, "extract") == {"id": task["id"]}

    async def test_an_unclaimed_run_runs_with_its_first_task_and_ends_by_a_word(self, api: Api) -> None:
        run_id = await queued(api)
        task = await add_task(api, run_id, claim=None)
        assert (await run_of(api, run_id))["state"] == "queued"
        await api.append(task["id"], "a")
        assert (await run_of(api, run_id))["state"] == "running"
        await api.finish(task["id"])
        assert (await api.json("POST", f"/runs/{run_id}/finish"))["state"] == "success"


class TestEnding:
    @pytest.mark.parametrize(
        ("word", "state", "error"),
        [
            ({}, "success", ""),
            ({"state": "success"}, "success", ""),
            ({"state": "failed", "error": "no disk"}, "failed", "no disk"),
            ({"state": None}, "success", ""),
        ],
    )
    async def test_it_ends_as_its_claimant_says(self, api: Api, word: Any, state: str, error: str) -> None:
        run_id = await claimed(api)
        run = await api.json("POST", f"/runs/{run_id}/finish", body={"claim": CLAIM, **word})
        assert (run["state"], run["finished"], run["error"]) == (state, True, error)
        assert run["finished_at"] >= run["started_at"]
        assert await api.json("POST", f"/runs/{run_id}/finish", body={"claim": CLAIM, **word}) == run
        assert await run_of(api, run_id) == {**run, "tasks": []}

    async def test_a_failed_task_fails_it(self, api: Api) -> None:
        run_id = await claimed(api)
        await api.finish((await add_task(api, run_id))["id"], code=1)
        run = await api.json("POST", f"/runs/{run_id}/finish", body={"claim": CLAIM})
        assert run["state"] == "failed"

    async def test_while_tasks_run_it_must_be_said(self, api: Api) -> None:
        run_id = await claimed(api)
        await add_task(api, run_id)
        refused(await api.ask("POST", f"/runs/{run_id}/finish", body={"claim": CLAIM}), 409, 1011, "still run")
        run = await api.json("POST", f"/runs/{run_id}/finish", body={"claim": CLAIM, "state": "failed"})
        assert run["state"] == "failed"

    async def test_only_its_claimant_may(self, api: Api) -> None:
        run_id = await claimed(api)
        for secret in (None, CLAIM + "x"):
            answer = await api.ask("POST", f"/runs/{run_id}/finish", body={"claim": secret})
            assert refused(answer, 409, 1009) == {"state": "running"}
            body = {"task_id": "extract", "claim": secret}
            refused(await api.ask("POST", f"/runs/{run_id}/tasks", body=body), 409, 1009)

    async def test_after_the_end_nothing_more_is_taken(self, api: Api) -> None:
        run_id = await claimed(api)
        await api.json("POST", f"/runs/{run_id}/finish", body={"claim": CLAIM})
        for path, body in (
            ("heartbeat", {"claim": CLAIM}),
            ("tasks", {"claim": CLAIM, "task_id": "x"}),
            ("finish", {"claim": CLAIM, "state": "failed"}),
            ("finish", {"claim": CLAIM, "error": "other"}),
        ):
            answer = await api.ask("POST", f"/runs/{run_id}/{path}", body=body)
            assert refused(answer, 409, 1008, "success") == {"state": "success"}

    async def test_a_queued_run_is_cancelled_at_once(self, api: Api) -> None:
        run_id = await queued(api)
        task = await add_task(api, run_id, claim=None)
        run = await api.json("POST", f"/runs/{run_id}/cancel")
        assert (run["state"], run["cancel_requested"]) == ("cancelled", True)
        assert (await api.task(task["id"]))["state"] == "cancelled"
        assert await api.json("POST", f"/runs/{run_id}/cancel") == run
        assert (await api.ask("POST", "/runs/claim", body={})).status == 204

    async def test_a_running_one_is_asked_to_stop_and_then_is_cancelled(self, api: Api) -> None:
        run_id = await claimed(api)
        task_id = (await add_task(api, run_id))["id"]
        await api.append(task_id, "a")
        await api.json("POST", f"/runs/{run_id}/cancel")
        assert (await api.append(task_id, "b"))["cancel_requested"]
        assert (await api.finish(task_id, code=1))["state"] == "cancelled"
        run = await api.json("POST", f"/runs/{run_id}/finish", body={"claim": CLAIM})
        assert run["state"] == "cancelled"

    async def test_it_is_deleted_with_all_that_is_its_own(self, api: Api) -> None:
        run_id = await claimed(api)
        task_id = (await add_task(api, run_id))["id"]
        await api.append(task_id, "a")
        async with api.waiting(f"/tasks/{task_id}", wait=20) as waiting:
            answer = await api.ask("DELETE", f"/runs/{run_id}")
            assert (answer.status, answer.body) == (204, b"")
            refused(await asyncio.wait_for(waiting, LIMIT), 404, 4)
        for method, path in (
            ("GET", f"/runs/{run_id}"),
            ("DELETE", f"/runs/{run_id}"),
            ("GET", f"/tasks/{task_id}"),
            ("GET", f"/tasks/{task_id}/output"),
        ):
            refused(await api.ask(method, path), 404, 4)
        refused(await api.ask("POST", f"/runs/{run_id}/heartbeat", body={"claim": CLAIM}), 404, 4)
        assert (await api.json("GET", "/tasks"))["tasks"] == []
