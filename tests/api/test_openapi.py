"""The OpenAPI document says what the server does, and the page shows it without asking any other host."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from marshmallow import Schema, fields, validate
from yarl import URL

from taskserver.config import Settings
from taskserver.stores import open_store
from taskserver.web.app import make_app, make_rooms, make_services
from taskserver.web.openapi import make_document
from taskserver.web.openapi_fields import refine, refine_parameter
from taskserver.web.params import Integer
from taskserver.web.rooms import Room, Route
from tests.server import Server, running

METHODS = {"get", "post", "put", "patch", "delete"}
VARIABLE = re.compile(r"{(\w+)[^}]*}")


def all_rooms() -> list[Room]:
    rooms, other = make_rooms()
    return [*rooms, other]


ROUTES = [(room, route) for room in all_rooms() for route in room.routes]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return make_document(all_rooms())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from running(tmp_path_factory.mktemp("openapi"))


@pytest.fixture
async def client(server: Server) -> AsyncIterator[ClientSession]:
    """A client without a key."""
    async with ClientSession(server.url) as session:
        yield session


def operation(document: dict[str, Any], name: str) -> dict[str, Any]:
    """Such as ``GET /v1/tasks``."""
    method, path = name.split()
    found: dict[str, Any] = document["paths"][path][method.lower()]
    return found


def parameter(document: dict[str, Any], name: str, parameter: str) -> dict[str, Any]:
    schemas = {one["name"]: one["schema"] for one in operation(document, name)["parameters"]}
    found: dict[str, Any] = schemas[parameter]
    return found


def body(document: dict[str, Any], name: str) -> dict[str, Any]:
    """The properties of a JSON body."""
    reference = operation(document, name)["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    found: dict[str, Any] = document["components"]["schemas"][reference.rpartition("/")[2]]["properties"]
    return found


# --- routes --------------------------------------------------------------------


async def test_the_document_has_each_route_of_the_app_and_no_other(tmp_path: Path, document: dict[str, Any]) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/tasks.db")
    app = make_app(make_services(Settings(), store))
    await store.close()
    aliases = {alias: room.prefixes[0] for room in all_rooms() for alias in room.prefixes[1:]}

    served = {registered(route, aliases) for route in app.router.routes() if route.method not in ("HEAD", "*")}

    written = {(method.upper(), path) for path, item in document["paths"].items() for method in item.keys() & METHODS}
    assert written == served


def registered(route: web.AbstractRoute, aliases: dict[str, str]) -> tuple[str, str]:
    """Method and path of a route, under the main prefix of its room."""
    assert route.resource is not None
    path = VARIABLE.sub(r"{\1}", route.resource.canonical)
    for alias, main in aliases.items():
        if path.startswith(alias + "/"):
            path = main + path.removeprefix(alias)
    return route.method, path


@pytest.mark.parametrize(
    ("room", "route"), ROUTES, ids=lambda value: getattr(value, "path", getattr(value, "name", ""))
)
def test_each_route_says_what_it_is_and_what_it_answers(room: Room, route: Route) -> None:
    assert route.handler.__doc__
    assert any(answer.status < 300 for answer in route.answers)
    assert room.about
    assert room.error is not None
    assert route.scope is None or room.security


def test_each_operation_has_an_id_of_its_own_and_refers_to_what_there_is(document: dict[str, Any]) -> None:
    found = [entry for item in document["paths"].values() for name, entry in item.items() if name in METHODS]
    assert len({entry["operationId"] for entry in found}) == len(found)
    assert all(entry["summary"] for entry in found)
    defined = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) == defined


def references(part: Any) -> set[str]:
    """Everything that is referred to."""
    if isinstance(part, dict):
        own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
        return own.union(*map(references, part.values()))
    return set().union(*map(references, part)) if isinstance(part, list) else set()


def test_a_prefix_that_is_the_same_as_another_is_named(document: dict[str, Any]) -> None:
    about = {tag["name"]: tag["description"] for tag in document["tags"]}
    assert "`/v1`" in about["tasks"]
    assert "`/__api__/v1`" in about["tasks"]


# --- what may be sent ----------------------------------------------------------


def test_a_parameter_has_its_type_its_bounds_and_its_default(document: dict[str, Any]) -> None:
    assert parameter(document, "GET /v1/tasks/{id}", "wait") == {
        "type": "integer",
        "minimum": 0,
        "maximum": 20,
        "default": 0,
    }
    assert parameter(document, "GET /v1/tasks/{id}/output", "tail") == {
        "type": "integer",
        "minimum": 0,
        "maximum": 2**32 - 1,
    }
    assert parameter(document, "GET /v1/tasks/{id}/output", "format")["enum"] == ["json", "text", "ndjson", "sse"]
    assert parameter(document, "GET /v1/tasks", "cursor")["type"] == "string"
    assert parameter(document, "GET /v1/tasks", "label")["items"] == {"type": "string", "pattern": "^[^=]+="}
    assert parameter(document, "GET /v1/tasks/{id}/output", "Last-Event-ID")["type"] == "string"


def test_each_parameter_has_a_type(document: dict[str, Any]) -> None:
    found = [one for item in document["paths"].values() for entry in item.values() for one in entry["parameters"]]
    assert found
    assert [one for one in found if not isinstance(one["schema"].get("type"), str)] == []


def test_a_body_has_its_bounds(document: dict[str, Any]) -> None:
    new_task = body(document, "POST /v1/tasks")
    assert new_task["id"]["pattern"] == r"^(?!\.{1,2}$)[A-Za-z0-9_.~-]{1,64}$"
    assert new_task["lease"] == {
        "type": ["number", "null"],
        "default": None,
        "exclusiveMinimum": 0.0,
        "maximum": 86400.0,
    }
    assert new_task["labels"]["maxProperties"] == 32
    assert new_task["labels"]["propertyNames"] == {"type": "string", "maxLength": 200}
    assert body(document, "POST /v1/tasks/{id}/finish")["code"]["maximum"] == 2**31 - 1


def test_lines_can_be_sent_in_three_ways(document: dict[str, Any]) -> None:
    request = operation(document, "POST /v1/tasks/{id}/output")["requestBody"]
    assert set(request["content"]) == {"application/json", "text/plain", "application/x-ndjson"}
    assert not request["required"]


def test_fields_that_apispec_knows_only_in_part() -> None:
    class Odd(Schema):
        number = Integer(1, 9, load_default=None)
        below = fields.Float(validate=validate.Range(max=1, max_inclusive=False))
        choice = fields.String(validate=validate.Regexp(r"a|b\Z"))

    plugin = MarshmallowPlugin()
    APISpec("", "", "3.1.0", plugins=[plugin])
    converter = plugin.converter
    assert isinstance(converter, OpenAPIConverter)
    converter.add_attribute_function(refine)  # type: ignore[no-untyped-call]
    converter.add_parameter_attribute_function(refine_parameter)

    inside = converter.schema2jsonschema(Odd)["properties"]  # type: ignore[no-untyped-call]
    assert inside["number"] == {"type": ["integer", "null"], "minimum": 1, "maximum": 9, "default": None}
    assert inside["below"] == {"type": "number", "exclusiveMaximum": 1.0}
    assert inside["choice"]["pattern"] == "^(?:a|b$)"
    number = converter.schema2parameters(Odd, location="query")[0]
    assert number["schema"] == {"type": "integer", "minimum": 1, "maximum": 9}


# --- who may, and what comes back ----------------------------------------------


def test_a_route_names_the_scope_that_its_key_needs(document: dict[str, Any]) -> None:
    assert operation(document, "GET /v1/tasks/{id}")["security"] == [{"key": ["read"]}, {"bearer": ["read"]}]
    assert operation(document, "POST /v1/keys")["security"] == [{"key": ["admin"]}, {"bearer": ["admin"]}]
    assert "security" not in operation(document, "GET /healthz")
    schemes = document["components"]["securitySchemes"]
    assert schemes["key"]["name"] == "Authorization"
    assert schemes["token"]["bearerFormat"] == "JWT"


def test_failures_have_the_status_and_the_shape_of_their_room(document: dict[str, Any]) -> None:
    answers = operation(document, "POST /v1/tasks/{id}/output")["responses"]
    assert {"400", "401", "403", "404", "409", "413", "415", "503", "507"} < answers.keys()
    assert answers["409"]["content"]["application/json"]["schema"]["$ref"].endswith("/tasks.Failure")
    assert "Retry-After" in answers["503"]["headers"]

    answers = operation(document, "GET /api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/wait")["responses"]
    assert answers["422"]["content"]["application/json"]["schema"]["$ref"].endswith("/airflow.Failure")
    assert "400" not in answers
    assert "content" not in answers["200"]


def test_output_can_come_in_four_ways(document: dict[str, Any]) -> None:
    answers = operation(document, "GET /v1/tasks/{id}/output")["responses"]
    assert set(answers["200"]["content"]) == {
        "application/json",
        "text/plain",
        "application/x-ndjson",
        "text/event-stream",
    }
    assert "204" in answers


# --- as it is served -----------------------------------------------------------


async def test_the_document_is_served_without_a_key(client: ClientSession, document: dict[str, Any]) -> None:
    async with client.get("/openapi.json") as answer:
        assert answer.status == 200
        assert answer.content_type == "application/json"
        assert await answer.json() == document
        etag = answer.headers["ETag"]
    async with client.get("/openapi.json", headers={"If-None-Match": etag}) as answer:
        assert answer.status == 304
        assert await answer.read() == b""
    async with client.get("/openapi.json", headers={"If-None-Match": '"another"'}) as answer:
        assert answer.status == 200
    async with client.head("/openapi.json") as answer:
        assert answer.status == 200
        assert answer.headers["ETag"] == etag


async def test_the_page_loads_nothing_from_elsewhere_and_all_that_it_loads_is_there(client: ClientSession) -> None:
    async with client.get("/docs") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        policy = answer.headers["Content-Security-Policy"]
        page = await answer.text()
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "<script>" not in page
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert "docs/swagger-ui-bundle.js" in loaded
    for address in loaded:
        assert not URL(address).absolute
        assert not address.startswith("/")  # it would be wrong behind a path prefix
        async with client.get("/" + address) as answer:
            assert answer.status == 200
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert (
                answer.content_type
                == {
                    "css": "text/css",
                    "js": "text/javascript",
                    "json": "application/json",
                    "png": "image/png",
                }[address.rpartition(".")[2]]
            )


async def test_our_script_asks_for_the_document_beside_the_page(client: ClientSession) -> None:
    async with client.get("/docs/docs.js") as answer:
        script = await answer.text()
    assert 'url: "openapi.json"' in script
    assert "validatorUrl: null" in script
    assert "://" not in script


@pytest.mark.parametrize("name", ["docs.html", "swagger-ui.js", "", "..%2fdocs.py", "%2e%2e%2fhealth.py"])
async def test_other_files_are_not_served(client: ClientSession, name: str) -> None:
    async with client.get(URL(f"/docs/{name}", encoded=True)) as answer:
        assert answer.status == 404
        assert set(await answer.json()) == {"error"}


def test_the_package_with_the_pages_files_is_never_imported() -> None:
    program = """
import sys
import taskserver.web.app
from taskserver.api.docs import swagger_ui
assert swagger_ui().is_dir()
print("flask" in sys.modules, "flask_swagger_ui" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
