"""How much and how often (PROTOCOLS.md, "Bounds"): refused in the room's own shape, with when to come back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

import pytest

from taskserver.config import Limits, Settings
from taskserver.errors import TooManyWaiters
from taskserver.web.failures import LONGEST_RETRY_AFTER, headers
from tests.api.conftest import Serve
from tests.api.conversation import Answer, Api, refused
from tests.eventually import eventually

A_WRONG_KEY = "x" * 40
NEVER = 0.001  # requests a second: one is saved, and the next one comes in a quarter of an hour


def retry_after(answer: Answer) -> int:
    assert answer.status == 429, answer.body
    return int(answer.headers["Retry-After"])


class TestWaiters:
    async def test_a_key_has_its_own_bound_and_others_go_on(self, serve: Serve) -> None:
        admin = await serve(Settings(limits=Limits(waiters_per_key=2)))
        ann, bob = await admin.with_key("ann"), await admin.with_key("bob")
        hers, his = await ann.create(), await bob.create()
        async with (
            ann.waiting(f"/tasks/{hers}", wait=20),
            ann.waiting(f"/tasks/{hers}/output", wait=55),
            bob.waiting(f"/tasks/{his}", wait=20),
        ):
            for path in (f"/tasks/{hers}", f"/tasks/{hers}/output"):
                answer = await ann.ask("GET", path, wait=20)
                refused(answer, 429, 1020, "2", "key")
                assert 1 <= retry_after(answer) <= LONGEST_RETRY_AFTER
            assert (await ann.ask("GET", f"/tasks/{hers}")).status == 200
            await ann.finish(hers)
            await bob.finish(his)
        async with ann.waiting(f"/tasks/{await ann.create('x')}", wait=1):
            pass  # the places are free again

    async def test_streams_count_too(self, serve: Serve) -> None:
        api = await serve(Settings(limits=Limits(waiters_per_key=1)))
        task_id = await api.create("a line")
        following = api.begin("GET", f"/tasks/{task_id}/output", format="text", follow="true")
        await eventually(lambda: api.services.waits.count == 1)
        refused(await api.ask("GET", f"/tasks/{task_id}/output", format="ndjson", follow="true"), 429, 1020)
        await api.finish(task_id)
        assert (await following).body == b"a line\n"

    def test_they_do_not_all_come_back_at_once(self) -> None:
        seconds = {headers(TooManyWaiters("no place"))["Retry-After"] for _ in range(200)}
        assert seconds == {str(number) for number in range(1, LONGEST_RETRY_AFTER + 1)}


class TestRate:
    async def test_a_key_that_asks_too_often_is_told_when_to_come_back(self, serve: Serve) -> None:
        admin = await serve(Settings(limits=Limits(rate_per_key=NEVER)))
        ann, bob = await admin.with_key("ann"), await admin.with_key("bob")
        assert (await ann.ask("GET", "/tasks")).status == 200
        answer = await ann.ask("GET", "/tasks")
        payload = refused(answer, 429, 1024, "too many requests", "key")
        assert 900 < payload["retry_after"] <= retry_after(answer) <= 1000
        assert (await bob.ask("GET", "/tasks")).status == 200

    async def test_all_together(self, serve: Serve) -> None:
        admin = await serve(Settings(limits=Limits(rate=NEVER)))
        ann = await admin.with_key("ann")
        assert (await admin.ask("GET", "/tasks")).status == 200
        answer = await ann.ask("GET", "/tasks")
        refused(answer, 429, 1024, "too many requests")
        assert retry_after(answer) > 900

    async def test_each_room_says_it_in_its_own_words(self, serve: Serve) -> None:
        admin = await serve(Settings(limits=Limits(rate=NEVER)))
        assert (await admin.ask("GET", "/tasks")).status == 200
        airflow = await admin.under("/api/v2").ask("GET", "/dags")
        assert (retry_after(airflow) > 900, airflow.status, b'"detail"' in airflow.body) == (True, 429, True)
        executions = await admin.under("/api/v1").ask("GET", "/executions/nightly")
        assert retry_after(executions) > 900
        assert b'"error_code":"too_many_requests"' in executions.body
        login = await admin.under("/auth").ask("POST", "/token", body={"username": "root", "password": admin.key})
        assert retry_after(login) > 900

    async def test_health_is_never_refused_and_who_has_no_key_takes_nothing(self, serve: Serve) -> None:
        admin = await serve(Settings(limits=Limits(rate=NEVER)))
        for _ in range(3):
            assert (await admin.under("").ask("GET", "/readyz")).status == 200
            assert (await admin.ask("GET", "/tasks", headers={"Authorization": ""})).status == 401
        assert (await admin.ask("GET", "/tasks")).status == 200
        assert (await admin.under("").ask("GET", "/healthz")).status == 200


class TestSignIns:
    LIMITS = Limits(failed_sign_ins=3)

    async def fail(self, api: Api, number: int = 0, headers: Mapping[str, str] | None = None) -> Answer:
        wrong = {"Authorization": f"Key {A_WRONG_KEY}{number}", **(headers or {})}
        return await api.ask("GET", "/tasks", headers=wrong)

    async def test_after_some_wrong_keys_the_answer_is_to_come_back_later(self, serve: Serve) -> None:
        api = await serve(Settings(limits=self.LIMITS))
        for number in range(3):
            refused(await self.fail(api, number), 401, 30)
        for number in range(3):
            answer = await self.fail(api, number)
            refused(answer, 429, 1025, "this address")
            assert 15 <= retry_after(answer) <= 20

    async def test_a_good_key_is_good_from_the_same_address(self, serve: Serve) -> None:
        api = await serve(Settings(limits=self.LIMITS))
        for number in range(5):
            await self.fail(api, number)
        assert (await api.ask("GET", "/tasks")).status == 200
        fresh = await api.with_key("ann")  # one that nobody has shown yet
        assert (await fresh.ask("GET", "/tasks")).status == 200

    async def test_no_key_at_all_and_a_lack_of_rights_do_not_count(self, serve: Serve) -> None:
        api = await serve(Settings(limits=self.LIMITS))
        ann = await api.with_key("ann")
        for _ in range(5):
            refused(await api.ask("GET", "/tasks", headers={"Authorization": ""}), 401, 24)
            refused(await ann.ask("GET", "/keys"), 403, 22)
        refused(await self.fail(api), 401, 30)

    async def test_a_key_that_was_revoked_counts_also_while_it_is_remembered(self, serve: Serve) -> None:
        api = await serve(Settings(limits=self.LIMITS))
        ann = await api.with_key("ann")
        assert (await ann.ask("GET", "/tasks")).status == 200
        await api.services.keys.revoke(ann.key_id)
        for _ in range(3):
            refused(await ann.ask("GET", "/tasks"), 401, 30)
        refused(await ann.ask("GET", "/tasks"), 429, 1025)

    async def test_waits_that_a_revocation_ends_do_not_count(self, serve: Serve) -> None:
        api = await serve(Settings(limits=self.LIMITS))
        ann = await api.with_key("ann")
        task_id = await ann.create()
        waits = [ann.begin("GET", f"/tasks/{task_id}", wait=20) for _ in range(10)]
        await eventually(lambda: api.services.waits.count == 10)
        await api.services.keys.revoke(ann.key_id)
        assert {answer.status for answer in await asyncio.gather(*waits)} == {401}
        refused(await self.fail(api), 401, 30)

    async def test_passwords_count_like_keys_and_together_with_them(self, serve: Serve) -> None:
        api = await serve(Settings(limits=self.LIMITS))
        login: Any = {"username": "root", "password": A_WRONG_KEY}
        for _ in range(2):
            assert (await api.under("/auth").ask("POST", "/token", body=login)).status == 401
        refused(await self.fail(api), 401, 30)
        answer = await api.under("/auth").ask("POST", "/token", body=login)
        assert retry_after(answer) >= 15
        assert b'{"detail":"' in answer.body
        login["password"] = api.key
        assert (await api.under("/auth").ask("POST", "/token", body=login)).status == 201

    async def test_a_session_that_is_over_does_not_count_so_that_the_form_can_be_reached(self, serve: Serve) -> None:
        api = await serve(Settings(limits=self.LIMITS))
        cookie = {"Authorization": "", "Cookie": f"taskserver_session_{api.client.port}=a.b.c"}
        for _ in range(5):
            refused(await api.ask("GET", "/session", headers=cookie), 401, 30, "session is over")
        for number in range(4):
            await self.fail(api, number)
        refused(await api.ask("GET", "/session", headers=cookie), 401, 30)
        login = {"key": A_WRONG_KEY}
        answer = await api.ask("POST", "/session", body=login, headers={**cookie, "Sec-Fetch-Site": "same-origin"})
        refused(answer, 429, 1025)

    async def test_behind_a_proxy_each_client_counts_for_itself(self, serve: Serve) -> None:
        proxies = (ip_network("127.0.0.1"),)
        api = await serve(Settings(limits=self.LIMITS, trusted_proxies=proxies))
        for last in range(3):
            # Addresses of one network: one customer has all of them.
            refused(await self.fail(api, headers={"X-Forwarded-For": f"2001:db8::{last}"}), 401, 30)
        refused(await self.fail(api, headers={"X-Forwarded-For": "2001:db8::ffff"}), 429, 1025)
        refused(await self.fail(api, headers={"X-Forwarded-For": "2001:db8:0:1::1"}), 401, 30)

    async def test_without_a_proxy_nobody_can_say_he_is_somebody_else(self, serve: Serve) -> None:
        api = await serve(Settings(limits=self.LIMITS))
        for number in range(3):
            refused(await self.fail(api, headers={"X-Forwarded-For": f"198.51.100.{number}"}), 401, 30)
        refused(await self.fail(api, headers={"X-Forwarded-For": "198.51.100.77"}), 429, 1025)

    async def test_without_a_bound_they_all_get_the_same(self, serve: Serve) -> None:
        api = await serve(Settings(limits=Limits(failed_sign_ins=None)))
        assert {(await self.fail(api, number)).status for number in range(50)} == {401}


class TestOutput:
    """At most 40 lines, of which 10 are for the end."""

    @pytest.fixture
    async def api(self, serve: Serve) -> Api:
        return await serve(Settings(limits=Limits(output_lines=40)))

    async def test_lines_beyond_the_limit_are_refused_as_a_whole(self, api: Api) -> None:
        task_id = await api.create(*["x"] * 29)
        answer = await api.ask("POST", f"/tasks/{task_id}/output", body={"lines": ["y", "z"]}, first=29)
        assert refused(answer, 413, 1012, "29 lines of at most 30") == {"last": 29, "limit": 30, "reserve": 10}
        assert await api.append(task_id, "y") == {"first": 29, "last": 30, "cancel_requested": False}
        assert refused(await api.ask("POST", f"/tasks/{task_id}/output", data=b"z"), 413, 1012)["last"] == 30
        task = await api.task(task_id)
        assert (task["last"], task["state"], task["output"][-1]) == (30, "running", "y")

    async def test_a_repeat_of_what_stands_is_no_addition(self, api: Api) -> None:
        task_id = await api.create(*["x"] * 30)
        assert (await api.append(task_id, "x", "x", first=28))["last"] == 30
        assert (await api.append(task_id))["last"] == 30  # nor is nothing at all: a sign of life

    async def test_the_end_has_room_of_its_own(self, api: Api) -> None:
        task_id = await api.create(*["x"] * 30)
        await api.append(task_id, "mark", *["end"] * 8, closing="true", first=30)
        answer = await api.ask("POST", f"/tasks/{task_id}/output", body={"lines": ["a", "b"]}, closing="true")
        assert refused(answer, 413, 1012) == {"last": 39, "limit": 40, "reserve": 0}
        answer = await api.ask("POST", f"/tasks/{task_id}/finish", body={"output": ["a", "b"]})
        assert refused(answer, 413, 1012)["last"] == 39
        assert (await api.task(task_id))["state"] == "running"  # nothing is half done
        assert (await api.finish(task_id, output=["a"]))["last"] == 40

    async def test_a_live_body_fills_it_and_is_then_told(self, api: Api) -> None:
        task_id = await api.create(*["x"] * 25)

        async def lines() -> Any:
            yield b"one\ntwo\n"
            yield b"".join(b"%d\n" % number for number in range(100))

        answer = await api.ask(
            "POST", f"/tasks/{task_id}/output", data=lines(), headers={"Content-Type": "text/plain"}, first=25
        )
        assert refused(answer, 413, 1012) == {"last": 30, "limit": 30, "reserve": 10}
        assert (await api.lines(task_id))[25:] == ["one", "two", "0", "1", "2"]

    async def test_a_live_body_finds_it_full(self, api: Api) -> None:
        task_id = await api.create(*["x"] * 30)

        async def lines() -> Any:
            yield b'{"text":"more"}\n'

        path, kind = f"/tasks/{task_id}/output", {"Content-Type": "application/x-ndjson"}
        assert refused(await api.ask("PUT", path, data=lines(), headers=kind), 413, 1012)["last"] == 30
        answer = await api.ask("PUT", path, data=lines(), headers=kind, closing="true")
        assert (answer.status, answer.json["last"]) == (200, 31)

    async def test_by_default_there_is_room_for_more_than_anybody_writes(self, serve: Serve) -> None:
        api = await serve(Settings())
        assert (await api.append(await api.create(), *["x"] * 50_000))["last"] == 50_000
