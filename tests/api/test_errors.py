"""PROTOCOLS.md, A2 and A3: every route of the room refuses in one shape, and tells nobody what is not theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from taskserver.api.tasks.routes import ROUTES
from taskserver.config import MAX_HEADER_LENGTH, MAX_URL_LENGTH, Limits, Settings
from taskserver.errors import StoreFull, StoreUnavailable
from taskserver.model import Scope
from taskserver.web.rooms import Route
from tests.api.conftest import Serve
from tests.api.conversation import CONNECT, JSON, V1, Answer, Api, refused
from tests.eventually import eventually

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")


def under_both_prefixes(routes: Iterable[Route]) -> list[tuple[str, str, Route]]:
    """Prefix, method and route of each, and HEAD where there is GET."""
    return [
        (prefix, method, route)
        for prefix in (V1, CONNECT)
        for route in routes
        for method in (("GET", "HEAD") if route.method == "GET" else (route.method,))
    ]


def at(path: str, id_: str) -> str:
    """A route's path with an id in every place for one, and what it cannot do without."""
    return path.format(id=id_, dag_id=id_) + ("?q=x" if path.endswith("/search") else "")


SOME_ID = "0197fd01-0000-7000-8000-000000000000"  # fits wherever an id stands
BODIES: dict[str, dict[str, Any]] = {
    "/keys": {"name": "x"},
    "/runs/{id}/tasks": {"task_id": "x"},
    "/runs/{id}/heartbeat": {"claim": "x"},
    "/runs/{id}/release": {"claim": "x"},
    "/prune": {"older_than": 60},
}

EVERY_ROUTE = under_both_prefixes(ROUTES)
EVERY_ROUTE_WITH_A_KEY = under_both_prefixes([route for route in ROUTES if route.scope is not None])
EVERY_TASK_ROUTE = under_both_prefixes([route for route in ROUTES if "tasks/{id}" in route.path])
WITHOUT_THE_STORE = ("/changes", "/session")  # answered from memory
# GET /runs/claim asks for a run of that id, so it is no wrong method.
PATHS = sorted({route.path for route in ROUTES} - {"/runs/claim"})


class TestCredentials:
    async def test_without_one_nothing_is_told(self, api: Api) -> None:
        task_id = await api.create()
        for prefix, method, route in EVERY_ROUTE_WITH_A_KEY:
            for header in ("", "Basic dXNlcjpwYXNz", api.key, f"Token {api.key}", "Key", "Negotiate"):
                path = at(route.path, task_id)
                answer = await api.under(prefix).ask(method, path, headers={"Authorization": header})
                refused(answer, 401, 24, "Authorization")
                assert api.key not in answer.text

    async def test_a_wrong_one_is_refused(self, serve: Serve) -> None:
        admin = await serve(Settings(limits=Limits(failed_sign_ins=None)))
        task_id = await admin.create()
        gone, secret = await admin.services.keys.issue("gone", [Scope.ADMIN])
        await admin.services.keys.revoke(gone.id)
        for prefix, method, route in EVERY_ROUTE_WITH_A_KEY:
            for wrong in ("x", admin.key[:-1], f"{admin.key}x", secret, admin.key_id):
                header = {"Authorization": f"Key {wrong}"}
                answer = await admin.under(prefix).ask(method, at(route.path, task_id), headers=header)
                refused(answer, 401, 30)
                assert admin.key_id not in answer.text

    async def test_one_without_the_scope_is_forbidden(self, admin: Api) -> None:
        reader = await admin.with_key("reader", Scope.READ)
        writer = await admin.with_key("writer", Scope.WRITE)
        both = await admin.with_key("both", Scope.READ, Scope.WRITE)
        weak = {Scope.READ: writer, Scope.WRITE: reader, Scope.ADMIN: both}
        for prefix, method, route in EVERY_ROUTE_WITH_A_KEY:
            assert route.scope is not None
            for task_id in (await admin.create(), "none"):
                answer = await weak[route.scope].under(prefix).ask(method, at(route.path, task_id))
                payload = refused(answer, 403, 22, route.scope.value)
                assert payload in (None, {"scope": route.scope.value})

    async def test_another_owners_task_does_not_exist(self, admin: Api) -> None:
        ann, bob = await admin.with_key("ann"), await admin.with_key("bob")
        running, done = await ann.create("secret", name="secret"), await ann.done("secret")
        for prefix, method, route in EVERY_TASK_ROUTE:
            nobodys = await bob.under(prefix).ask(method, at(route.path, "x" * 16))
            for task_id in (running, done):
                theirs = await bob.under(prefix).ask(method, at(route.path, task_id))
                refused(theirs, 404, 4)
                assert theirs.body.replace(task_id.encode(), b"x" * 16) == nobodys.body
        assert (await ann.task(running))["output"] == ["secret"]
        assert (await ann.task(done))["finished"]

    @pytest.mark.parametrize("scheme", ["Key", "Bearer", "key", "BEARER", "kEY"])
    @pytest.mark.parametrize("space", [" ", "   "])
    async def test_both_schemes_are_taken_in_any_case(self, api: Api, scheme: str, space: str) -> None:
        header = {"Authorization": scheme + space + api.key}
        assert (await api.ask("GET", "/tasks", headers=header)).status == 200

    @pytest.mark.parametrize(
        "secret",
        [
            pytest.param("schlüssel".encode() * 5, id="UTF-8"),
            pytest.param(
                b"\xff" * 40,
                id="bytes",
            ),
        ],
    )
    async def test_one_that_is_no_text_is_a_wrong_one(self, api: Api, secret: bytes) -> None:
        request = b"GET /v1/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Key %b\r\nConnection: close\r\n\r\n" % secret
        answer = await api.raw(request)
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b'"code":30' in answer

    async def test_an_admin_sees_and_may_change_everybodys_tasks(self, admin: Api) -> None:
        ann = await admin.with_key("ann")
        task_id = await ann.create("a")
        assert (await admin.task(task_id))["output"] == ["a"]
        await admin.append(task_id, "b")
        await admin.finish(task_id)
        assert [task["id"] for task in (await admin.json("GET", "/tasks"))["tasks"]] == [task_id]
        await admin.delete(task_id)
        refused(await ann.ask("GET", f"/tasks/{task_id}"), 404, 4)

    async def test_two_keys_of_one_owner_share_their_tasks(self, admin: Api) -> None:
        writer = await admin.with_key("ci", Scope.WRITE, owner="team")
        reader = await admin.with_key("dashboard", Scope.READ, owner="team")
        task_id = await writer.create("a")
        assert (await reader.task(task_id))["output"] == ["a"]
        refused(await reader.ask("POST", f"/tasks/{task_id}/cancel"), 403, 22, "write")
        refused(await writer.ask("GET", f"/tasks/{task_id}"), 403, 22, "read")

    async def test_keys_are_not_looked_for_in_the_url(self, api: Api) -> None:
        for name in ("key", "api_key", "token", "access_token"):
            refused(await api.ask("GET", "/tasks", headers={"Authorization": ""}, **{name: api.key}), 401, 24)

    async def test_the_credential_comes_before_everything_else(self, api: Api) -> None:
        for path in ("/tasks/none?first=-1", "/tasks?limit=0"):
            refused(await api.ask("GET", path, headers={"Authorization": "Key x"}), 401, 30)
        nobody = {"Authorization": "", "Content-Type": "application/json"}
        refused(await api.ask("POST", "/tasks", data=b"{broken", headers=nobody), 401, 24)


