"""The benchmark's own HTTP reader, runner, waiting and figures: a benchmark that miscounts is worse than none."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.bench import runner
from tests.bench.__main__ import main
from tests.bench.archive import TASK, Archive
from tests.bench.browser import browser_version
from tests.bench.figure import CLIENT_CPU
from tests.bench.figures import all_figures
from tests.bench.figures.follow import Pages, Stream
from tests.bench.load import SOURCES, Connection, LoadError, connections, paced_loop
from tests.bench.rivals import durable_streams_version, nginx_version
from tests.bench.runner import allow_files, pick, run
from tests.bench.servers import Bench, Target
from tests.bench.waiting import LightWaiters, Streams
from tests.bench.wire import ProtocolError, Response, ResponseReader, build_chunk, build_request
from tests.unit.bench_figures import Broken, Crowded, Fake, Wide

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: x\r\n\r\nhello"
LOWER = b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hi\n\nid: 1\ndata: a\n\nid: 2\n"
ANSWERS = [
    (PLAIN, Response(200, b"hello")),
    (LOWER, Response(404, b"no")),
    (EMPTY, Response(204, b"")),
    (CHUNKED, Response(200, b"hello, world")),
]


class TestWire:
    @pytest.mark.parametrize(("raw", "response"), ANSWERS)
    def test_reads_a_response_however_it_is_cut(self, raw: bytes, response: Response) -> None:
        for cut in range(1, len(raw)):
            reader = ResponseReader()
            assert reader.feed(raw[:cut]) is None
            assert reader.feed(raw[cut:]) == response

    def test_reads_responses_one_after_another_byte_by_byte(self) -> None:
        reader = ResponseReader()
        found = [reader.feed(raw[at : at + 1]) for raw, _ in ANSWERS for at in range(len(raw))]
        assert [one for one in found if one is not None] == [response for _, response in ANSWERS]

    def test_refuses_what_nobody_asked_for(self) -> None:
        with pytest.raises(ProtocolError, match="behind a response"):
            ResponseReader().feed(PLAIN + PLAIN)

    @pytest.mark.parametrize("raw", [b"HTTP/1.1 200 OK\r\n\r\n", b"SSH-2.0-x\r\n\r\n"])
    def test_refuses_what_it_does_not_understand(self, raw: bytes) -> None:
        with pytest.raises(ProtocolError):
            ResponseReader().feed(raw)

    def test_hands_out_the_chunks_of_a_body_that_goes_on(self) -> None:
        reader = ResponseReader()
        assert reader.take_chunks() == []
        for at in range(len(CHUNKED) - 8):  # in the middle of the second chunk's last bytes
            assert reader.feed(CHUNKED[at : at + 1]) is None
        assert (reader.take_chunks(), reader.take_chunks()) == ([b"hello"], [])
        assert reader.feed(CHUNKED[-8:]) == Response(200, b", world")
        assert reader.feed(PLAIN) == Response(200, b"hello")

    def test_hands_out_events_of_a_body_without_an_end(self) -> None:
        """That is how nchan sends them."""
        for cut in range(1, len(EVENTS)):
            reader = ResponseReader()
            assert reader.feed(EVENTS[:cut]) is None
            found = reader.take_chunks()
            assert reader.feed(EVENTS[cut:]) is None
            assert found + reader.take_chunks() == [b": hi\n\n", b"id: 1\ndata: a\n\n"]

    def test_builds_requests(self) -> None:
        assert build_request("GET", "/x", {"Host": "a"}) == b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
        expected = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
        assert build_request("POST", "/x", {"Host": "a"}, b"hi") == expected
        assert build_chunk(b"x" * 26) + build_chunk(b"") == b"1a\r\n" + b"x" * 26 + b"\r\n0\r\n\r\n"


class TestRunner:
    async def test_sides_take_turns_in_going_first(self, bench: Bench) -> None:
        figure = Fake()
        (measured,) = await run([figure], bench, 3, lambda _: None)
        assert figure.calls == ["ours", "yardstick", "yardstick", "ours", "ours", "yardstick"]
        rates = [(one.ours["rate"], one.yardsticks[0]["rate"]) for one in measured.rounds]
        assert rates == [(10, 40), (40, 60), (50, 120)]

    async def test_several_yardsticks_are_measured_in_the_same_rounds(self, bench: Bench) -> None:
        figure = Wide()
        (measured,) = await run([figure], bench, 2, lambda _: None)
        assert figure.calls == ["ours", "yardstick", "rival", "rival", "yardstick", "ours"]
        beside = [(one.yardstick.name, one.metric.key, one.pairs) for one in measured.comparisons()]
        assert beside == [
            ("bare aiohttp", "rate", [(10, 40), (60, 100)]),
            ("bare aiohttp", "cpu", [(1.5, 0), (1.5, 0)]),
            ("rival", "rate", [(10, 90), (60, 120)]),
        ]

    async def test_a_figure_that_fails_does_not_stop_the_others(self, bench: Bench) -> None:
        said: list[str] = []
        broken, crowded, fine = await run([Broken(), Crowded(), Fake()], bench, 1, said.append)
        assert (broken.trouble, broken.rounds) == ("ConnectionResetError: gone", [])
        assert "open files" in crowded.trouble
        assert (fine.trouble, len(fine.rounds)) == ("", 1)
        assert any(broken.trouble in line for line in said)
        assert any(crowded.trouble in line for line in said)

    async def test_a_figure_that_lacks_its_software_says_so(self, bench: Bench, tmp_path: Path) -> None:
        browser = [figure for figure in all_figures() if figure.name.startswith("browser")]
        assert len(browser) == 2
        for measured in await run(browser, bench, 1, lambda _: None):
            assert "--browser" in measured.trouble
        assert all(not figure.missing(Bench(tmp_path, 1.0, browser=Path("chromium"))) for figure in browser)
        assert [figure.name for figure in all_figures() if figure.missing(bench)] == [one.name for one in browser]

    @pytest.mark.parametrize(("own", "others"), [(3.0, False), (2.0, True)])
    def test_own_work_is_not_taken_for_that_of_others(
        self, own: float, others: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runner, "_busy", iter([10.0, 13.0]).__next__)
        monkeypatch.setattr(runner, "_own", iter([1.0, 1.0 + own]).__next__)
        assert (runner.watch_others()() > 0) is others

    def test_the_kernel_counts_what_this_process_does(self) -> None:
        busy, own = runner._busy(), runner._own()
        start = time.process_time()
        while time.process_time() - start < 0.2:
            pass
        assert runner._own() - own >= 0.2
        assert runner._busy() - busy >= 0.1  # it counts in ticks, and not every kernel exactly

    def test_file_limit_is_not_lowered(self) -> None:
        before = allow_files(0)
        assert allow_files(8) == before


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, seconds=0.0)


class TestWaiting:
    """The load generator and the yardstick, talking to each other."""

    async def test_streams_are_told_each_time(self, bench: Bench) -> None:
        event = b"event: output\ndata: []\n\n"
        with bench.bare() as target:
            async with connections(target.port, 1) as (producer,), connections(target.port, 5) as clients:
                await target.set_answer(producer, event)
                streams = Streams(target, clients, event=event)
                await streams.begin_each([target.get("/events")] * 5)
                for _ in range(3):
                    woken = await streams.wake(producer, target.post("/wake", b""))
                    assert len(woken.latencies) == 5
                    streams.check_waiting()
                assert streams.parts == 4 * 5

    async def test_light_waiters_count_whole_answers(self, bench: Bench) -> None:
        with bench.bare() as target:
            async with connections(target.port, 1) as (producer,), connections(target.port, 5) as clients:
                for size in (10, 500_000):  # which comes in parts
                    await target.set_answer(producer, b"x" * size)
                    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
                    writer.write(target.get("/get"))
                    head = await reader.readuntil(b"\r\n\r\n")
                    like = head + await reader.readexactly(size)
                    writer.close()
                    waiters = LightWaiters(target, clients, like)
                    for _ in range(2):
                        await waiters.begin(target.get("/wait"))
                        assert len((await waiters.wake(producer, target.post("/wake", b""))).latencies) == 5

    async def test_light_waiters_notice_another_status(self, bench: Bench) -> None:
        with bench.bare() as target:
            async with connections(target.port, 1) as clients:
                waiters = LightWaiters(target, clients, b"HTTP/1.1 200 OK\r\n\r\n")
                with pytest.raises(LoadError, match=r"not like the others: b'HTTP/1\.1 404"):
                    await waiters.begin(target.get("/nowhere"))

    async def test_lines_and_an_end_on_the_same_connections(self, bench: Bench) -> None:
        with bench.bare() as target:
            async with connections(target.port, 1) as (producer,), connections(target.port, 4) as clients:
                await target.set_answer(producer, b"tick\nlast\n")
                streams = Streams(target, clients, last=b"last\n")
                for _ in range(2):
                    await streams.begin_each([target.get(f"/ticks?interval={each}") for each in (9, 0.1, 9, 9)])
                    assert (await streams.wake(producer, target.post("/wake", b""))).latencies
                assert streams.parts > 2 * 4  # the fast one had more lines than its first

    async def test_a_stream_that_tells_something_else_is_noticed(self, bench: Bench) -> None:
        with bench.bare() as target:
            async with connections(target.port, 1) as (producer,), connections(target.port, 2) as clients:
                await target.set_answer(producer, b"tick\nother\n")
                streams = Streams(target, clients, last=b"last\n")
                await streams.begin_each([target.get("/ticks?interval=9")] * 2)
                with pytest.raises(LoadError, match="ended with b'other"):
                    await streams.wake(producer, target.post("/wake", b""))

    async def test_one_that_is_told_too_early_is_noticed(self, bench: Bench) -> None:
        with bench.bare() as target:
            async with connections(target.port, 1) as (client,):
                streams = Streams(target, [client], event=b":\n")
                with pytest.raises(LoadError, match="1 of 1 clients were answered before the wake"):
                    await streams.begin_each([target.get("/events")])

    async def test_paced_requests_are_measured_from_when_they_were_due(self, bench: Bench) -> None:
        with bench.bare() as target:
            async with connections(target.port, 4) as clients:
                paced = await paced_loop(clients, [target.get("/get")] * 4, 0.5, per_second=100)
        assert 0 < len(paced.times) <= 50
        assert all(duration > 0 for duration in paced.times)

    async def test_connections_come_from_many_addresses(self) -> None:
        sources: list[str] = []

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            sources.append(writer.get_extra_info("peername")[0])
            await reader.read()
            writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        async with server, connections(server.sockets[0].getsockname()[1], SOURCES) as opened:
            assert len(opened) == SOURCES
            assert all(isinstance(one, Connection) for one in opened)
        assert len(set(sources)) == SOURCES


class TestReading:
    """The figures of long outputs, with a short one."""

    LINES = 3000

    @pytest.mark.parametrize("kind", ["text", "pages"])
    async def test_ours_and_the_yardstick_read_the_same(self, kind: str, bench: Bench) -> None:
        archive = Archive(self.LINES)
        path = f"/v1/tasks/{TASK}/output?format=text"
        figure = Stream(archive, "text", "as text", path) if kind == "text" else Pages(archive, "pages", "pages")
        ours, yardstick = await figure.ours(bench), await figure.yardstick(bench)
        assert set(ours) == set(yardstick) == {"rate", "cpu", "memory", CLIENT_CPU}
        copy = ((await archive.folder(bench)) / f"{figure.name}.body").read_bytes()
        assert copy.count(b"Compiling") == self.LINES

    def test_peak_of_memory_begins_anew(self) -> None:
        target = Target(0, os.getpid(), "")
        large = bytearray(b"x") * 64_000_000
        peak = target.peak_rss()
        del large
        target.forget_peak()
        assert 0 < target.peak_rss() < peak - 32_000_000


class TestFigures:
    def test_names_are_unique_and_each_figure_says_what_it_measures(self) -> None:
        figures = all_figures()
        names = [figure.name for figure in figures]
        assert len(set(names)) == len(names)
        assert {"polls", "appends", "bulk", "bulk-live", "wake-end-10000", "wake-sse-1000", "idle-10000"} <= set(names)
        assert {"airflow-end-1000", "airflow-idle-1000", "follow-text", "read", "catchup"} <= set(names)
        assert {"seek", "growth-100000", "disk", "sealing"} <= set(names)
        for figure in figures:
            assert figure.note
            assert figure.against
            assert figure.metrics
            assert {goal.key for goal in figure.goals} <= {metric.key for metric in figure.metrics}

    def test_optional_yardsticks_are_there_with_their_software(self, tmp_path: Path) -> None:
        with_all = Bench(tmp_path, 1.0, nginx=Path("nginx"), durable_streams=tmp_path)
        beside = {figure.name: [one.name for one in figure.yardsticks(with_all)] for figure in all_figures()}
        for name in ("wake-end-10000", "wake-append-10000", "wake-sse-10000", "airflow-end-10000"):
            assert beside[name] == ["bare aiohttp", "nchan"]
        assert beside["appends"] == ["bare aiohttp", "durable-streams"]
        assert all(len(figure.yardsticks(Bench(tmp_path, 1.0))) == 1 for figure in all_figures())

    def test_pick(self) -> None:
        figures = all_figures()
        about_postgres = pick(figures, None, postgres=True)
        assert {one.name[:3] for one in about_postgres} == {"pg-"}
        figures = pick(figures, None, plot=True)
        assert not {one.name for one in figures} & {one.name for one in about_postgres}
        assert {one.name for one in figures} - {one.name for one in pick(figures, None)} == {
            "wake-append-100",
            "wake-append-300",
            "wake-append-3000",
            "growth-1000",
            "growth-10000",
        }
        assert [one.name for one in pick(figures, "growth-1000")] == ["growth-1000"]
        assert [one.name for one in pick(figures, "polls,idle-*,polls")] == ["polls", "idle-10000"]
        with pytest.raises(ValueError, match=r"no figure is called 'nothing'.*polls"):
            pick(figures, "polls,nothing")

    def test_command_lists_the_figures_and_refuses_others(self) -> None:
        listed = CliRunner().invoke(main, ["--list", "--only", "bulk*"])
        assert listed.output.split() == ["bulk", "bulk-32", "bulk-live"]
        refused = CliRunner().invoke(main, ["--only", "nothing"])
        assert refused.exit_code == 2
        assert "no figure is called" in refused.output


class TestRivals:
    """What can be told of optional yardsticks where they are not installed."""

    def test_a_program_that_is_no_nginx_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(LoadError, match="cannot run"):
            nginx_version(tmp_path / "nginx")

    @pytest.mark.parametrize("arguments", ["", " --with-http_ssl_module --modules-path=/nowhere"])
    def test_an_nginx_without_nchan_is_refused(self, tmp_path: Path, arguments: str) -> None:
        with pytest.raises(LoadError, match="has no nchan module"):
            nginx_version(self.program(tmp_path, f"nginx version: nginx/1.2.3\nconfigure arguments:{arguments}"))

    def test_nchan_may_be_a_module_or_built_in(self, tmp_path: Path) -> None:
        (tmp_path / "ngx_nchan_module.so").touch()
        for arguments in (f"--modules-path={tmp_path} --x", "--add-module=../nchan-1.3.7"):
            built = f"nginx version: nginx/1.2.3\nconfigure arguments: {arguments}"
            assert nginx_version(self.program(tmp_path, built)) == "1.2.3"

    def test_durable_streams_must_be_installed(self, tmp_path: Path) -> None:
        with pytest.raises(LoadError, match="npm install --prefix"):
            durable_streams_version(tmp_path)
        folder = tmp_path / "node_modules" / "@durable-streams" / "server"
        folder.mkdir(parents=True)
        (folder / "package.json").write_text('{"name": "@durable-streams/server", "version": "0.3.7"}')
        assert durable_streams_version(tmp_path) == "0.3.7"

    def test_a_program_that_is_no_browser_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(LoadError, match="cannot run"):
            browser_version(tmp_path / "chromium")

    def program(self, folder: Path, says: str) -> Path:
        program = folder / "nginx"
        program.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{says}\nEND\n")
        program.chmod(0o700)
        return program
