"""PROTOCOLS.md, A4: lines on their way in, in bodies of known length."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskserver.config import Limits, Settings
from taskserver.encoding import decode_side
from taskserver.jsontext import parse_time
from taskserver.model import Stream, now_us
from tests.api.conftest import Serve
from tests.api.conversation import NDJSON, Answer, Api, refused

PLAIN = "text/plain"
MIB = 1024 * 1024

# Any text that UTF-8 can carry; lines hold no newline.
LINE = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]))


async def send(api: Api, task_id: str, data: Any, content_type: str | None = PLAIN, **more: Any) -> Answer:
    headers = {} if content_type is None else {"Content-Type": content_type}
    return await api.ask(
        "POST", f"/tasks/{task_id}/output", data=data, headers={**headers, **more.pop("headers", {})}, **more
    )


async def sides(api: Api, task_id: str) -> list[tuple[int, Stream]]:
    """Time and stream of each line, as the store has them."""
    store = api.services.store
    task = await store.get_task(task_id)
    chunks = await store.read(task.log, 0, task.last, MIB)
    return [side for chunk in chunks for side in decode_side(chunk.side, chunk.count)]


class TestText:
    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (b"", []),
            (b"a", ["a"]),
            (b"a\n", ["a"]),
            (b"a\nb", ["a", "b"]),
            (b"\n", [""]),
            (b"\n\n", ["", ""]),
            (b"a\n\nb\n", ["a", "", "b"]),
            (b"a\r\nb\r\n", ["a", "b"]),
            (b"\r\n", [""]),
            (b"10%\r20%\r30%\n", ["10%\r20%\r30%"]),
            (b"a\r\r\nb", ["a\r", "b"]),
            (b"a\r", ["a\r"]),
            (b"  a \t\n", ["  a \t"]),
            (b"\xff\xfea\n", ["\ufffd\ufffda"]),
            (b"\xc3\nb", ["\ufffd", "b"]),
            (b"\xed\xa0\x80", ["\ufffd\ufffd\ufffd"]),
            (b"a\0b\x1b[31m\n", ["a\0b\x1b[31m"]),
            ("ü🎈\u2028\x85\x0b\x0c\x1c\n".encode(), ["ü🎈\u2028\x85\x0b\x0c\x1c"]),
            (b'",\n"\\\n', ['",', '"\\']),
            (b"\xef\xbb\xbfa", ["\ufeffa"]),
        ],
    )
    async def test_lines_end_with_a_newline(self, api: Api, data: bytes, expected: list[str]) -> None:
        task_id = await api.create("before")
        answer = await send(api, task_id, data)
        assert answer.json == {"first": 1, "last": 1 + len(expected), "cancel_requested": False}
        assert await api.lines(task_id) == ["before", *expected]

    @pytest.mark.parametrize("method", ["POST", "PUT"])
    @pytest.mark.parametrize(
        "content_type", [None, "text/plain", "text/plain; charset=utf-8", "TEXT/PLAIN", "Text/Plain;x=y"]
    )
    async def test_its_names_are_taken_and_it_is_what_unnamed_bodies_are(
        self, api: Api, method: str, content_type: str | None
    ) -> None:
        task_id = await api.create()
        headers = {} if content_type is None else {"Content-Type": content_type}
        answer = await api.ask(method, f"/tasks/{task_id}/output", data=b"a\nb", headers=headers)
        assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
        assert await api.lines(task_id) == ["a", "b"]

    @pytest.mark.parametrize(
        "content_type",
        ["application/octet-stream", "application/x-www-form-urlencoded", "text/html", "text", "", "application/xml"],
    )
    async def test_other_content_types_are_refused(self, api: Api, content_type: str) -> None:
        task_id = await api.create()
        answer = await send(api, task_id, b"a", content_type)
        if content_type:
            refused(answer, 415, 87, "text/plain", "application/x-ndjson", "application/json", content_type)
            assert (await api.task(task_id))["state"] == "queued"

    @given(
        data=st.binary(max_size=300) | st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\xc3", b"\xbc"])).map(b"".join)
    )
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    async def test_any_bytes_become_the_lines_that_a_terminal_shows(self, api: Api, data: bytes) -> None:
        task_id = await api.create()
        assert (await send(api, task_id, data)).status == 200
        pieces = data.split(b"\n")
        ended = [piece.removesuffix(b"\r") for piece in pieces[:-1]]
        expected = [piece.decode("utf-8", "replace") for piece in [*ended, *pieces[-1:]] if piece or ended]
        if pieces[-1] == b"" and ended:
            expected.pop()
        assert await api.lines(task_id) == expected

    @given(lines=st.lists(LINE, max_size=20))
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    async def test_any_lines_come_back_in_every_format(self, api: Api, lines: list[str]) -> None:
        task_id = await api.create()
        await api.append(task_id, *lines)
        rows = "".join(json.dumps({"text": line}) + "\n" for line in lines)
        assert (await send(api, task_id, rows.encode(), NDJSON)).json["last"] == 2 * len(lines)
        assert await api.lines(task_id) == lines * 2
        assert (await api.output(task_id, limit=10_000))["output"] == lines * 2
        text = (await api.ask("GET", f"/tasks/{task_id}/output", format="text")).body
        assert text == "".join(line + "\n" for line in lines * 2).encode()


class TestNdjson:
    async def test_each_line_brings_its_stream_and_time(self, api: Api) -> None:
        task_id, before = await api.create(), now_us()
        rows = [
            b'{"text": "one"}',
            b'{"text": "two", "stream": "stderr"}',
            b'{"stream": "stdout", "time": "2026-11-20T19:41:59.83Z", "text": "three"}',
            b'{"text": "four", "stream": "stderr", "time": "2026-11-20t21:41:59.8301689+02:00"}\r',
            b"",
            b'  {"text": "five", "time": null}  ',
        ]
        assert (await send(api, task_id, b"\n".join(rows), NDJSON)).json["last"] == 5
        assert await api.lines(task_id) == ["one", "two", "three", "four", "five"]
        times, streams = zip(*await sides(api, task_id), strict=True)
        assert streams == (Stream.STDOUT, Stream.STDERR, Stream.STDOUT, Stream.STDERR, Stream.STDOUT)
        assert times[2] == parse_time("2026-11-20T19:41:59.83Z")
        assert times[3] == parse_time("2026-11-20T19:41:59.830168Z")
        for time in (times[0], times[1], times[4]):
            assert before <= time <= now_us()

    @pytest.mark.parametrize(
        "row", [b"{", b"text", b"{'text': 'x'}", b'{"text": "\\ud800"}', b'{"text": "\xff"}', b'{"text": NaN}']
    )
    async def test_a_row_that_is_no_json_is_refused_by_number(self, api: Api, row: bytes) -> None:
        task_id = await api.create()
        refused(await send(api, task_id, b'{"text": "a"}\n' + row + b"\n", NDJSON), 400, 121, "line 1 ")
        assert await api.lines(task_id) == []

    @pytest.mark.parametrize(
        ("row", "word"),
        [
            (b"5", "text"),
            (b'["a"]', "text"),
            (b"null", "text"),
            (b"{}", "text"),
            (b'{"text": 5}', "text"),
            (b'{"text": null}', "text"),
            (b'{"stream": "stdout"}', "text"),
            (b'{"text": "a", "n": 1}', "text"),
            (b'{"text": "a\\nb"}', "newline"),
            (b'{"text": "a", "stream": "stdin"}', "stdout, stderr"),
            (b'{"text": "a", "stream": null}', "stdout, stderr"),
            (b'{"text": "a", "stream": []}', "stdout, stderr"),
            (b'{"text": "a", "stream": 1}', "stdout, stderr"),
            (b'{"text": "a", "time": "yesterday"}', "time"),
            (b'{"text": "a", "time": "2026-11-20T19:41:59"}', "time"),
            (b'{"text": "a", "time": "2026-11-20"}', "time"),
            (b'{"text": "a", "time": "2026-13-01T00:00:00Z"}', "time"),
            (b'{"text": "a", "time": "1969-12-31T23:59:59Z"}', "1970"),
            (b'{"text": "a", "time": "2026-11-20T19:41:59+99:00"}', "time"),
            (b'{"text": "a", "time": 1700000000}', "time"),
            (b'{"text": "a", "time": []}', "time"),
            (b'{"text": "a", "time": ""}', "time"),
        ],
    )
    async def test_a_row_that_cannot_be_used_is_refused_by_number(self, api: Api, row: bytes, word: str) -> None:
        task_id = await api.create()
        refused(await send(api, task_id, b'{"text": "a"}\n' + row, NDJSON), 400, 87, "line 1 ", word)
        assert (await api.task(task_id))["last"] == 0


class TestJson:
    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ({}, ["lines: "]),
            ({"lines": None}, ["lines: "]),
            ({"lines": "text"}, ["lines: "]),
            ({"lines": {"a": "b"}}, ["lines: "]),
            ({"lines": [5]}, ["lines.0: "]),
            ({"lines": ["a", None]}, ["lines.1: "]),
            ({"lines": ["a", "b\n"]}, ["line 1 ", "newline"]),
            ({"lines": [], "first": 0}, ["first: "]),
        ],
    )
    async def test_lines_that_cannot_be_used_are_refused_by_name(self, api: Api, body: Any, words: list[str]) -> None:
        task_id = await api.create()
        refused(await api.ask("POST", f"/tasks/{task_id}/output", body=body), 400, 87, *words)
        assert (await api.task(task_id))["last"] == 0

    async def test_no_lines_are_a_sign_of_life(self, api: Api) -> None:
        task_id = await api.create()
        assert await api.append(task_id) == {"first": 0, "last": 0, "cancel_requested": False}
        assert (await api.task(task_id))["state"] == "running"


class TestFirst:
    @pytest.mark.parametrize("content_type", [PLAIN, NDJSON, "application/json"])
    async def test_it_makes_a_retry_safe(self, api: Api, content_type: str) -> None:
        bodies: dict[str, bytes] = {
            PLAIN: b"a\nb\n",
            NDJSON: b'{"text": "a"}\n{"text": "b"}\n',
            "application/json": b'{"lines": ["a", "b"]}',
        }
        task_id = await api.create("zero")
        for _ in range(3):
            answer = await send(api, task_id, bodies[content_type], content_type, first=1)
            assert answer.json == {"first": 1, "last": 3, "cancel_requested": False}
        assert await api.lines(task_id) == ["zero", "a", "b"]

    async def test_anything_else_is_a_conflict_with_the_true_last(self, api: Api) -> None:
        task_id = await api.create("a", "b", "c")
        for first, texts in [(0, ["x"]), (1, ["b", "x"]), (2, ["c", "d"]), (4, ["d"]), (2**32 - 1, ["d"])]:
            answer = await api.ask("POST", f"/tasks/{task_id}/output", body={"lines": texts}, first=first)
            assert refused(answer, 409, 1002, str(first), "3") == {"last": 3}
        assert await api.lines(task_id) == ["a", "b", "c"]

    async def test_after_the_end_a_retry_succeeds_and_anything_else_is_refused(self, api: Api) -> None:
        task_id = await api.done("a", "b")
        assert (await api.append(task_id, "b", first=1))["last"] == 2
        for query in ("", "?first=2", "?first=1"):
            answer = await api.ask("POST", f"/tasks/{task_id}/output{query}", body={"lines": ["c"]})
            assert refused(answer, 409, 1003, "success") == {"last": 2, "state": "success", "code": 0}

    @pytest.mark.parametrize("first", ["-1", "x", "", "1.5", str(2**32)])
    async def test_what_is_no_line_number_is_refused(self, api: Api, first: str) -> None:
        task_id = await api.create()
        for data in (b"a", as_it_comes(b"a\n")):
            answer = await api.ask("POST", f"/tasks/{task_id}/output?first={first}", data=data)
            refused(answer, 400, 25, "first: ", " 0 ")
        assert (await api.task(task_id))["state"] == "queued"


async def as_it_comes(data: bytes) -> Any:
    yield data


class TestLimits:
    @pytest.fixture
    async def small(self, serve: Serve) -> Api:
        """A server that takes lines of 10 bytes and bodies of 1000."""
        return await serve(Settings(limits=Limits(line_bytes=10, body_bytes=1000)))

    @pytest.mark.parametrize("line", ["x" * 10, "ü" * 5, "🎈🎈xx"])
    @pytest.mark.parametrize(
        ("content_type", "before", "after"),
        [(PLAIN, "", "\n"), (NDJSON, '{"text": "', '"}\n'), ("application/json", '{"lines": ["', '"]}')],
    )
    async def test_a_line_at_the_limit_is_taken_and_a_longer_one_refused(
        self, small: Api, content_type: str, before: str, after: str, line: str
    ) -> None:
        task_id = await small.create()
        answer = await send(small, task_id, f"{before}{line}{after}".encode(), content_type)
        assert (answer.status, await small.lines(task_id)) == (200, [line])
        answer = await send(small, task_id, f"{before}{line}x{after}".encode(), content_type)
        refused(answer, 413, 1010, "10 bytes")
        assert await small.lines(task_id) == [line]

    async def test_how_a_line_ends_does_not_count(self, small: Api) -> None:
        task_id = await small.create()
        answer = await send(small, task_id, b"0123456789\r\n")
        assert answer.status == 200

    async def test_replacement_characters_count_as_what_they_are(self, small: Api) -> None:
        refused(await send(small, await small.create(), b"\xff" * 10), 413, 1010, "10 bytes")

    async def test_of_a_body_all_or_nothing_is_stored(self, small: Api) -> None:
        task_id = await small.create("before")
        bodies = {
            PLAIN: b"good\n" + b"x" * 11 + b"\ngood\n",
            NDJSON: b'{"text": "good"}\n{"text": "xxxxxxxxxxx"}\n',
            "application/json": b'{"lines": ["good", "xxxxxxxxxxx"]}',
        }
        for content_type, data in bodies.items():
            refused(await send(small, task_id, data, content_type), 413, 1010)
        answer = await small.ask("POST", f"/tasks/{task_id}/finish", body={"output": ["good", "x" * 11]})
        refused(answer, 413, 1010)
        task = await small.task(task_id)
        assert (task["output"], task["finished"]) == (["before"], False)

    async def test_a_body_at_the_limit_is_taken_and_a_larger_one_refused(self, small: Api) -> None:
        task_id = await small.create()
        assert (await send(small, task_id, b"012345678\n" * 100)).json["last"] == 100
        refused(await send(small, task_id, b"012345678\n" * 100 + b"x"), 413, 1010, "1000 bytes")
        assert (await small.task(task_id))["last"] == 100

    async def test_the_real_limits_are_a_mebibyte_and_eight(self, api: Api) -> None:
        task_id = await api.create()
        assert (await send(api, task_id, b"x" * MIB)).status == 200
        refused(await send(api, task_id, b"x" * (MIB + 1)), 413, 1010, str(MIB))
        eight = (b"x" * 1023 + b"\n") * 8 * 1024
        assert (await send(api, task_id, eight)).json["last"] == 8193
        refused(await send(api, task_id, eight + b"x"), 413, 1010, str(8 * MIB))
        assert (await api.output(task_id, first=8192, wait=0))["output"] == ["x" * 1023]

    async def test_a_refused_body_does_not_spoil_the_connection_of_the_next(self, small: Api) -> None:
        for _ in range(3):
            refused(await send(small, "none", b"x" * 100_000), 413, 1010)
            assert await small.create()


class TestCompression:
    """A compressed body that was cut off would look whole, and lose lines; so none is taken."""

    @pytest.mark.parametrize("name", ["gzip", "deflate", "GZIP"])
    @pytest.mark.parametrize("data", [gzip.compress(b"a\nb\n"), b"this is no gzip"], ids=["good", "nonsense"])
    async def test_a_compressed_body_is_refused(self, api: Api, name: str, data: bytes) -> None:
        task_id = await api.create()
        refused(await send(api, task_id, data, headers={"Content-Encoding": name}), 415, 87, name)
        assert (await api.task(task_id))["last"] == 0

    async def test_identity_is_no_compression(self, api: Api) -> None:
        task_id = await api.create()
        await send(api, task_id, b"a\n", headers={"Content-Encoding": "identity"})
        assert await api.lines(task_id) == ["a"]
