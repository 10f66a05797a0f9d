"""PROTOCOLS.md, B2: dags and dag runs."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import pytest

from taskserver.model import Scope, now_us
from tests.api.airflow.conversation import DAG, Airflow, Work, detail, path_of, shown

RUN_KEYS = {
    "dag_run_id", "dag_id", "logical_date", "queued_at", "start_date", "end_date", "duration", "data_interval_start",
    "data_interval_end", "run_after", "last_scheduling_decision", "run_type", "state", "triggered_by",
    "triggering_user_name", "conf", "note", "dag_versions", "bundle_version", "dag_display_name", "partition_key",
    "partition_date",
}  # fmt: skip
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
GENERATED = re.compile(r"manual__\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00")


# --- triggering ------------------------------------------------------------------


async def test_a_run_is_triggered(airflow: Airflow) -> None:
    await airflow.dag()
    run = await airflow.trigger()
    assert set(run) == RUN_KEYS
    assert GENERATED.fullmatch(run["dag_run_id"])
    assert TIME.fullmatch(run["queued_at"])
    assert TIME.fullmatch(run["run_after"])
    assert {name: run[name] for name in RUN_KEYS - {"dag_run_id", "queued_at", "run_after"}} == {
        "dag_id": DAG,
        "logical_date": None,
        "start_date": None,
        "end_date": None,
        "duration": None,
        "data_interval_start": None,
        "data_interval_end": None,
        "last_scheduling_decision": None,
        "run_type": "manual",
        "state": "queued",
        "triggered_by": "rest_api",
        "triggering_user_name": "ann",
        "conf": {},
        "note": None,
        "dag_versions": [],
        "bundle_version": None,
        "dag_display_name": DAG,
        "partition_key": None,
        "partition_date": None,
    }
    assert await airflow.json("GET", path_of(run["dag_run_id"])) == run


async def test_what_the_caller_says_is_kept(airflow: Airflow) -> None:
    await airflow.dag()
    wish = {
        "dag_run_id": "a.b~C:1+2-3_4",
        "conf": {"n": [1, {"deep": None}], "\N{EURO SIGN}": 1.5},
        "note": "for \N{SNOWMAN}",
        "partition_key": "2026-11",
        "data_interval_start": "2026-11-01T00:00:00+01:00",
        "data_interval_end": "2026-11-02T00:00Z",
        "run_after": "2026-11-20T12:00:00",
    }
    run = await airflow.trigger(**wish)
    same = {"dag_run_id", "conf", "note", "partition_key"}
    assert {name: run[name] for name in same} == {name: wish[name] for name in same}
    assert run["data_interval_start"] == "2026-10-31T23:00:00.000000Z"
    assert run["data_interval_end"] == "2026-11-02T00:00:00.000000Z"
    assert run["run_after"] == "2026-11-20T12:00:00.000000Z"


async def test_null_counts_as_absent(airflow: Airflow) -> None:
    await airflow.dag()
    names = ("dag_run_id", "data_interval_start", "data_interval_end", "run_after", "conf", "note", "partition_key")
    run = await airflow.trigger(**dict.fromkeys(names))
    assert GENERATED.fullmatch(run["dag_run_id"])
    assert (run["conf"], run["note"]) == ({}, None)
    again = await airflow.trigger(dag_run_id="")
    assert GENERATED.fullmatch(again["dag_run_id"])
    assert again["dag_run_id"] != run["dag_run_id"]


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-11-20T19:41:59.830168Z", "2026-11-20T19:41:59.830168Z"),
        ("2026-11-20T19:41:59.830168999+00:00", "2026-11-20T19:41:59.830168Z"),
        ("2026-11-20 19:41-0330", "2026-11-20T23:11:00.000000Z"),
        ("2026-11-20t19:41:59,5z", "2026-11-20T19:41:59.500000Z"),
        ("2026-11-20T19:41:59+02", "2026-11-20T17:41:59.000000Z"),
        ("1969-07-20T20:17:40Z", "1969-07-20T20:17:40.000000Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
    ],
)
async def test_a_logical_date_is_an_interval_and_a_time_to_run(airflow: Airflow, text: str, utc: str) -> None:
    await airflow.dag()
    run = await airflow.trigger(logical_date=text)
    assert {run[name] for name in ("logical_date", "data_interval_start", "data_interval_end", "run_after")} == {utc}


async def test_a_run_is_not_offered_before_its_time(airflow: Airflow) -> None:
    await airflow.dag()
    now = datetime.fromtimestamp(now_us() / 1e6).astimezone()
    await airflow.trigger(run_after=(now + timedelta(hours=1)).isoformat())
    assert (await airflow.api.ask("POST", "/runs/claim", body={})).status == 204


async def test_an_id_or_a_logical_date_is_taken_once(airflow: Airflow) -> None:
    await airflow.dag()
    await airflow.dag(dag_id="other")
    first = await airflow.trigger(dag_run_id="one", logical_date="2026-11-20T12:00:00Z")
    for wish in ({"dag_run_id": "one"}, {"logical_date": "2026-11-20T14:00:00+02:00"}):
        answer = await airflow.ask("POST", f"/dags/{DAG}/dagRuns", body={"logical_date": None, **wish})
        conflict = detail(answer, 409)
        assert conflict["reason"] == "Unique constraint violation"
        assert set(conflict) == {"reason", "statement", "orig_error", "message"}
    assert await airflow.trigger("other", dag_run_id="one", logical_date="2026-11-20T12:00:00Z")
    assert (await airflow.json("GET", f"/dags/{DAG}/dagRuns"))["dag_runs"] == [first]


async def test_the_dag_must_be_there_and_the_callers(airflow: Airflow, airflow_admin: Airflow) -> None:
    bob = await airflow_admin.with_key("bob")
    await bob.dag()
    answer = await airflow.ask("POST", f"/dags/{DAG}/dagRuns", body={"logical_date": None})
    assert detail(answer, 404) == f"Dag with dag_id: '{DAG}' not found"
    assert (await airflow_admin.trigger())["triggering_user_name"] == "root"


# --- showing ---------------------------------------------------------------------


async def test_a_run_shows_how_it_goes(airflow: Airflow) -> None:
    work = await airflow.begin()
    run = await airflow.json("GET", work.path)
    assert run["state"] == "running"
    assert TIME.fullmatch(run["start_date"])
    assert (run["end_date"], run["duration"]) == (None, None)
    await work.finish("failed")
    run = await airflow.json("GET", work.path)
    assert run["state"] == "failed"
    start, end = (datetime.fromisoformat(run[name].removesuffix("Z")) for name in ("start_date", "end_date"))
    assert run["duration"] == pytest.approx((end - start).total_seconds())


async def test_what_airflow_has_no_word_for_has_failed(airflow: Airflow) -> None:
    await airflow.dag()
    queued = await airflow.trigger()
    (run,) = (await airflow.json("GET", f"/dags/{DAG}/dagRuns"))["dag_runs"]
    assert run == queued
    claimed = await airflow.api.json("POST", "/runs/claim", body={})
    work = Work(airflow, claimed["id"], claimed["run_id"], claimed["claim"])
    await airflow.api.json("POST", f"/runs/{work.id}/cancel")
    await work.finish("failed")
    assert (await airflow.api.json("GET", f"/runs/{work.id}"))["state"] == "cancelled"
    assert (await airflow.json("GET", work.path))["state"] == "failed"


async def test_runs_are_listed_by_pages(airflow: Airflow) -> None:
    await airflow.dag()
    await airflow.dag(dag_id="other")
    await airflow.trigger("other")
    ids = [(await airflow.trigger(dag_run_id=f"run{number}"))["dag_run_id"] for number in range(5)]

    async def page(**query: Any) -> list[str]:
        found = await airflow.json("GET", f"/dags/{DAG}/dagRuns", **query)
        assert found["total_entries"] == 5
        return [run["dag_run_id"] for run in found["dag_runs"]]

    assert await page() == ids
    assert await page(limit=2) == ids[:2]
    assert await page(limit=2, offset=3) == ids[3:]
    assert await page(limit=0) == await page(offset=5) == await page(offset=10**30) == []
    assert await page(limit=10**30) == ids


async def test_dags_are_listed_by_pages(airflow: Airflow, airflow_admin: Airflow) -> None:
    for dag_id in ("b", "a", "c"):
        await airflow.dag(dag_id=dag_id)
    bob = await airflow_admin.with_key("bob")
    await bob.dag(dag_id="d")

    async def page(caller: Airflow, **query: Any) -> tuple[list[str], int]:
        found = await caller.json("GET", "/dags", **query)
        return [dag["dag_id"] for dag in found["dags"]], found["total_entries"]

    assert await page(airflow) == (["a", "b", "c"], 3)
    assert await page(airflow, limit=1, offset=1) == (["b"], 3)
    assert await page(airflow_admin) == (["a", "b", "c", "d"], 4)
    assert await page(bob, limit=0) == ([], 1)


async def test_a_dag_is_shown(airflow: Airflow) -> None:
    await airflow.api.json("PUT", f"/dags/{DAG}", body={"display_name": "My Dag"})
    dag = await airflow.json("GET", f"/dags/{DAG}")
    assert (dag["dag_id"], dag["dag_display_name"], dag["owners"], dag["is_paused"]) == (DAG, "My Dag", ["ann"], False)
    assert (await airflow.json("GET", "/dags"))["dags"] == [dag]
    assert (await airflow.trigger())["dag_display_name"] == "My Dag"


# --- what is not there -----------------------------------------------------------

ODD_IDS = ["..", ".", "a/b", "%", "%2F", "a b", "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "a\0b", "x" * 500, "'"]


@pytest.mark.parametrize("name", ODD_IDS)
async def test_an_unknown_id_is_named_as_it_was_meant(airflow: Airflow, name: str) -> None:
    await airflow.dag()
    run, dag = path_of(name), path_of("x", name).removesuffix("/dagRuns/x")
    assert detail(await airflow.ask("GET", run), 404) == _no_run(DAG, name)
    assert detail(await airflow.ask("GET", run + "/wait?interval=1"), 404) == _no_run(DAG, name)
    assert detail(await airflow.ask("GET", f"{dag}/dagRuns/x"), 404) == _no_run(name, "x")
    assert detail(await airflow.ask("GET", dag), 404) == f"Dag with id {name} was not found"
    assert detail(await airflow.ask("GET", f"{dag}/dagRuns"), 404) == f"The Dag with ID: `{name}` was not found"
    answer = await airflow.ask("POST", f"{dag}/dagRuns", body={"logical_date": None})
    assert detail(answer, 404) == f"Dag with dag_id: '{name}' not found"


def _no_run(dag_id: str, run_id: str) -> str:
    return f"The DagRun with dag_id: `{dag_id}` and run_id: `{run_id}` was not found"


async def test_bytes_that_are_no_text_name_nothing(airflow: Airflow) -> None:
    assert detail(await airflow.ask("GET", "/dags/%ff/dagRuns/%C3%28"), 404).startswith("The DagRun with")


async def test_another_owners_run_does_not_exist(airflow: Airflow, airflow_admin: Airflow) -> None:
    bob = await airflow_admin.with_key("bob")
    work = await bob.begin()
    assert detail(await airflow.ask("GET", work.path), 404) == _no_run(DAG, work.run_id)
    assert detail(await airflow.ask("GET", f"/dags/{DAG}"), 404)
    assert shown(await airflow_admin.ask("GET", work.path))["dag_run_id"] == work.run_id


async def test_a_dag_with_letters_of_any_script_works(airflow: Airflow) -> None:
    name = "caf\N{LATIN SMALL LETTER E WITH ACUTE}.1-2"
    path = path_of("x", name).removesuffix("/dagRuns/x")
    await airflow.api.json("PUT", path, body={})
    run = await airflow.json("POST", f"{path}/dagRuns", body={"logical_date": None})
    assert await airflow.json("GET", path_of(run["dag_run_id"], name)) == run


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", "/", 404, "Not Found"),
        ("GET", "/none", 404, "Not Found"),
        ("GET", "/dags/", 404, "Not Found"),
        ("GET", "/dags/x/", 404, "Not Found"),
        ("GET", "/dags/x/dagRuns/", 404, "Not Found"),
        ("GET", "/dags/x/dagRuns/y/", 404, "Not Found"),
        ("GET", "/dags/x/dagRuns/y/wait/", 404, "Not Found"),
        ("GET", "//dags", 404, "Not Found"),
        ("DELETE", "/dags", 405, "Method Not Allowed"),
        ("PUT", "/dags/x/dagRuns", 405, "Method Not Allowed"),
        ("PATCH", "/dags/x/dagRuns/y", 405, "Method Not Allowed"),
        ("POST", "/dags/x/dagRuns/y/wait", 405, "Method Not Allowed"),
    ],
)
async def test_failures_that_belong_to_no_endpoint_have_the_shape_too(
    airflow: Airflow, method: str, path: str, status: int, said: str
) -> None:
    answer = await airflow.ask(method, path, headers={"Authorization": ""})
    assert detail(answer, status) == said
    assert ("Allow" in answer.headers) == (status == 405)


async def test_a_key_without_rights_learns_nothing_from_the_order(airflow: Airflow) -> None:
    nobody = await airflow.with_key("nobody", Scope.WRITE)
    assert detail(await nobody.ask("GET", "/dags/x/dagRuns/y/wait"), 403) == "Forbidden"
    assert detail(await airflow.ask("GET", "/dags/x/dagRuns/y/wait"), 422), "what is asked before what is there"
