"""PROTOCOLS.md, B: values that are not valid, in pydantic's words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api.airflow.conversation import DAG, Airflow, detail, faults

RUNS = f"/dags/{DAG}/dagRuns"
WAIT = f"/dags/{DAG}/dagRuns/x/wait"


# --- bodies ----------------------------------------------------------------------


async def test_a_missing_field_is_told_with_the_body(airflow: Airflow) -> None:
    answer = await airflow.ask("POST", RUNS, body={"note": "x"})
    assert detail(answer, 422) == [
        {"type": "missing", "loc": ["body", "logical_date"], "msg": "Field required", "input": {"note": "x"}}
    ]


async def test_everything_that_is_wrong_is_told(airflow: Airflow) -> None:
    body = {"dag_run_id": 5, "conf": [], "note": True, "logical_date": "2026-11-20T10:00:00", "dag": 1}
    answer = await airflow.ask("POST", RUNS, body=body)
    listed = {fault["loc"][1]: fault for fault in detail(answer, 422)}
    assert listed == {
        "dag_run_id": _fault("string_type", "dag_run_id", "Input should be a valid string", 5),
        "conf": _fault("dict_type", "conf", "Input should be a valid dictionary", []),
        "note": _fault("string_type", "note", "Input should be a valid string", True),
        "logical_date": _fault(
            "timezone_aware", "logical_date", "Input should have timezone info", "2026-11-20T10:00:00"
        ),
        "dag": _fault("extra_forbidden", "dag", "Extra inputs are not permitted", 1),
    }


def _fault(kind: str, name: str, msg: str, value: Any) -> dict[str, Any]:
    return {"type": kind, "loc": ["body", name], "msg": msg, "input": value}


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (5, "datetime_type"),
        (True, "datetime_type"),
        ({}, "datetime_type"),
        ("", "datetime_from_date_parsing"),
        ("tomorrow", "datetime_from_date_parsing"),
        ("2026-13-01T00:00:00Z", "datetime_from_date_parsing"),
        ("2026-02-30T00:00:00Z", "datetime_from_date_parsing"),
        ("2026-11-20T25:00:00Z", "datetime_from_date_parsing"),
        ("2026-11-20T10:00:00Z!", "datetime_from_date_parsing"),
        ("2026-11-20T10:00:00+99:99", "datetime_from_date_parsing"),
        ("\N{FULLWIDTH DIGIT TWO}026-11-20T10:00:00Z", "datetime_from_date_parsing"),
        ("2026-11-20", "timezone_aware"),
        ("2026-11-20T10:00:00", "timezone_aware"),
        ("0001-01-01T00:00:00+14:00", "datetime_object_invalid"),
        ("9999-12-31T23:59:59-01:00", "datetime_object_invalid"),
    ],
)
async def test_what_is_no_time(airflow: Airflow, value: Any, kind: str) -> None:
    await airflow.dag()
    for name in ("logical_date", "data_interval_start"):
        wish = {"logical_date": None, "data_interval_end": "2026-11-20T10:00:00Z", name: value}
        assert faults(await airflow.ask("POST", RUNS, body=wish)) == [(kind, ["body", name])]
    if kind != "timezone_aware":
        answer = await airflow.ask("POST", RUNS, body={"logical_date": None, "run_after": value})
        assert faults(answer) == [(kind, ["body", "run_after"])]


@pytest.mark.parametrize("name", ["data_interval_start", "data_interval_end"])
async def test_half_an_interval_is_none(airflow: Airflow, name: str) -> None:
    wish = {"logical_date": None, name: "2026-11-20T10:00:00Z"}
    (fault,) = detail(await airflow.ask("POST", RUNS, body=wish), 422)
    assert (fault["type"], fault["loc"], fault["input"], fault["ctx"]) == ("value_error", ["body"], wish, {"error": {}})
    assert fault["msg"].startswith("Value error, Either both data_interval_start and data_interval_end")


@pytest.mark.parametrize(
    ("wish", "kind"),
    [
        ({"note": "x" * 1001}, "string_too_long"),
        ({"note": "a\0b"}, "value_error"),
        ({"partition_key": "x" * 251}, "string_too_long"),
        ({"dag_run_id": "x" * 251}, "string_too_long"),
        ({"conf": "{}"}, "dict_type"),
        ({"conf": 5}, "dict_type"),
    ],
)
async def test_bounds(airflow: Airflow, wish: dict[str, Any], kind: str) -> None:
    answer = await airflow.ask("POST", RUNS, body={"logical_date": None, **wish})
    assert faults(answer) == [(kind, ["body", next(iter(wish))])]


@pytest.mark.parametrize(
    "data", [b"{", b"not JSON", b'{"conf": NaN}', b'{"note": "\\ud800"}', b'{"note": "\xff"}', b"[" * 100_000]
)
async def test_what_is_no_json(airflow: Airflow, data: bytes) -> None:
    answer = await airflow.ask("POST", RUNS, data=data, headers={"Content-Type": "application/json"})
    (fault,) = detail(answer, 422)
    assert fault["type"] == "json_invalid"
    assert fault["msg"] == "JSON decode error"
    assert (fault["loc"][0], fault["input"]) == ("body", {})
    assert isinstance(fault["loc"][1], int)
    assert isinstance(fault["ctx"]["error"], str)


@pytest.mark.parametrize("body", [[], [1], "text", 5, None, True])
async def test_what_is_no_object(airflow: Airflow, body: Any) -> None:
    answer = await airflow.ask(
        "POST", RUNS, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    assert faults(answer) == [("model_attributes_type", ["body"])]


async def test_no_body_is_an_empty_one(airflow: Airflow) -> None:
    assert faults(await airflow.ask("POST", RUNS)) == [("missing", ["body", "logical_date"])]


async def test_a_body_of_another_type_is_not_taken(airflow: Airflow) -> None:
    answer = await airflow.ask("POST", RUNS, data=b"{}", headers={"Content-Type": "text/plain"})
    assert "application/json" in detail(answer, 415)


async def test_what_is_nested_too_deeply_is_told_without_being_repeated(airflow: Airflow) -> None:
    await airflow.dag()
    nested = b'{"a": ' * 900 + b"1" + b"}" * 900
    answer = await airflow.ask(
        "POST",
        RUNS,
        data=b'{"logical_date": null, "conf": ' + nested + b', "more": ' + nested + b"}",
        headers={"Content-Type": "application/json"},
    )
    assert faults(answer) == [("extra_forbidden", ["body", "more"]), ("value_error", ["body", "conf"])]
    assert len(answer.body) < 1000


@pytest.mark.parametrize("depth", [100, 252, 253, 254, 255, 1000])
async def test_what_is_taken_can_be_shown(airflow: Airflow, depth: int) -> None:
    await airflow.dag()
    conf = b'{"a":' * depth + b"1" + b"}" * depth
    data = b'{"logical_date": null, "conf": ' + conf + b"}"
    answer = await airflow.ask("POST", RUNS, data=data, headers={"Content-Type": "application/json"})
    assert answer.status == (200 if depth <= 253 else 422)
    listed = await airflow.ask("GET", RUNS)
    assert listed.status == 200
    assert (conf in answer.body, conf in listed.body) == (depth <= 253, depth <= 253)


async def test_a_large_body_is_refused_and_a_large_value_is_not_repeated(airflow: Airflow) -> None:
    await airflow.dag()
    assert faults(await airflow.ask("POST", RUNS, body={"x": "y" * 2**20})) == [
        ("extra_forbidden", ["body", "x"]),
        ("missing", ["body", "logical_date"]),
    ]
    wish = {"logical_date": None, "conf": {"x": "y" * 2**20}}
    assert "conf" in detail(await airflow.ask("POST", RUNS, body=wish), 413)
    assert "body" in detail(await airflow.ask("POST", RUNS, body={"x": "y" * 2**23}), 413)
    assert (await airflow.json("GET", RUNS))["total_entries"] == 0


@pytest.mark.parametrize(
    "run_id", ["a/b", "a b", "a%2Fb", "\N{SNOWMAN}", "a\n", "\0", "..", "a..b", "scheduled__x", "{}"]
)
async def test_an_id_that_cannot_be_used(airflow: Airflow, run_id: str) -> None:
    await airflow.dag()
    wish = {"logical_date": None, "dag_run_id": run_id}
    said = detail(await airflow.ask("POST", RUNS, body=wish), 400 if "\0" not in run_id else 422)
    assert isinstance(said, list if "\0" in run_id else str)
    assert (await airflow.json("GET", RUNS))["total_entries"] == 0


# --- queries ---------------------------------------------------------------------


async def test_a_missing_interval(airflow: Airflow) -> None:
    assert detail(await airflow.ask("GET", WAIT), 422) == [
        {"type": "missing", "loc": ["query", "interval"], "msg": "Field required", "input": None}
    ]


@pytest.mark.parametrize("text", ["0", "-1", "nan", "NaN", "-0.0", "-inf", "0.0", "1e-999"])
async def test_an_interval_that_is_not_above_0(airflow: Airflow, text: str) -> None:
    for query in (f"interval={text}", f"interval=5&interval={text}"):
        assert detail(await airflow.ask("GET", f"{WAIT}?{query}"), 422) == [
            {
                "type": "greater_than",
                "loc": ["query", "interval"],
                "msg": "Input should be greater than 0",
                "input": text,
                "ctx": {"gt": 0.0},
            }
        ]


@pytest.mark.parametrize("text", ["", "%20", "abc", "0x10", "1,5", "5s", "%00", "%ff"])
async def test_an_interval_that_is_no_number(airflow: Airflow, text: str) -> None:
    (fault,) = detail(await airflow.ask("GET", f"{WAIT}?interval={text}"), 422)
    assert fault["type"] == "float_parsing"
    assert fault["msg"] == "Input should be a valid number, unable to parse string as a number"
    assert isinstance(fault["input"], str)


@pytest.mark.parametrize("path", ["/dags", RUNS])
@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("limit=-1", "greater_than_equal"),
        ("offset=-1", "greater_than_equal"),
        ("limit=", "int_parsing"),
        ("limit=x", "int_parsing"),
        ("offset=1.5", "int_parsing"),
        ("limit=" + "9" * 5000, "int_parsing"),
        ("order_by=-run_after", "extra_forbidden"),
        ("state=running", "extra_forbidden"),
    ],
)
async def test_pages_that_cannot_be(airflow: Airflow, path: str, query: str, kind: str) -> None:
    await airflow.dag()
    assert faults(await airflow.ask("GET", f"{path}?{query}")) == [(kind, ["query", query.partition("=")[0]])]
