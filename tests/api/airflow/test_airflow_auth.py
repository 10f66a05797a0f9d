"""PROTOCOLS.md, B1: tokens."""

from __future__ import annotations

import time
from urllib.parse import urlencode

import jwt
import pytest

from taskserver.config import Settings
from taskserver.model import MICROSECONDS, Scope, now_us
from tests.api.airflow.conversation import DAG, Airflow, detail, shown
from tests.api.conftest import Serve
from tests.api.conversation import Answer

FORM = "application/x-www-form-urlencoded"


async def signing_secret(airflow: Airflow) -> bytes:
    """What the server signs with; ours, if it has none yet."""
    return await airflow.api.services.store.keep_secret("token", b"s" * 64)


async def sign(airflow: Airflow, **claims: object) -> str:
    """A token of the server's, with claims of the test's choice."""
    return jwt.encode(claims, await signing_secret(airflow), "HS256")


async def ask_token(airflow: Airflow, data: bytes, content_type: str | None) -> Answer:
    headers = {} if content_type is None else {"Content-Type": content_type}
    return await airflow.ask("POST", "/auth/token", data=data, headers=headers)


# --- getting one -----------------------------------------------------------------


async def test_a_key_gets_a_token_that_works(airflow: Airflow) -> None:
    await airflow.dag()
    token = await airflow.login("ann", airflow.api.key)
    bearer = airflow.bearing(token)
    assert (await bearer.trigger())["triggering_user_name"] == "ann"
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["sub"] == airflow.api.key_id
    assert 0 < claims["exp"] - time.time() <= 24 * 3600
    assert airflow.api.key not in token


@pytest.mark.parametrize("content_type", [FORM, f"{FORM}; charset=utf-8"])
async def test_a_form_gets_one_too(airflow: Airflow, content_type: str) -> None:
    form = urlencode({"username": "ann", "password": airflow.api.key, "grant_type": "password"}).encode()
    token = shown(await ask_token(airflow, form, content_type), 201)["access_token"]
    assert await airflow.bearing(token).json("GET", "/dags") == {"dags": [], "total_entries": 0}


async def test_a_body_without_a_type_counts_as_json(airflow: Airflow) -> None:
    data = f'{{"username": "ann", "password": "{airflow.api.key}"}}'.encode()
    assert shown(await ask_token(airflow, data, None), 201)["access_token"]


async def test_wrong_credentials_get_none(airflow: Airflow) -> None:
    bob = await airflow.with_key("bob")
    pairs = [("ann", "wrong"), ("ann", bob.api.key), ("nobody", airflow.api.key), ("ann", "\N{EURO SIGN}" * 40)]
    for username, password in pairs:
        answer = await airflow.ask("POST", "/auth/token", body={"username": username, "password": password})
        assert detail(answer, 401) == "Invalid credentials"


@pytest.mark.parametrize("login", [{"username": "", "password": "x"}, {"username": "x", "password": ""}])
async def test_empty_ones_are_a_mistake_of_their_own(airflow: Airflow, login: dict[str, str]) -> None:
    answer = await airflow.ask("POST", "/auth/token", body=login)
    assert detail(answer, 400) == "Username and password must be provided"
    answer = await ask_token(airflow, urlencode(login).encode(), FORM)
    assert detail(answer, 400) == "Username and password must be provided"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"username": "ann"}', ["1 validation error", "password", "missing"]),
        (b"", ["2 validation errors", "username", "password", "missing"]),
        (b'{"username": "ann", "password": "SECRET", "more": 1}', ["more", "extra_forbidden"]),
        (b'{"username": ["SECRET"], "password": null}', ["2 validation", "string_type"]),
        (b'["SECRET"]', ["model_attributes_type"]),
        (b"{SECRET", ["json_invalid"]),
        (b'{"username": "\xff"}', ["json_invalid"]),
        (b'{"username": "ann", "password": ' + b"[" * 2000, ["json_invalid"]),
    ],
)
async def test_what_is_no_login_is_refused_in_one_text(airflow: Airflow, body: bytes, words: list[str]) -> None:
    said = detail(await ask_token(airflow, body, "application/json"), 422)
    assert isinstance(said, str)
    for word in words:
        assert word in said
    assert "SECRET" not in said, "what was sent may be a key"


async def test_a_form_without_a_field_is_refused_too(airflow: Airflow) -> None:
    assert "password" in detail(await ask_token(airflow, b"username=ann", FORM), 422)


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "multipart/form-data", "application/jsonx"])
async def test_another_content_type_is_not_taken(airflow: Airflow, content_type: str) -> None:
    said = detail(await ask_token(airflow, b"{}", content_type), 415)
    assert said == "Only application/json or application/x-www-form-urlencoded is supported"


async def test_the_paths_around_it(airflow: Airflow) -> None:
    answer = await airflow.ask("GET", "/auth/token")
    assert detail(answer, 405) == "Method Not Allowed"
    assert answer.headers["Allow"] == "POST"
    for path in ("/auth", "/auth/", "/auth/token/", "/auth/none"):
        assert detail(await airflow.ask("POST", path, body={}), 404) == "Not Found"


async def test_the_documentations_script_writes_two_slashes(airflow: Airflow) -> None:
    await airflow.dag()
    line = f"Authorization: Bearer {airflow.api.key}\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = await airflow.api.raw(f"GET //api/v2/dags HTTP/1.1\r\n{line}".encode())
    assert answer.endswith(b'"total_entries":1}')
    answer = await airflow.api.raw(f"POST //auth/token HTTP/1.1\r\n{line}".encode())
    assert answer.startswith(b"HTTP/1.1 422 ")
    answer = await airflow.api.raw(f"GET //api/v2/none HTTP/1.1\r\n{line}".encode())
    assert answer.endswith(b'{"detail":"Not Found"}')


