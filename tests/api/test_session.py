"""PROTOCOLS.md, A3: browser sessions."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from http.cookies import Morsel, SimpleCookie
from typing import Any

import pytest
from aiohttp import ClientError

from taskserver.model import Scope, now_us
from tests.api.conversation import JSON, Answer, Api, refused
from tests.eventually import eventually

OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}
NO_KEY = {"Authorization": ""}


@dataclass(frozen=True)
class Browser:
    """A browser that is signed in with a key of ``api``, on a page of the server's."""

    api: Api
    cookie: Morsel[str]

    @property
    def headers(self) -> dict[str, str]:
        return {**NO_KEY, "Cookie": f"a=b; {self.cookie.key}={self.cookie.value}; c=d"}

    async def ask(self, method: str, path: str, site: str = "same-origin", **more: Any) -> Answer:
        return await self.api.ask(method, path, headers={**self.headers, "Sec-Fetch-Site": site}, **more)


def cookie_of(answer: Answer) -> Morsel[str]:
    """The one cookie that an answer sets."""
    (header,) = answer.headers.getall("Set-Cookie")
    (morsel,) = SimpleCookie(header).values()
    return morsel


async def post_key(api: Api, key: str, **headers: str) -> Answer:
    return await api.ask("POST", "/session", body={"key": key}, headers={**NO_KEY, **(headers or OWN_PAGE)})


async def sign_in(api: Api) -> Browser:
    answer = await post_key(api, api.key)
    assert answer.status == 200, answer.body
    api.client.session.cookie_jar.clear()  # the test says itself what is sent
    return Browser(api, cookie_of(answer))


async def test_a_key_is_exchanged_for_a_cookie_that_no_script_can_read(api: Api) -> None:
    answer = await post_key(api, api.key)
    assert answer.headers["Content-Type"] == JSON
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json == {
        "id": api.key_id,
        "name": "ann",
        "owner": "ann",
        "scopes": ["read", "write"],
        "expires_at": None,
    }
    cookie = cookie_of(answer)
    assert cookie["httponly"]
    assert cookie["samesite"] == "Strict"
    assert 6 * 24 * 3600 < int(cookie["max-age"]) <= 7 * 24 * 3600
    assert cookie["path"] == "", "the browser finds it by itself, behind a prefix too"
    assert cookie["secure"] == ""
    assert api.key not in answer.headers["Set-Cookie"]


async def test_over_https_the_cookie_goes_back_over_https_only(api: Api) -> None:
    origin = "https://tasks.example"
    answer = await post_key(api, api.key, Origin=origin, **{"X-Forwarded-Host": "tasks.example"})
    assert cookie_of(answer)["secure"] is True


async def test_the_session_does_what_its_key_may(api: Api) -> None:
    browser = await sign_in(api)
    task_id = await api.create("a")
    for _ in range(2):  # known by then
        assert (await browser.ask("GET", f"/tasks/{task_id}")).json["output"] == ["a"]
    assert (await browser.ask("POST", f"/tasks/{task_id}/cancel")).json["cancel_requested"] is True
    refused(await browser.ask("GET", "/keys"), 403, 22, "admin")
    assert (await browser.ask("GET", "/session")).json["name"] == "ann"


async def test_it_sees_its_owners_tasks_only(admin: Api) -> None:
    ann, bob = await admin.with_key("ann"), await admin.with_key("bob")
    task_id = await ann.create("a")
    refused(await (await sign_in(bob)).ask("GET", f"/tasks/{task_id}"), 404, 4)


async def test_a_key_in_the_header_counts_more_than_the_session(admin: Api) -> None:
    ann, bob = await admin.with_key("ann"), await admin.with_key("bob")
    browser = await sign_in(ann)
    answer = await bob.ask("GET", "/session", headers={"Cookie": browser.headers["Cookie"]})
    assert answer.json["name"] == "bob"


async def test_a_proxys_own_credential_does_not_hide_the_session(api: Api) -> None:
    browser = await sign_in(api)
    answer = await api.ask("GET", "/session", headers={**browser.headers, "Authorization": "Basic YTpi"})
    assert answer.json["name"] == "ann"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://{host}"},
        {"Origin": "http://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": "file://"},
        {"Origin": "http://[::1"},
        {"Origin": "http://{host}.elsewhere.example"},
    ],
    ids=str,
)
async def test_what_changes_something_must_come_from_our_own_page(api: Api, headers: dict[str, str]) -> None:
    browser = await sign_in(api)
    task_id = await api.create("a")
    host = f"127.0.0.1:{api.client.port}"
    sent = {name: value.replace("{host}", host) for name, value in headers.items()}
    for _ in range(2):
        answer = await api.ask("POST", f"/tasks/{task_id}/cancel", headers={**browser.headers, **sent})
        refused(answer, 403, 22, "page of this server")
        assert (await api.ask("GET", f"/tasks/{task_id}", headers={**browser.headers, **sent})).status == 200
    assert (await api.task(task_id))["cancel_requested"] is False
    refused(await api.ask("POST", "/session", body={"key": api.key}, headers={**NO_KEY, **sent}), 403, 22)
    refused(await api.ask("DELETE", "/session", headers={**browser.headers, **sent}), 403, 22)


