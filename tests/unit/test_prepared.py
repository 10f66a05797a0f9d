"""Prepared answers on the wire: each rule of HTTP that aiohttp would have seen to (RFC 9112)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

import pytest
import uvloop
from aiohttp import web

from taskserver.web.prepared import Head, Prepared, first_bytes, may_be_first, write_first, written
from tests.eventually import eventually
from tests.unit.wire import serving

HEADERS = {"Cache-Control": "no-store", "Content-Type": "application/json; charset=utf-8"}
HEAD = Head(200, HEADERS)
BODY = b'{"a": 1}'
HUGE = b"x" * 8_000_000  # more than the kernel's buffers of both sides and the transport's take

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a conversation on each event loop: they differ in what a closed transport does."""
    chosen: Run = request.param
    return chosen


@pytest.fixture(params=[False, True], ids=["plain", "TLS"])
def tls(request: pytest.FixtureRequest) -> bool:
    chosen: bool = request.param
    return chosen


async def prepared(request: web.Request) -> web.StreamResponse:
    return Prepared(HEAD, BODY)


# --- the head --------------------------------------------------------------------


@pytest.mark.parametrize("status", [100, 204, 304])
def test_an_answer_that_has_no_body_is_not_prepared(status: int) -> None:
    with pytest.raises(ValueError, match="no body"):
        Head(status, {})


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "a\nb", "a\rb", "a\0b"])
def test_a_header_cannot_end_the_head(value: str) -> None:
    with pytest.raises(ValueError, match="header"):
        Head(200, {"Location": value})


def test_it_looks_like_aiohttps_own(run: Run) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if "own" in request.path:
            return web.Response(body=BODY, status=201, headers=HEADERS)
        return Prepared(Head(201, HEADERS), BODY)

    async def conversation() -> None:
        async with serving(handler) as wire:
            for method in ("GET", "POST", "HEAD"):
                for version in ("1.1", "1.0"):
                    for header in ("X: y", "Connection: close", "Connection: keep-alive"):
                        heard = []
                        for path in ("/own", "/ours"):
                            async with wire.connect() as client:
                                client.ask(path, header, method=method, version=version)
                                answer = await client.answer(head_only=method == "HEAD")
                                assert time() - parsedate_to_datetime(answer.headers.pop("Date")).timestamp() < 60
                                heard.append(answer)
                        assert heard[0] == heard[1], (method, version, header)

    run(conversation())


# --- connections -----------------------------------------------------------------


def test_the_connection_serves_the_next_request(run: Run, tls: bool) -> None:
    async def conversation() -> None:
        async with serving(prepared, tls=tls) as wire, wire.connect() as client:
            for _ in range(3):
                client.ask()
                assert (await client.answer()).body == BODY

    run(conversation())


def test_pipelined_requests_are_answered_in_their_order(run: Run, tls: bool) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/1":
            await asyncio.sleep(0.01)
        return Prepared(HEAD, request.path.encode())

    async def conversation() -> None:
        async with serving(handler, tls=tls) as wire, wire.connect() as client:
            for number in range(20):
                client.ask(f"/{number}")
            for number in range(20):
                assert (await client.answer()).body == b"/%d" % number

    run(conversation())


@pytest.mark.parametrize(
    ("version", "header", "said"),
    [("1.0", "X: y", None), ("1.1", "Connection: close", "close"), ("1.0", "Connection: close", None)],
)
def test_the_connection_is_closed_where_the_client_wants_it(
    run: Run, version: str, header: str, said: str | None
) -> None:
    async def conversation() -> None:
        async with serving(prepared) as wire, wire.connect() as client:
            client.ask("/", header, version=version)
            answer = await client.answer()
            assert (answer.version, answer.body) == (f"HTTP/{version}", BODY)
            assert answer.headers.get("Connection") == said
            assert await client.rest() == b""

    run(conversation())


def test_http_1_0_may_ask_for_the_connection_to_stay(run: Run) -> None:
    async def conversation() -> None:
        async with serving(prepared) as wire, wire.connect() as client:
            for _ in range(2):
                client.ask("/", "Connection: keep-alive", version="1.0")
                answer = await client.answer()
                assert (answer.headers["Connection"], answer.body) == ("keep-alive", BODY)

    run(conversation())


def test_a_forced_close_is_said_and_done(run: Run) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = Prepared(HEAD, BODY)
        response.force_close()
        return response

    async def conversation() -> None:
        async with serving(handler) as wire, wire.connect() as client:
            client.ask()
            assert (await client.answer()).headers["Connection"] == "close"
            assert await client.rest() == b""

    run(conversation())


def test_head_has_the_length_and_no_body(run: Run) -> None:
    async def conversation() -> None:
        async with serving(prepared) as wire, wire.connect() as client:
            client.ask(method="HEAD")
            client.ask()
            assert (await client.answer(head_only=True)).headers["Content-Length"] == str(len(BODY))
            assert (await client.answer()).body == BODY

    run(conversation())


def test_nothing_is_compressed(run: Run) -> None:
    async def conversation() -> None:
        async with serving(prepared) as wire, wire.connect() as client:
            client.ask("/", "Accept-Encoding: gzip, deflate, br")
            answer = await client.answer()
            assert "Content-Encoding" not in answer.headers
            assert answer.body == BODY

    run(conversation())