class TestRouting:
    @pytest.mark.parametrize("prefix", [V1, CONNECT])
    @pytest.mark.parametrize(
        "path",
        ["", "/", "/nothing", "/tasks/", "/tasks/a/b", "/tasks/a/output/", "/tasks/a/finish/b", "//tasks", "/Tasks"],
    )
    async def test_a_path_that_nobody_serves_is_no_endpoint(self, api: Api, prefix: str, path: str) -> None:
        for method in ("GET", "POST", "HEAD"):
            refused(await api.under(prefix).ask(method, path), 404, 2)
        nobody = await api.under(prefix).ask("GET", path, headers={"Authorization": ""})
        refused(nobody, 404, 2)

    @pytest.mark.parametrize("prefix", [V1, CONNECT])
    async def test_a_wrong_method_is_told_the_right_ones(self, api: Api, prefix: str) -> None:
        for path in PATHS:
            allowed = {method for _, method, route in EVERY_ROUTE if route.path == path}
            for method in set(METHODS) - allowed:
                answer = await api.under(prefix).ask(method, at(path, "some"))
                refused(answer, 405, 2, method)
                assert set(answer.headers["Allow"].split(", ")) == allowed

    async def test_nothing_is_redirected(self, api: Api) -> None:
        task_id = await api.create()
        for path in (f"/tasks/{task_id}/", "//tasks", f"/tasks//{task_id}", "/tasks/?limit=1"):
            assert (await api.ask("GET", path)).status == 404

    async def test_other_paths_are_answered_in_json_too(self, api: Api) -> None:
        for prefix in ("", "/v2", "/v10", "/__api__", "/__api__/v10", "/v1x/tasks"):
            answer = await api.under(prefix).ask("GET", "/tasks")
            assert answer.status == 404
            assert "error" in answer.json


