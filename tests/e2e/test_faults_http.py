"""Requests that are too large, broken, or no HTTP at all: a true status, nothing stored, and the server goes on."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Iterator

import pytest

from tests.e2e.raw import Raw
from tests.server import Answer, Server

KIB = 1024
MIB = 1024 * KIB
MAX_LINE = 1 * MIB
MAX_BODY = 8 * MIB
CHUNKED = "Transfer-Encoding: chunked"


@pytest.fixture
def task(server: Server) -> Iterator[str]:
    """A task with one line. After the test the server must be well, and the task as it was."""
    task = server.new_task()
    server.post(f"/v1/tasks/{task}/output", "the only line\n")
    yield task
    assert server.get("/readyz").status == 200
    assert server.get(f"/v1/tasks/{task}").json["output"] == ["the only line"]
    assert "taskserver.web" not in server.log  # the log of our own internal errors


def refused(answer: Answer, status: int, code: int, *words: str) -> None:
    """The answer has the shape of PROTOCOLS.md, A2."""
    assert (answer.status, answer.json["code"]) == (status, code), answer
    assert answer.json.keys() == {"code", "error", "payload"}
    for word in words:
        assert word in answer.json["error"]


def ask(server: Server, method: str, path: str, *headers: str, body: bytes = b"") -> Answer:
    """One request with these headers and bytes, however wrong they are."""
    with Raw(server) as client:
        client.ask(method, path, *headers)
        with contextlib.suppress(ConnectionError):  # it may be refused before all of it is sent
            client.send(body)
        return client.answer()


# --- too large -------------------------------------------------------------------


def test_a_url_beyond_the_limit(server: Server, task: str) -> None:
    path = f"/v1/tasks/{task}?first=0&x="
    longest = path + "x" * (8 * KIB - len(path))
    assert server.get(longest).status == 200
    refused(server.get(longest + "x"), 414, 1030, "8192 bytes")


def test_a_header_beyond_the_limit(server: Server, task: str) -> None:
    path = f"/v1/tasks/{task}"
    assert ask(server, "GET", path, "X-Note: " + "x" * 16 * KIB).status == 200
    refused(ask(server, "GET", path, "X-Note: " + "x" * (16 * KIB + 1)), 431, 1031, "X-Note", "16384 bytes")


@pytest.mark.parametrize(
    ("path", "header"),
    [
        pytest.param("/v1/tasks?name=" + "x" * 100 * KIB, "X-Note: short", id="url"),
        pytest.param("/v1/tasks", "X-Note: " + "x" * 100 * KIB, id="header"),
        pytest.param("/v1/tasks", "\r\n".join(f"X-{n}: x" for n in range(10_000)), id="headers"),
    ],
)
def test_a_head_beyond_what_is_parsed_at_all(server: Server, task: str, path: str, header: str) -> None:
    with Raw(server) as client:
        with contextlib.suppress(ConnectionError):
            client.ask("GET", path, header)
        assert client.rest().split(b" ", 2)[1] == b"400"  # and then the connection is closed


def test_a_body_beyond_the_limit_is_refused_unread(server: Server, task: str) -> None:
    answer = ask(server, "POST", f"/v1/tasks/{task}/output", f"Content-Length: {MAX_BODY + 1}")
    refused(answer, 413, 1010, f"{MAX_BODY} bytes")
    assert answer.headers["Connection"] == "close"
    answer = ask(server, "POST", f"/v1/tasks/{task}/output", "Content-Length: 99999999999999", body=b"a\n" * 1000)
    refused(answer, 413, 1010, f"{MAX_BODY} bytes")


def test_a_json_body_of_unknown_length_beyond_the_limit(server: Server, task: str) -> None:
    with Raw(server) as client:
        client.ask("POST", f"/v1/tasks/{task}/output", "Content-Type: application/json", CHUNKED)
        client.send_chunk(b'{"lines": [')
        with contextlib.suppress(ConnectionError):
            for _ in range(2 * MAX_BODY // MIB):
                client.send_chunk(b'"' + b"x" * 500 * KIB + b'",' + b'"' + b"x" * 500 * KIB + b'",')
        refused(client.answer(), 413, 1010, f"{MAX_BODY} bytes")


def test_a_compressed_body_is_refused_whatever_it_holds(server: Server, task: str) -> None:
    for body in (gzip.compress(b"one\ntwo\n"), gzip.compress(b"a\n" * 10 * MAX_BODY), b"this is no gzip"):
        length = f"Content-Length: {len(body)}"
        answer = ask(server, "POST", f"/v1/tasks/{task}/output", "Content-Encoding: gzip", length, body=body)
        refused(answer, 415, 87, "gzip")


@pytest.mark.parametrize("form", ["text", "json", "ndjson", "finish"])
def test_a_line_beyond_the_limit(server: Server, task: str, form: str) -> None:
    too_long = "x" * (MAX_LINE + 1)
    path = f"/v1/tasks/{task}/output"
    if form == "text":
        answer = server.post(path, f"short\n{too_long}\n")
    elif form == "json":
        answer = server.post(path, {"lines": ["short", too_long]})
    elif form == "ndjson":
        body = f'{{"text": "short"}}\n{{"text": "{too_long}"}}\n'.encode()
        answer = ask(
            server, "POST", path, "Content-Type: application/x-ndjson", f"Content-Length: {len(body)}", body=body
        )
    else:
        answer = server.post(f"/v1/tasks/{task}/finish", {"output": ["short", too_long]})
    refused(answer, 413, 1010, f"{MAX_LINE} bytes")


def test_a_line_of_just_the_limit(server: Server) -> None:
    uid, longest = server.new_task(), "é" * (MAX_LINE // 2)  # the limit counts bytes of UTF-8
    assert server.post(f"/v1/tasks/{uid}/output", longest).status == 200
    assert server.get(f"/v1/tasks/{uid}").json["output"] == [longest]


def test_a_line_without_an_end_in_a_live_body(server: Server) -> None:
    uid = server.new_task()
    with Raw(server) as producer:
        producer.ask("POST", f"/v1/tasks/{uid}/output", CHUNKED).send_chunk(b"short\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                producer.send_chunk(b"x" * 100 * KIB)
        answer = producer.answer()
    refused(answer, 413, 1010, f"{MAX_LINE} bytes")
    assert answer.json["payload"] == {"last": 1}  # what was appended before it stays
    assert server.get(f"/v1/tasks/{uid}").json["output"] == ["short"]


# --- broken ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x00\x01\x02\xff\xfe\r\n\r\n", id="bytes"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100), id="tls"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="http2"),
        pytest.param(b"BREW /v1/tasks HTTP/1.1\r\nHost: x\r\n\r\n", id="method"),
        pytest.param(b"GET /v1/tasks HTTP/1.1\r\nHost: x\r\nX-A: \x00\r\n\r\n", id="nul-in-a-header"),
        pytest.param(b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", id="negative-length"),
        pytest.param(b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: two\r\n\r\n", id="length-in-words"),
        pytest.param(
            b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="two-lengths",  # where one server believes the one and the next the other, requests can be smuggled
        ),
    ],
)
def test_no_http(server: Server, task: str, data: bytes) -> None:
    with Raw(server) as client:
        assert client.send(data).rest().split(b" ", 2)[1] == b"400"  # and then the connection is closed


def test_broken_chunks(server: Server, task: str) -> None:
    with Raw(server) as client:
        client.ask("POST", f"/v1/tasks/{task}/output", CHUNKED)
        assert client.send(b"no length\r\nline\n\r\n0\r\n\r\n").answer().status == 400


def test_chunks_that_break_under_way_end_a_live_body(server: Server) -> None:
    uid = server.new_task()
    with Raw(server) as producer:
        producer.ask("POST", f"/v1/tasks/{uid}/output", CHUNKED).send_chunk(b"whole\nhalf")
        assert server.get(f"/v1/tasks/{uid}/output?first=0&wait=20").json["output"] == ["whole"]
        refused(producer.send(b"no length\r\n\r\n").answer(), 400, 87, "chunked")
    assert server.get(f"/v1/tasks/{uid}").json["output"] == ["whole"]


def test_chunks_that_break_under_way_end_a_json_body(server: Server, task: str) -> None:
    with Raw(server) as client:
        expect = "Expect: 100-continue"
        client.ask("POST", f"/v1/tasks/{task}/output", "Content-Type: application/json", CHUNKED, expect)
        assert client.socket.recv(1000).startswith(b"HTTP/1.1 100 ")  # the handler is reading
        client.send_chunk(b'{"lines": ["')
        refused(client.send(b"no length\r\n\r\n").answer(), 400, 87, "chunked")


@pytest.mark.parametrize("credential", ["Key é" + "x" * 42, "Key \udcff\udcfe", "Key", "Basic eDp5"])
def test_a_credential_of_strange_bytes(server: Server, task: str, credential: str) -> None:
    with Raw(server) as client:
        head = f"GET /v1/tasks/{task} HTTP/1.1\r\nHost: x\r\nAuthorization: {credential}\r\n\r\n"
        answer = client.send(head.encode(errors="surrogateescape")).answer()
    assert answer.status == 401
    assert answer.json["code"] in (24, 30)


def test_an_expectation_that_nobody_can_meet_is_ignored(server: Server) -> None:
    path = f"/v1/tasks/{server.new_task()}/output"
    assert ask(server, "POST", path, "Expect: tea", "Content-Length: 5", body=b"line\n").json["last"] == 1


@pytest.mark.parametrize("path", ["/v1/tasks/%FF%00", "/v1/tasks/%2e%2e%2f", "/v1/tasks/..", "/v1//tasks", "/v1/"])
def test_paths_that_lead_nowhere(server: Server, task: str, path: str) -> None:
    answer = ask(server, "GET", path)
    assert answer.status == 404
    assert answer.json["code"] in (2, 4)


def test_json_that_is_too_deep(server: Server, task: str) -> None:
    body = b"[" * 100_000
    length = f"Content-Length: {len(body)}"
    answer = ask(server, "POST", "/v1/tasks", "Content-Type: application/json", length, body=body)
    refused(answer, 400, 121)


def test_half_a_request(server: Server, task: str) -> None:
    with Raw(server) as client:
        client.send(b"GET /v1/tasks HTTP/1.1\r\nHos")
        assert server.get("/healthz").status == 200


# --- unusual, and right ----------------------------------------------------------


def test_pipelined_requests_are_answered_in_order(server: Server, task: str) -> None:
    def request(path: str, *headers: str) -> bytes:
        lines = [f"GET {path} HTTP/1.1", "Host: x", f"Authorization: Key {server.key}", *headers, "", ""]
        return "\r\n".join(lines).encode()

    with Raw(server) as client:
        # A wait in front holds up those behind it.
        client.send(
            request(f"/v1/tasks/{task}?wait=1")
            + request("/v1/tasks/no-such-task")
            + request("/healthz")
            + request(f"/v1/tasks/{task}/output", "Connection: close")
        )
        answers = client.rest().split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200", b"404", b"200", b"200"]
    assert b'"state":"running"' in answers[0]
    assert b'"code":4' in answers[1]
    assert b'"status": "ok"' in answers[2]
    assert b'"first":0,"last":1' in answers[3]


def test_http_1_0(server: Server, task: str) -> None:
    with Raw(server) as client:
        head = f"GET /v1/tasks/{task}?wait=1 HTTP/1.0\r\nAuthorization: Key {server.key}\r\n\r\n"
        answer = client.send(head.encode()).rest()  # it is closed without having been asked to
    assert answer.split(b" ", 2)[1] == b"200"
    assert b'"the only line"' in answer


def test_a_request_that_waits_to_be_let_in(server: Server) -> None:
    uid = server.new_task()
    with Raw(server) as client:
        client.ask("POST", f"/v1/tasks/{uid}/output", "Expect: 100-continue", "Content-Length: 5")
        assert client.socket.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert client.send(b"line\n").answer().json["last"] == 1


def test_a_connection_serves_after_a_refusal(server: Server, task: str) -> None:
    with Raw(server) as client:
        for path, status in [("/v1/tasks/no-such-task", b"404"), (f"/v1/tasks/{task}", b"200")]:
            client.ask("GET", path)
            assert client.socket.recv(65536).split(b" ", 2)[1] == status
