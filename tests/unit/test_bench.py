"""The benchmark's own arithmetic, HTTP reader, waiting and report: a benchmark that miscounts is worse than none."""

from __future__ import annotations

import asyncio
import io
import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from tests.bench import runner
from tests.bench.__main__ import main
from tests.bench.archive import TASK, Archive
from tests.bench.figure import CLIENT_CPU, Figure, Metric, Sample
from tests.bench.figures import all_figures
from tests.bench.figures.follow import Pages, Stream
from tests.bench.load import SOURCES, Connection, LoadError, connections
from tests.bench.runner import allow_files, pick, run
from tests.bench.servers import Bench, Target
from tests.bench.summary import Result, Round, Spread, percentile, report
from tests.bench.table import number, show
from tests.bench.waiting import Streams, Woken, typical
from tests.bench.wire import ProtocolError, Response, ResponseReader, build_chunk, build_request

RATE = Metric("rate", "", "polls/s", more_is_better=True)
CPU = Metric("cpu", "CPU", "%", more_is_better=False, has_ratio=False)
EXTRA = Metric("rate", "extra", "%", more_is_better=False, has_difference=True)


class Fake(Figure):
    """A figure whose numbers are known: ours is always half of the yardstick's."""

    name = "fake"
    against = "twice of it"
    note = "Nothing is measured."
    metrics: tuple[Metric, ...] = (RATE, CPU)

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def ours(self, bench: Bench) -> Sample:
        self.calls.append("ours")
        return {"rate": 10.0 * len(self.calls), "cpu": 1.5, CLIENT_CPU: 0.25}

    async def yardstick(self, bench: Bench) -> Sample:
        self.calls.append("yardstick")
        return {"rate": 20.0 * len(self.calls), "cpu": 0.0, CLIENT_CPU: 0.95}


class Broken(Fake):
    """A figure whose server goes away."""

    name = "broken"

    async def yardstick(self, bench: Bench) -> Sample:
        raise ConnectionResetError("gone")


class Beyond(Fake):
    """A figure of which the difference counts."""

    metrics = (EXTRA,)


class Crowded(Fake):
    """A figure for a machine that does not exist."""

    name = "crowded"
    connections = 2**40


def result(*pairs: tuple[float, float]) -> Result:
    rounds = [
        Round({"rate": ours, "cpu": 1.0, CLIENT_CPU: 0.2}, {"rate": theirs, "cpu": 0.0, CLIENT_CPU: 0.3}, 0.1)
        for ours, theirs in pairs
    ]
    return Result(Fake(), rounds)


class TestSummary:
    @pytest.mark.parametrize(
        ("share", "expected"), [(0.0, 1.0), (0.5, 50.0), (0.505, 51.0), (0.99, 99.0), (0.991, 100.0), (1.0, 100.0)]
    )
    def test_percentile_is_a_number_that_was_measured(self, share: float, expected: float) -> None:
        assert percentile([float(value) for value in range(1, 101)], share) == expected

    def test_percentile_of_one_number(self) -> None:
        assert [percentile([7.0], share) for share in (0.01, 0.5, 0.99)] == [7.0, 7.0, 7.0]

    def test_spread(self) -> None:
        assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
        assert Spread.of([1.0, 2.0]) == Spread(1.5, 1.0, 2.0)

    def test_ratio_is_taken_round_by_round(self) -> None:
        """The medians' quotient would be 200/300: it pairs numbers of different rounds."""
        measured = result((100, 400), (200, 200), (300, 300))
        assert measured.ratio(RATE) == Spread(1.0, 0.25, 1.0)
        assert (measured.ours(RATE).median, measured.yardstick(RATE).median) == (200, 300)

    def test_no_ratio_where_it_means_nothing(self) -> None:
        assert result((1, 1)).ratio(CPU) is None
        assert result((1, 1), (1, 0)).ratio(RATE) is None

    def test_difference_in_the_place_of_a_ratio(self) -> None:
        measured = result((5, 2), (7, 3))
        assert measured.difference(EXTRA) == Spread(3.5, 3, 4)
        assert measured.ratio(EXTRA) is None
        assert measured.difference(RATE) is None

    def test_latencies_are_medians_of_the_wakes(self) -> None:
        sample = typical([Woken([0.001, 0.002, 0.004], 0.1), Woken([0.003, 0.004, 0.008], 0.3)])
        assert sample == pytest.approx({"p50": 3.0, "p99": 6.0, "max": 6.0, CLIENT_CPU: 0.3})

    def test_report_has_every_number(self) -> None:
        document = report([result((10, 20), (30, 20)), Result(Broken(), trouble="gone")], {"cores": 2})
        rate, cpu = document["rows"]
        assert rate["ours"] == {"median": 20, "all": [10, 30]}
        assert rate["yardstick"] == {"median": 20, "all": [20, 20]}
        assert rate["ratio"] == {"median": 1.0, "min": 0.5, "max": 1.5}
        assert (rate["figure"], rate["metric"], rate["unit"], rate["rounds"]) == ("fake", "rate", "polls/s", 2)
        assert (rate["client_cpu"], rate["others"]) == ((0.2, 0.3), 0.1)
        assert (cpu["ratio"], cpu["difference"]) == (None, None)
        assert document["missing"] == [{"figure": "broken", "trouble": "gone"}]
        assert document["environment"] == {"cores": 2}