class TestBounds:
    async def test_a_url_that_is_too_long_is_refused(self, api: Api) -> None:
        refused(await api.ask("GET", "/tasks?" + "x" * MAX_URL_LENGTH), 414, 1030, str(MAX_URL_LENGTH))
        assert (await api.ask("GET", "/tasks?" + "x" * (MAX_URL_LENGTH - len("/v1/tasks?")))).status == 200

    async def test_a_header_that_is_too_large_is_refused(self, admin: Api) -> None:
        for name in ("X-Custom", "Authorization", "Accept", "Cookie"):
            headers = {name: "Key " + "x" * MAX_HEADER_LENGTH}
            refused(await admin.ask("GET", "/tasks", headers=headers), 431, 1031, name, str(MAX_HEADER_LENGTH))
        assert (await admin.ask("GET", "/tasks", headers={"X-Custom": "x" * MAX_HEADER_LENGTH})).status == 200

    async def test_an_expectation_that_cannot_be_met_is_ignored_or_refused_in_the_rooms_shape(self, api: Api) -> None:
        head = (
            b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Key %b\r\nExpect: nonsense\r\nConnection: close\r\n"
        )
        answer = await api.raw(head % api.key.encode() + b"Content-Length: 2\r\n\r\n{}")
        assert answer.startswith(b"HTTP/1.1 201 ") or b'{"code":' in answer

    @pytest.mark.parametrize(
        "path", [b"/v1/tasks/%ff%fe", b"/v1/%ff", b"/v1/tasks?name=%ff", b"/v1/tasks/%zz", b"/v1/%"]
    )
    async def test_a_path_that_is_no_text_is_refused_or_found_nowhere(self, api: Api, path: bytes) -> None:
        request = b"GET %b HTTP/1.1\r\nHost: x\r\nAuthorization: Key %b\r\nConnection: close\r\n\r\n"
        answer = await api.raw(request % (path, api.key.encode()))
        assert answer.split()[1] in (b"200", b"400", b"404")


class TestTheStoreFails:
    async def test_that_is_told_with_a_true_status(self, admin: Api) -> None:
        await admin.ask("GET", "/tasks")  # its key is known from here on
        await admin.services.store.close()
        for prefix, method, route in EVERY_ROUTE_WITH_A_KEY:
            if route.path in WITHOUT_THE_STORE:
                continue
            body = BODIES.get(route.path) if method == "POST" else None
            answer = await admin.under(prefix).ask(method, at(route.path, SOME_ID), body=body)
            refused(answer, 503, 1022)
            assert int(answer.headers["Retry-After"]) > 0

    async def test_a_full_disk_is_told(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        async def full(*_: object) -> None:
            raise StoreFull("the server's disk is full; nothing was stored")

        task_id = await api.create()
        monkeypatch.setattr(api.services.store, "append", full)
        refused(await api.ask("POST", f"/tasks/{task_id}/output", data=b"x"), 507, 1023, "full")

    async def test_a_wait_is_told_too(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        async def broken(*_: object) -> None:
            raise StoreUnavailable("the database failed")

        task_id = await api.create()
        async with api.waiting(f"/tasks/{task_id}", wait=20) as waiting:
            monkeypatch.setattr(api.services.tasks, "head", broken)
            api.services.wakeup.wake_all()
        refused(await waiting, 503, 1022)

    async def test_a_bug_is_told_without_its_details(
        self, api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def broken(*_: object) -> None:
            raise RuntimeError("the secret detail")

        monkeypatch.setattr(api.services.store, "list_tasks", broken)
        answer = await api.ask("GET", "/tasks")
        refused(answer, 500, 1033, "log")
        assert "secret" not in answer.text
        assert "the secret detail" in caplog.text
        assert api.key not in caplog.text


class TestDraining:
    async def test_answers_close_their_connection(self, api: Api) -> None:
        task_id = await api.create("a")
        assert "Connection" not in (await api.ask("GET", f"/tasks/{task_id}")).headers
        api.services.waits.drain()
        for path in (f"/tasks/{task_id}", "/tasks", "/nothing"):
            assert (await api.ask("GET", path)).headers["Connection"] == "close"


class TestHealth:
    async def health(self, api: Api, path: str, method: str = "GET") -> Answer:
        return await api.under("").ask(method, path, headers={"Authorization": ""})

    async def test_it_needs_no_key(self, api: Api) -> None:
        for path in ("/healthz", "/readyz"):
            answer = await self.health(api, path)
            assert (answer.status, answer.json) == (200, {"status": "ok"})
            assert (await self.health(api, path, "HEAD")).status == 200
            assert (await self.health(api, path, "POST")).status == 405

    async def test_a_server_that_stops_is_not_ready(self, api: Api) -> None:
        api.services.waits.drain()
        assert (await self.health(api, "/readyz")).status == 503
        assert (await self.health(api, "/healthz")).status == 200

    async def test_a_server_without_its_database_is_not_ready(self, api: Api) -> None:
        await api.services.store.close()
        answer = await self.health(api, "/readyz")
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.headers["Content-Type"] == JSON
        assert (await self.health(api, "/healthz")).status == 200


async def test_a_connection_goes_on_after_a_refusal(api: Api) -> None:
    """Keep-alive: a refused request leaves nothing behind that the next one would stumble over."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.client.port)
    key = b"Authorization: Key %b\r\n" % api.key.encode()
    for number in range(3):
        writer.write(b"GET /v1/tasks/none HTTP/1.1\r\nHost: x\r\n" + key + b"\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        assert head.startswith(b"HTTP/1.1 404"), number
        length = int(head.lower().split(b"content-length:")[1].split()[0])
        assert b'"code":4' in await reader.readexactly(length)
    writer.close()
    await eventually(lambda: api.services.waits.count == 0)
