"""PROTOCOLS.md, C: every failure under the prefix has the room's shape and a true status."""

from __future__ import annotations

import asyncio
import logging

import pytest

from taskserver.errors import StoreFull, StoreUnavailable
from tests.api.executions.conversation import Api, refused

ROUTES = [("POST", ""), ("GET", "/x"), ("POST", "/x/wait"), ("GET", "/x/events"), ("GET", "/x/lineage")]
EACH = pytest.mark.parametrize(("method", "path"), ROUTES)


@EACH
@pytest.mark.parametrize("header", ["", "Key", "Key ", "Basic YTpi", "key_abc", "Token x"])
async def test_no_credential(api: Api, method: str, path: str, header: str) -> None:
    answer = await api.ask(method, path, headers={"Authorization": header})
    refused(answer, 401, "no_credential")


@EACH
@pytest.mark.parametrize("scheme", ["Key", "Bearer", "bearer", "KEY"])
async def test_a_credential_that_is_unknown(api: Api, method: str, path: str, scheme: str) -> None:
    refused(await api.ask(method, path, headers={"Authorization": f"{scheme} nobody"}), 401, "bad_credential")


@EACH
async def test_a_key_that_was_revoked(admin: Api, api: Api, method: str, path: str) -> None:
    await admin.services.keys.revoke(api.key_id)
    refused(await api.ask(method, path), 401, "bad_credential")


@pytest.mark.parametrize("scheme", ["Key", "Bearer", "bearer", "kEY"])
async def test_both_schemes_are_taken(api: Api, scheme: str) -> None:
    answer = await api.ask("GET", f"/{await api.create()}", headers={"Authorization": f"{scheme} {api.key}"})
    assert answer.status == 200


@pytest.mark.parametrize("path", ["/", "/x/", "/x/y", "/x/events/", "/x/wait/1", "/x/lineage/y", "/x/EVENTS", "//wait"])
async def test_there_is_no_such_endpoint(api: Api, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        refused(await api.ask(method, path), 404, "no_such_endpoint", method)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("", "POST"), ("/x", "GET, HEAD"), ("/x/wait", "POST"), ("/x/events", "GET, HEAD"), ("/x/lineage", "GET, HEAD")],
)
async def test_a_wrong_method(api: Api, path: str, allowed: str) -> None:
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} - set(allowed.split(", ")):
        answer = await api.ask(method, path)
        refused(answer, 405, "method_not_allowed", allowed)
        assert answer.headers["Allow"] == allowed


async def test_a_path_beside_the_prefix_is_not_the_rooms(api: Api) -> None:
    answer = await api.ask("GET", "/api/v1/executionsx")
    assert answer.status == 404
    assert "error_code" not in answer.json


async def test_a_url_and_a_header_that_are_too_long(api: Api) -> None:
    refused(await api.ask("GET", "/x", q="y" * 8192), 414, "url_too_long")
    refused(await api.ask("GET", "/x", headers={"X-Long": "y" * 17000}), 431, "headers_too_large")
    refused(await api.ask("GET", "/" + "y" * 8000), 404, "execution_not_found")


async def test_every_refusal_has_a_correlation_id_of_its_own(api: Api) -> None:
    answers = await asyncio.gather(*(api.ask("GET", "/x") for _ in range(3)))
    assert len({answer.json["correlation_id"] for answer in answers}) == 3


async def test_a_bug_of_ours_stands_in_the_log_under_its_correlation_id(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("the moon is in the wrong phase")

    monkeypatch.setattr(api.services.store, "find_dag", fail)
    with caplog.at_level(logging.ERROR):
        answer = await api.ask("POST", "", body={"config_id": "00000000-0000-0000-0000-000000000000"})
    refused(answer, 500, "internal_error")
    assert b"moon" not in answer.body
    assert [record.fields["request_id"] for record in caplog.records] == [answer.json["correlation_id"]]  # type: ignore[attr-defined]
    assert "wrong phase" in caplog.text


async def test_a_request_id_of_the_clients_is_the_correlation_id(api: Api) -> None:
    answer = await api.ask("GET", "/x", headers={"X-Request-ID": "proxy-7:1"})
    assert answer.json["correlation_id"] == answer.headers["X-Request-ID"] == "proxy-7:1"


@pytest.mark.parametrize(
    ("error", "status"), [(StoreUnavailable("the database is gone"), 503), (StoreFull("full"), 507)]
)
async def test_a_store_that_fails(
    api: Api, monkeypatch: pytest.MonkeyPatch, error: StoreUnavailable, status: int
) -> None:
    async def fail(*_: object) -> None:
        raise error

    config_id = await api.config()
    monkeypatch.setattr(api.services.store, "create_run", fail)
    answer = await api.ask("POST", "", body={"config_id": config_id})
    refused(answer, status, error.code, error.message)
    assert answer.headers["Retry-After"] == "1"