# --- showing one -----------------------------------------------------------------


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic YW5uOmFubg==", "Token x", "bearer\t"])
async def test_without_a_credential_nothing_is_told(airflow: Airflow, header: str | None) -> None:
    for method, path in (("GET", "/dags"), ("POST", f"/dags/{DAG}/dagRuns"), ("GET", "/dags/x/dagRuns/y/wait")):
        answer = await airflow.ask(method, path, headers={"Authorization": header or ""}, data=b"not JSON")
        assert detail(answer, 401) == "Not authenticated"


async def test_the_schemes_and_their_case(airflow: Airflow) -> None:
    for scheme in ("Bearer", "bearer", "BEARER", "Key", "key"):
        answer = await airflow.ask("GET", "/dags", headers={"Authorization": f"{scheme} {airflow.api.key}"})
        assert shown(answer)["total_entries"] == 0


async def test_what_is_not_valid_is_refused_before_the_request_is_looked_at(airflow: Airflow) -> None:
    secret = await signing_secret(airflow)
    good = await airflow.login("ann", airflow.api.key)
    head, claims, signature = good.split(".")
    key_id, later = airflow.api.key_id, int(time.time()) + 60
    bad = [
        "x",
        "x" * 40,
        "a.b.c",
        f"{head}.{claims}.",
        f"{head}.{claims}.{signature[::-1]}",
        f"{head}.{claims[:-2]}.{signature}",
        jwt.encode({"sub": key_id, "exp": later}, "k" * 32, "HS256"),
        jwt.encode({"sub": key_id, "exp": later}, "", "none"),
        jwt.encode({"sub": key_id, "exp": later}, secret, "HS512"),
        await sign(airflow, sub=key_id),
        await sign(airflow, exp=later),
        await sign(airflow, sub="0" * 16, exp=later),
        "." * 1000,
        "W1tb" * 3000 + ".e30.x",  # a header that is nested deeply
    ]
    for credential in bad:
        answer = await airflow.bearing(credential).ask("POST", f"/dags/{DAG}/dagRuns", data=b"not JSON")
        assert detail(answer, 403) == "Invalid JWT token", credential


async def test_bytes_that_are_no_text_are_refused_too(airflow: Airflow) -> None:
    answer = await airflow.api.raw(
        b"GET /api/v2/dags HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer \xff\xfe.\xff.x\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert answer.endswith(b'{"detail":"Invalid JWT token"}')


async def test_an_expired_token_says_so(airflow: Airflow) -> None:
    token = await sign(airflow, sub=airflow.api.key_id, exp=int(time.time()) - 1)
    assert detail(await airflow.bearing(token).ask("GET", "/dags"), 401) == "Token Expired"


async def test_a_token_ends_with_its_key(airflow: Airflow) -> None:
    short = await airflow.with_key("short", seconds=1000)
    token = await airflow.login("short", short.api.key)
    ends = jwt.decode(token, options={"verify_signature": False})["exp"]
    assert ends * MICROSECONDS <= now_us() + 1000 * MICROSECONDS


async def test_a_revoked_keys_token_is_worth_nothing(airflow_admin: Airflow, airflow: Airflow) -> None:
    bearer = airflow.bearing(await airflow.login("ann", airflow.api.key))
    assert await bearer.json("GET", "/dags")
    await airflow_admin.api.json("DELETE", f"/keys/{airflow.api.key_id}")
    assert detail(await bearer.ask("GET", "/dags"), 403) == "Invalid JWT token"
    assert detail(await airflow.ask("GET", "/dags"), 403) == "Invalid JWT token"
    answer = await airflow.ask("POST", "/auth/token", body={"username": "ann", "password": airflow.api.key})
    assert detail(answer, 401) == "Invalid credentials"


async def test_a_key_that_was_revoked_elsewhere_is_not_looked_up_by_its_name_alone(airflow_admin: Airflow) -> None:
    old = await airflow_admin.with_key("ci")
    token = await airflow_admin.login("ci", old.api.key)
    await airflow_admin.api.json("DELETE", f"/keys/{old.api.key_id}")
    await airflow_admin.with_key("ci")
    assert detail(await old.bearing(token).ask("GET", "/dags"), 403) == "Invalid JWT token"


async def test_a_key_needs_the_scope(airflow: Airflow) -> None:
    await airflow.dag()
    reader = await airflow.with_key("reader", Scope.READ, owner="ann")
    writer = await airflow.with_key("writer", Scope.WRITE, owner="ann")
    run = await writer.trigger()
    assert detail(await writer.ask("GET", "/dags"), 403) == "Forbidden"
    assert detail(await reader.ask("POST", f"/dags/{DAG}/dagRuns", data=b"not JSON"), 403) == "Forbidden"
    token = await reader.login("reader", reader.api.key)
    assert (await reader.bearing(token).json("GET", f"/dags/{DAG}/dagRuns"))["dag_runs"] == [run]


async def test_another_databases_token_is_not_taken(serve: Serve) -> None:
    first, second = Airflow(await serve(Settings())), Airflow(await serve(Settings()))
    token = await first.login("root", first.api.key)
    assert await first.bearing(token).json("GET", "/dags")
    assert detail(await second.bearing(token).ask("GET", "/dags"), 403) == "Invalid JWT token"