@pytest.mark.parametrize("forwarded", [None, "tasks.example", "proxy.example, tasks.example"])
async def test_over_plain_http_the_origin_proves_it(api: Api, forwarded: str | None) -> None:
    browser = await sign_in(api)
    task_id = await api.create("a")
    if forwarded is None:
        headers = {"Origin": f"http://127.0.0.1:{api.client.port}"}
    else:
        headers = {"Origin": "http://tasks.example", "X-Forwarded-Host": forwarded}
    answer = await api.ask("POST", f"/tasks/{task_id}/cancel", headers={**browser.headers, **headers})
    assert answer.json["cancel_requested"] is True


async def test_a_revoked_keys_session_is_dead_at_once(admin: Api) -> None:
    ann = await admin.with_key("ann")
    browser = await sign_in(ann)
    task_id = await ann.create("a")
    path = f"/tasks/{task_id}/output"
    waiting = asyncio.ensure_future(browser.ask("GET", path, first=1, wait=55))
    await eventually(lambda: admin.services.waits.count == 1, "the wait")
    await admin.json("DELETE", "/keys/ann")
    refused(await waiting, 401, 30)
    refused(await browser.ask("GET", "/session"), 401, 30)
    refused(await post_key(ann, ann.key), 401, 30)


@pytest.mark.parametrize("path", ["/changes", "/tasks/{}/output?format=ndjson&follow=true"])
async def test_streams_end_with_it(api: Api, path: str) -> None:
    browser = await sign_in(api)
    task_id = await api.create("a")
    url = api.client.make_url(api.prefix + path.format(task_id))
    async with api.client.session.get(url, headers=browser.headers) as answer:
        assert answer.status == 200
        await eventually(lambda: api.services.waits.count == 1, "the stream")
        caller = api.services.tokens.recall_session(browser.cookie.value)
        assert caller is not None
        caller.ends_at = now_us()
        api.services.wakeup.publish([caller.topic])
        with pytest.raises(ClientError):  # cut
            await answer.content.read()
    refused(await browser.ask("GET", "/session"), 401, 30)


async def test_it_ends_with_its_key(admin: Api) -> None:
    ann = await admin.with_key("ann", seconds=100)
    cookie = (await sign_in(ann)).cookie
    assert 90 <= int(cookie["max-age"]) <= 100


async def test_signing_out_takes_the_cookie_away(api: Api) -> None:
    browser = await sign_in(api)
    answer = await browser.ask("DELETE", "/session")
    assert answer.status == 204
    gone = cookie_of(answer)
    assert (gone.key, gone.value, gone["max-age"]) == (browser.cookie.key, "", "0")
    assert (await api.ask("DELETE", "/session", headers={**NO_KEY, **OWN_PAGE})).status == 204


async def test_what_is_no_session_is_refused(api: Api) -> None:
    cookie = (await sign_in(api)).cookie
    head, claims, signature = cookie.value.split(".")
    others = ["", "x", api.key, f"{head}.{claims}.", f"{head}.{claims}.{signature[::-1]}", f"{head}..{signature}"]
    for value in others:
        headers = {**NO_KEY, "Cookie": f"{cookie.key}={value}"}
        refused(await api.ask("GET", "/tasks", headers=headers), 401, 30)
    other_port = {**NO_KEY, "Cookie": f"taskserver_session_1={cookie.value}"}
    refused(await api.ask("GET", "/tasks", headers=other_port), 401, 24)


async def test_airflows_tokens_and_sessions_do_not_pass_for_each_other(api: Api) -> None:
    browser = await sign_in(api)
    airflow = replace(api, prefix="")
    token = await api.services.tokens.issue("ann", api.key)
    answer = await airflow.ask("GET", "/api/v2/dags", headers={"Authorization": f"Bearer {browser.cookie.value}"})
    assert answer.status == 403
    headers = {**NO_KEY, "Cookie": f"{browser.cookie.key}={token}"}
    refused(await api.ask("GET", "/tasks", headers=headers), 401, 30)


async def test_other_rooms_take_no_session(api: Api) -> None:
    browser = await sign_in(api)
    for path in ("/api/v2/dags", f"/api/v1/executions/{'0' * 8}-0000-7000-8000-{'0' * 12}"):
        answer = await replace(api, prefix="").ask("GET", path, headers={**browser.headers, **OWN_PAGE})
        assert answer.status == 401


async def test_a_key_that_may_not_read_has_nothing_to_see(admin: Api) -> None:
    writer = await admin.with_key("writer", Scope.WRITE)
    refused(await post_key(writer, writer.key), 403, 22, "read")


async def test_a_key_must_be_given(api: Api) -> None:
    refused(await api.ask("POST", "/session", body={}, headers={**NO_KEY, **OWN_PAGE}), 400, 87, "key")
    refused(await post_key(api, ""), 401, 30)
    form = {**NO_KEY, **OWN_PAGE, "Content-Type": "application/x-www-form-urlencoded"}
    refused(await api.ask("POST", "/session", data=b"key=x", headers=form), 415, 87)
