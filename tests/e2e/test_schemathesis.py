"""Whatever a client sends, the server answers it, and as its OpenAPI document says.

schemathesis makes the requests from the document: each bound from both sides, each media type, values that are valid
and values that are not. Most name things that exist, so that more is seen than 404.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import strategies as st

from taskserver.web.app import make_rooms
from taskserver.web.openapi import make_document
from tests.e2e.things import LIMIT, Things
from tests.server import Server, running

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis needs Python 3.11")
openapi_checks = pytest.importorskip("schemathesis.specs.openapi.checks")

EXAMPLES = 10  # random requests for each operation, beside those for its bounds
ENDLESS = "/v1/changes"  # a stream that no client reads to its end; tests/api/test_changes.py reads it
UNNAMED = 5  # one request of so many keeps its random names and secrets
CHECKS = [
    schemathesis.checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
    openapi_checks.negative_data_rejection,
]

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
RECORDS = st.fixed_dictionaries(
    {"text": TEXTS},
    optional={"stream": st.sampled_from(["stdout", "stderr", "stdlog"]), "time": st.just("2026-11-20T19:41:59.83Z")},
)
schemathesis.openapi.media_type(
    "application/x-ndjson",
    st.lists(RECORDS.map(json.dumps) | TEXTS).map(lambda rows: "\n".join(rows).encode()),
)


def strict_document() -> dict[str, Any]:
    """The document; its answers may hold no field that it does not name."""
    rooms, other = make_rooms()
    document = make_document([*rooms, other])
    for schema in document["components"]["schemas"].values():
        schema.setdefault("additionalProperties", False)
    return document


SCHEMA = schemathesis.openapi.from_dict(
    strict_document(),
    config=schemathesis.Config.from_dict(
        {
            "seed": 20261121,
            "generation": {
                "max-examples": EXAMPLES,
                "deterministic": True,
                "no-shrink": True,
                "allow-extra-parameters": False,  # the server ignores parameters that it does not know
            },
            # Methods that a path does not have are no part of its document; tests/api asks them of every room.
            "phases": {"coverage": {"unexpected-methods": []}},
        }
    ),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("schemathesis")
    yield from running(folder, "--synchronous", "normal", "--max-failed-sign-ins", "0")  # hundreds come from here


@pytest.fixture(scope="module")
def things(server: Server) -> Iterator[Things]:
    found = Things(server)
    yield found
    found.close()


def test_the_document_is_valid() -> None:
    assert SCHEMA.validate() is None


@SCHEMA.exclude(path=ENDLESS).parametrize()  # type: ignore[untyped-decorator]
def test_each_answer_is_as_documented(case: Any, server: Server, things: Things) -> None:
    name_what_exists(case, things)
    if case.meta.generation.mode.is_positive:
        tell_secrets(case, things)
        bound_waits(case)
    response = case.call(base_url=server.url, session=things.session, headers=things.headers, timeout=LIMIT)
    case.validate_response(response, checks=CHECKS)


def test_without_a_key_the_answer_is_a_documented_401(server: Server) -> None:
    secured = [operation for operation in operations() if operation.definition.raw.get("security")]
    assert secured
    for operation in secured:
        case = operation.Case(path_parameters={name.name: "0" for name in operation.path_parameters})
        response = case.call(base_url=server.url, timeout=LIMIT)
        assert response.status_code == 401, operation.label
        case.validate_response(response, checks=CHECKS)


def operations() -> Iterator[Any]:
    """The document's operations."""
    for found in SCHEMA.get_all_operations():
        yield found.ok()


def name_what_exists(case: Any, things: Things) -> None:
    """Let most requests name what exists; which of them follows from their content."""
    if zlib.crc32(repr((case.path_parameters, case.query, case.body)).encode()) % UNNAMED:
        named = things.named(case.method, case.path)
        for name in case.path_parameters:
            case.path_parameters[name] = named[name]


def tell_secrets(case: Any, things: Things) -> None:
    """Put the values into a JSON body without which it would always be refused."""
    if not isinstance(case.body, dict):
        return
    for name, value in case.body.items():
        if value and isinstance(value, str):
            case.body[name] = things.secrets.get(name, value)
    if case.path.startswith("/v1/runs/{id}/"):
        case.body["claim"] = things.secrets["claim"]


def bound_waits(case: Any) -> None:
    """Let no request wait: those that should find something find it at once."""
    wait = str((case.query or {}).get("wait", ""))
    if wait.isdecimal() and 0 < int(wait) <= 55:
        case.query["wait"] = "0"
