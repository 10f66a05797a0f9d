"""PROTOCOLS.md, C: values that are not valid are refused in pydantic's words. Pydantic itself is the measure."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from taskserver.config import Limits, Settings
from tests.api.executions.conftest import Serve
from tests.api.executions.conversation import Api, faults, refused


class NewExecution(BaseModel):
    """The body of C1, as its original would have it."""

    model_config = ConfigDict(extra="forbid")
    config_id: uuid.UUID
    metadata: dict[str, Any] | None = None
    tag: str | None = Field(None, min_length=1, max_length=200)


class Wait(BaseModel):
    """The body of C3."""

    model_config = ConfigDict(extra="forbid")
    timeout: float = Field(300, ge=1, le=3600)


class Lineage(BaseModel):
    """The query of C5."""

    limit: int = Field(100, ge=1, le=1000)


def said_by_pydantic(model: type[BaseModel], value: Any, place: str) -> list[dict[str, Any]]:
    try:
        model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False)
    return [{**fault, "loc": [place, *fault["loc"]]} for fault in found]


UUID = str(uuid.UUID(int=0))


@pytest.mark.parametrize(
    "wish",
    [
        {},
        {"config_id": None},
        {"config_id": 7},
        {"config_id": ["x"]},
        {"config_id": UUID, "metadata": []},
        {"config_id": UUID, "metadata": "{}"},
        {"config_id": UUID, "tag": 7},
        {"config_id": UUID, "tag": ""},
        {"config_id": UUID, "tag": "x" * 201},
        {"config_id": UUID, "tga": "x"},
        {"metadata": 1, "tag": False, "zebra": None, "more": {}, "extra": 1, "ant": "x", "b": [], "a": 0},
    ],
)
async def test_a_new_execution(api: Api, wish: dict[str, Any]) -> None:
    assert faults(await api.ask("POST", "", body=wish)) == said_by_pydantic(NewExecution, wish, "body")


@pytest.mark.parametrize(
    "text", ["", "x", UUID[:-1], UUID + "0", "g" + UUID[1:], f"{{{UUID}}}", f"urn:uuid:{UUID}", "٠" * 32]
)
async def test_a_config_id_that_is_no_uuid(api: Api, text: str) -> None:
    (fault,) = faults(await api.ask("POST", "", body={"config_id": text}))
    # What exactly is wrong with it is worded by the library behind pydantic, differently in each version.
    assert (fault["type"], fault["loc"], fault["input"]) == ("uuid_parsing", ["body", "config_id"], text)
    assert fault["msg"] == f"Input should be a valid UUID, {fault['ctx']['error']}"


@pytest.mark.parametrize("tag", [UUID, UUID.upper(), UUID.replace("-", ""), ".", "..", "a\0b"])
async def test_a_tag_that_would_be_something_else_in_a_path(api: Api, tag: str) -> None:
    (fault,) = faults(await api.ask("POST", "", body={"config_id": await api.config(), "tag": tag}))
    assert (fault["type"], fault["loc"], fault["input"]) == ("value_error", ["body", "tag"], tag)
    assert fault["msg"] == f"Value error, {fault['ctx']['error']}"


@pytest.mark.parametrize("timeout", [0, 0.999, -1, 3600.5, 10**9, None, [], {}])
async def test_a_wait(api: Api, timeout: Any) -> None:
    wish = {"timeout": timeout}
    assert faults(await api.ask("POST", f"/{UUID}/wait", body=wish)) == said_by_pydantic(Wait, wish, "body")


@pytest.mark.parametrize("timeout", ["5", "x", True])
async def test_a_waits_timeout_is_a_number_of_json(api: Api, timeout: Any) -> None:
    (fault,) = faults(await api.ask("POST", f"/{UUID}/wait", body={"timeout": timeout}))
    assert (fault["type"], fault["loc"], fault["input"]) == ("float_type", ["body", "timeout"], timeout)


async def test_a_misspelt_timeout_does_not_wait(api: Api) -> None:
    answer = await api.ask("POST", f"/{await api.create()}/wait", body={"time_out": 5})
    assert faults(answer) == said_by_pydantic(Wait, {"time_out": 5}, "body")


@pytest.mark.parametrize("timeout", ["", "x", "0", "-1", "3601", "nan", "inf", "-inf", "1,5", "٣"])
async def test_the_time_of_a_stream(api: Api, timeout: str) -> None:
    answer = await api.ask("GET", f"/{await api.create()}/events", timeout=timeout)
    assert faults(answer) == said_by_pydantic(Wait, {"timeout": timeout}, "query")


@pytest.mark.parametrize("limit", ["", "x", "0", "-1", "1001", "1.5", "9" * 30, "٣"])
async def test_the_limit_of_a_lineage(api: Api, limit: str) -> None:
    answer = await api.ask("GET", f"/{await api.create()}/lineage", limit=limit)
    assert faults(answer) == said_by_pydantic(Lineage, {"limit": limit}, "query")


async def test_a_number_that_only_python_reads(api: Api) -> None:
    (fault,) = faults(await api.ask("GET", f"/{await api.create()}/lineage", limit="1_0"))
    assert fault["type"] == "int_parsing"


async def test_of_a_repeated_parameter_the_last_counts_and_unknown_ones_are_ignored(api: Api) -> None:
    execution_id = await api.create()
    assert (await api.ask("GET", f"/{execution_id}/lineage?limit=x&limit=1&colour=red")).status == 200
    (fault,) = faults(await api.ask("GET", f"/{execution_id}/lineage?limit=1&limit=x"))
    assert fault["input"] == "x"


# --- bodies --------------------------------------------------------------------


@pytest.mark.parametrize("body", [[], "x", 7, None, True, [{}]])
async def test_a_body_that_is_no_object(api: Api, body: Any) -> None:
    for path in ("", f"/{UUID}/wait"):
        answer = await api.ask(
            "POST", path, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
        )
        assert faults(answer) == [
            {
                "type": "model_attributes_type",
                "loc": ["body"],
                "msg": "Input should be a valid dictionary or object to extract fields from",
                "input": body,
            }
        ]


@pytest.mark.parametrize(
    ("data", "position"),
    [(b"{", 1), (b'{"timeout": NaN}', 12), (b"\xff", 0), (b'{"a": "\\ud800"}', None), (b"[" * 100_000, None)],
)
async def test_a_body_that_is_no_json(api: Api, data: bytes, position: int | None) -> None:
    answer = await api.ask("POST", f"/{UUID}/wait", data=data, headers={"Content-Type": "application/json"})
    (fault,) = faults(answer)
    assert (fault["type"], fault["msg"], fault["input"]) == ("json_invalid", "JSON decode error", {})
    assert fault["loc"][0] == "body"
    assert fault["loc"][1] == position or position is None
    assert fault["ctx"]["error"]


async def test_no_body_is_an_empty_object(api: Api) -> None:
    (fault,) = faults(await api.ask("POST", ""))
    assert (fault["type"], fault["loc"], fault["input"]) == ("missing", ["body", "config_id"], {})


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/octet-stream"])
async def test_a_body_of_another_type(api: Api, kind: str) -> None:
    for path in ("", f"/{UUID}/wait"):
        answer = await api.ask("POST", path, data=b"timeout=5", headers={"Content-Type": kind})
        refused(answer, 415, "unsupported_media_type", kind)


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "Application/JSON", "application/merge-patch+json", None]
)
async def test_a_body_of_json_by_any_name(api: Api, kind: str | None) -> None:
    data = json.dumps({"config_id": await api.config()}).encode()
    headers = {} if kind is None else {"Content-Type": kind}
    assert (await api.ask("POST", "", data=data, headers=headers)).status == 201


async def test_a_body_and_metadata_that_are_too_large(serve: Serve) -> None:
    api = await serve(Settings(limits=Limits(body_bytes=4096, result_bytes=1024)))
    config_id = await api.config()
    wish = {"config_id": config_id, "metadata": {"x": "y" * 2000}}
    refused(await api.ask("POST", "", body=wish), 413, "too_large", "metadata", "1024")
    wish["metadata"] = {"x": "y" * 5000}
    refused(await api.ask("POST", "", body=wish), 413, "too_large", "4096")
    wish["metadata"] = {"x": "y" * 1000}
    assert (await api.ask("POST", "", body=wish)).status == 201


def nested(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = {"a": value}
    return value


async def test_metadata_may_be_nested_but_not_too_deeply(api: Api) -> None:
    execution_id = await api.create(metadata=nested(200))
    assert (await api.get(execution_id))["metadata"] == nested(200)
    (fault,) = faults(await api.ask("POST", "", body={"config_id": await api.config(), "metadata": nested(400)}))
    assert (fault["type"], fault["loc"]) == ("value_error", ["body", "metadata"])
    assert "nested" in fault["msg"]


@pytest.mark.parametrize("value", [nested(400), "x" * 100_000])
async def test_an_input_that_is_large_is_not_sent_back(api: Api, value: Any) -> None:
    (fault,) = faults(await api.ask("POST", "", body={"config_id": value}))
    assert "input" not in fault
    assert fault["loc"] == ["body", "config_id"]