class TestTable:
    def test_shows_ratio_rounds_and_notes(self) -> None:
        text = rendered([result((10, 20), (30, 20))])
        for part in ("cores 2", "fake", "polls/s ↑", "1.00 (0.50–1.50)", "20% / 30%", "10%", "Nothing is measured."):
            assert part in text

    def test_shows_differences_with_their_signs(self) -> None:
        rounds = [Round({"rate": rate}, {"rate": 2.0}) for rate in (1.5, 4.0)]
        assert "+0.75 (−0.50–+2.00)" in rendered([Result(Beyond(), rounds)])

    def test_marks_a_busy_client_and_a_noisy_machine(self) -> None:
        busy = Round({"rate": 1.0, "cpu": 1.0, CLIENT_CPU: 0.99}, {"rate": 1.0, "cpu": 0.0}, 0.5)
        text = rendered([Result(Fake(), [busy])])
        assert "99% ! / 0%" in text
        assert "50% !" in text

    def test_says_what_could_not_be_measured(self) -> None:
        assert "not measured: gone" in rendered([Result(Broken(), trouble="gone")])

    @pytest.mark.parametrize(
        ("value", "text"), [(12345.6, "12,346"), (100.4, "100"), (12.34, "12.3"), (1.234, "1.23"), (0.0, "0.00")]
    )
    def test_numbers(self, value: float, text: str) -> None:
        assert number(value) == text


def rendered(results: list[Result]) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(show(results, {"cores": 2}))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: x\r\n\r\nhello"
LOWER = b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n"
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
        assert [(one.ours["rate"], one.yardstick["rate"]) for one in measured.rounds] == [(10, 40), (40, 60), (50, 120)]

    async def test_a_figure_that_fails_does_not_stop_the_others(self, bench: Bench) -> None:
        said: list[str] = []
        broken, crowded, fine = await run([Broken(), Crowded(), Fake()], bench, 1, said.append)
        assert (broken.trouble, broken.rounds) == ("ConnectionResetError: gone", [])
        assert "open files" in crowded.trouble
        assert (fine.trouble, len(fine.rounds)) == ("", 1)
        assert any(broken.trouble in line for line in said)
        assert any(crowded.trouble in line for line in said)

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
        for figure in figures:
            assert figure.note
            assert figure.against
            assert figure.metrics

    def test_pick(self) -> None:
        figures = all_figures()
        assert pick(figures, None) == figures
        assert [one.name for one in pick(figures, "polls,idle-*,polls")] == ["polls", "idle-10000"]
        with pytest.raises(ValueError, match=r"no figure is called 'nothing'.*polls"):
            pick(figures, "polls,nothing")

    def test_command_lists_the_figures_and_refuses_others(self) -> None:
        listed = CliRunner().invoke(main, ["--list", "--only", "bulk*"])
        assert listed.output.split() == ["bulk", "bulk-32", "bulk-live"]
        refused = CliRunner().invoke(main, ["--only", "nothing"])
        assert refused.exit_code == 2
        assert "no figure is called" in refused.output