def test_a_slow_client_is_waited_for(run: Run, tls: bool) -> None:
    begun: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        begun.append(request.path)
        return Prepared(HEAD, HUGE)

    async def conversation() -> None:
        async with serving(handler, tls=tls) as wire, wire.connect(receive_buffer=4096) as client:
            for number in range(4):
                client.ask(f"/{number}")
            await eventually(lambda: bool(begun), "the first request")
            for _ in range(100):
                await asyncio.sleep(0)
            # With TLS the transport takes one answer more before it says that it is full.
            assert "/3" not in begun, "it is begun when the client has taken the answers before it"
            for _ in range(4):
                assert (await client.answer()).body == HUGE

    run(conversation())


def test_a_client_that_left_is_no_error(run: Run, tls: bool, caplog: pytest.LogCaptureFixture) -> None:
    waiting, gone = asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        waiting.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            assert not write_first(request, b"nobody is there")
            with pytest.raises(ConnectionResetError):
                await Prepared(HEAD, BODY).prepare(request)
            gone.set()
            raise
        raise AssertionError

    async def conversation() -> None:
        async with serving(handler, tls=tls) as wire, wire.connect() as client:
            client.ask()
            await asyncio.wait_for(waiting.wait(), 20)
            client.leave()
            await asyncio.wait_for(gone.wait(), 20)

    run(conversation())
    assert caplog.text == ""


def test_the_access_log_counts_it(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aiohttp.access")

    async def conversation() -> None:
        async with serving(prepared, log=True) as wire, wire.connect() as client:
            client.ask("/logged")
            await client.answer()
            await eventually(lambda: bool(caplog.records), "the log's line")

    run(conversation())
    size = len(first_bytes(HEAD, BODY))
    assert f'"GET /logged HTTP/1.1" 200 {size} ' in caplog.text


# --- written first ---------------------------------------------------------------


class Waiters:
    """Handlers that wait, and what somebody else writes for them."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.finish = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Wait until the test says so, and answer what was not written first."""
        if request.path != "/wait":
            return Prepared(HEAD, request.path.encode())
        self.requests.append(request)
        await self.finish.wait()
        return written(HEAD, DATA) if request.writer.output_size else Prepared(HEAD, b"late")

    async def wait_for(self, count: int) -> None:
        """Return when so many wait."""
        await eventually(lambda: len(self.requests) == count, f"{count} waiting handlers")


DATA = first_bytes(HEAD, BODY)


def test_an_answer_is_there_before_its_handler_goes_on(run: Run, tls: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aiohttp.access")

    async def conversation() -> None:
        waiters = Waiters()
        async with serving(waiters.handle, tls=tls, log=True) as wire, wire.connect() as one, wire.connect() as two:
            for client in (one, two):
                client.ask("/wait")
                client.ask("/pipelined")
            await waiters.wait_for(2)
            for request in waiters.requests:
                assert may_be_first(request)
                assert write_first(request, DATA)
            for client in (one, two):
                assert (await client.answer()).body == BODY
            assert not caplog.records, "no handler has finished"
            waiters.finish.set()
            for client in (one, two):
                assert (await client.answer()).body == b"/pipelined"
                client.ask("/next")
                assert (await client.answer()).body == b"/next"

    run(conversation())
    assert caplog.text.count(f'"GET /wait HTTP/1.1" 200 {len(DATA)} ') == 2


def test_who_does_not_take_what_it_got_is_not_written_to(run: Run, tls: bool) -> None:
    async def conversation() -> None:
        waiters = Waiters()
        async with serving(waiters.handle, tls=tls) as wire, wire.connect(receive_buffer=4096) as client:
            client.ask("/wait")
            await waiters.wait_for(1)
            (request,) = waiters.requests
            transport = request.transport
            assert transport is not None
            for _ in range(2):  # with TLS the first one does not count as buffered
                transport.write(HUGE)
            assert not write_first(request, DATA)
            assert request.writer.output_size == 0
            waiters.finish.set()
            assert await client.read(2 * len(HUGE)) == 2 * HUGE
            assert (await client.answer()).body == b"late"

    run(conversation())


@pytest.mark.parametrize(
    ("method", "version", "header"),
    [("HEAD", "1.1", "X: y"), ("GET", "1.0", "X: y"), ("GET", "1.1", "Connection: close")],
)
def test_whose_answer_differs_is_not_told_first(run: Run, method: str, version: str, header: str) -> None:
    async def conversation() -> None:
        waiters = Waiters()
        async with serving(waiters.handle) as wire, wire.connect() as client:
            client.ask("/wait", header, method=method, version=version)
            await waiters.wait_for(1)
            assert not may_be_first(waiters.requests[0])
            waiters.finish.set()
            await client.answer(head_only=method == "HEAD")

    run(conversation())


def test_a_handler_that_fails_behind_its_answer_breaks_the_connection_off(run: Run) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        assert write_first(request, DATA)
        raise ConnectionResetError("too late for another answer")

    async def conversation() -> None:
        async with serving(handler) as wire, wire.connect() as client:
            client.ask()
            assert (await client.answer()).body == BODY
            assert await client.rest() == b""

    run(conversation())
