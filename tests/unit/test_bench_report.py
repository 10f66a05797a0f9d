"""What the benchmark makes of its numbers: ratios, goals, tables and curves."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from tests.bench.__main__ import main
from tests.bench.figure import CLIENT_CPU, Figure, Goal, Metric, Point
from tests.bench.plot import PlotterMissing, growth_chart, load_plotter, spread, wake_chart
from tests.bench.summary import Result, Round, Spread, percentile, report
from tests.bench.table import markdown, number, show
from tests.bench.waiting import Woken, typical
from tests.unit.bench_figures import CPU, EXTRA, RATE, Beyond, Broken, Fake, compared, result, yardstick


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
        rate = compared(result((100, 400), (200, 200), (300, 300)), RATE)
        assert rate.ratio == Spread(1.0, 0.25, 1.0)
        assert (rate.ours.median, rate.theirs.median) == (200, 300)

    def test_no_ratio_where_it_means_nothing(self) -> None:
        assert compared(result((1, 1)), CPU).ratio is None
        assert compared(result((1, 1), (1, 0)), RATE).ratio is None

    def test_difference_in_the_place_of_a_ratio(self) -> None:
        extra = compared(result((5, 2), (7, 3), figure=Beyond()), EXTRA)
        assert extra.difference == Spread(3.5, 3, 4)
        assert extra.ratio is None
        assert compared(result((5, 2)), RATE).difference is None

    @pytest.mark.parametrize(
        ("figure", "metric", "goal", "reached"),
        [
            (Fake(), RATE, Goal("rate", 0.75), True),  # more is better, and it is the ratio: 0.75
            (Fake(), RATE, Goal("rate", 0.76), False),
            (Fake(), CPU, Goal("cpu", 1.0), True),  # less is better, and it is our own number: 1
            (Fake(), CPU, Goal("cpu", 0.9), False),
            (Beyond(), EXTRA, Goal("rate", -1.0), True),  # less is better, and it is the difference: -1
            (Beyond(), EXTRA, Goal("rate", -1.1), False),
            (Fake(), CPU, Goal("rate", 0.75), None),  # of another metric
        ],
    )
    def test_whether_a_goal_is_reached(self, figure: Figure, metric: Metric, goal: Goal, reached: bool | None) -> None:
        assert compared(result((3, 4), figure=figure, goals=(goal,)), metric).is_reached is reached

    def test_latencies_are_medians_of_the_wakes(self) -> None:
        sample = typical([Woken([0.001, 0.002, 0.004], 0.1), Woken([0.003, 0.004, 0.008], 0.3)])
        assert sample == pytest.approx({"p50": 3.0, "p99": 6.0, "max": 6.0, CLIENT_CPU: 0.3})

    def test_report_has_every_number(self) -> None:
        measured = result((10, 20), (30, 20), goals=(Goal("rate", 0.9),))
        document = report([measured, Result(Broken(), trouble="gone")], {"cores": 2})
        rate, cpu = document["rows"]
        assert rate["ours"] == {"median": 20, "all": [10, 30]}
        assert rate["yardstick"] == {"median": 20, "all": [20, 20]}
        assert rate["ratio"] == {"median": 1.0, "min": 0.5, "max": 1.5}
        assert (rate["figure"], rate["metric"], rate["unit"], rate["rounds"]) == ("fake", "rate", "polls/s", 2)
        assert (rate["client_cpu"], rate["others"]) == ((0.2, 0.3), 0.1)
        assert (rate["beside"], rate["goal"], rate["reached"]) == ("twice", 0.9, True)
        assert (cpu["ratio"], cpu["difference"], cpu["goal"], cpu["reached"]) == (None, None, None, None)
        assert document["missing"] == [{"figure": "broken", "trouble": "gone"}]
        assert document["environment"] == {"cores": 2}


class TestTable:
    def test_shows_ratio_rounds_and_notes(self) -> None:
        text = rendered([result((10, 20), (30, 20))])
        for part in ("cores 2", "fake", "polls/s ↑", "1.00 (0.50–1.50)", "20% / 30%", "10%", "Nothing is measured."):
            assert part in text

    def test_shows_differences_with_their_signs(self) -> None:
        text = rendered([result((1.5, 2), (4, 2), figure=Beyond(), goals=Beyond.goals)])
        assert "+0.75 (−0.50–+2.00)" in text
        assert "≤ +2 % ✓" in text

    def test_shows_goals_beside_the_ratio(self) -> None:
        goals = (Goal("rate", 0.85), Goal("cpu", 1.0))
        text = rendered([result((8, 10), goals=goals)])
        assert "≥ 0.85 ✗" in text
        assert "≤ 1 % ✓" in text

    def test_markdown_has_a_row_for_each_metric(self) -> None:
        text = markdown([result((10, 20), goals=(Goal("rate", 0.5),)), Result(Broken(), trouble="gone")], {"cores": 2})
        lines = text.splitlines()
        assert lines[2] == "| fake, polls/s ↑ | 10.0 | 20.0 (twice) | 0.50 (0.50–0.50) | ≥ 0.5 ✓ |"
        assert lines[3] == "| fake CPU, % ↓ | 1.00 | 0.00 (twice) | – |  |"
        assert "cores 2" in text
        assert "broken: not measured: gone" in text

    def test_marks_a_busy_client_and_a_noisy_machine(self) -> None:
        busy = Round({"rate": 1.0, "cpu": 1.0, CLIENT_CPU: 0.99}, [{"rate": 1.0, "cpu": 0.0}], 0.5)
        text = rendered([Result(Fake(), [yardstick(Fake())], [busy])])
        assert "99% ! / 0%" in text
        assert "50% !" in text

    def test_says_what_could_not_be_measured(self) -> None:
        assert "not measured: gone" in rendered([Result(Broken(), trouble="gone")])

    @pytest.mark.parametrize(
        ("value", "text"), [(12345.6, "12,346"), (100.4, "100"), (12.34, "12.3"), (1.234, "1.23"), (0.0, "0.00")]
    )
    def test_numbers(self, value: float, text: str) -> None:
        assert number(value) == text


class TestPlot:
    """What is drawn; matplotlib itself is not needed here."""

    def curve(self, name: str, *points: tuple[float, float, float]) -> list[Result]:
        results = []
        for x, ours, theirs in points:
            figure = Fake()
            figure.metrics = (Metric("p50", "half", "ms", more_is_better=False), Metric("p99", "most", "ms", False))
            figure.point = Point(name, x)
            rounds = [Round({"p50": ours, "p99": 2 * ours}, [{"p50": theirs, "p99": theirs}])]
            results.append(Result(figure, [yardstick(figure, Goal("p50", 1.3))], rounds))
        return results

    def test_wakes_by_waiters(self) -> None:
        chart = wake_chart(self.curve("wake-append", (1000, 8, 9), (100, 1, 2)))
        assert chart is not None
        assert [(line.name, line.points) for line in chart.lines] == [
            ("taskserver", [(100, 2), (1000, 16)]),
            ("twice", [(100, 2), (1000, 9)]),
        ]
        assert [line.points for line in chart.dotted] == [[(100, 1), (1000, 8)], [(100, 2), (1000, 9)]]

    def test_growth_is_a_ratio_by_what_is_stored(self) -> None:
        chart = growth_chart(self.curve("growth", (1000, 3, 2), (10000, 4, 2)), scale=0.1)
        assert chart is not None
        assert [(line.name, line.points) for line in chart.lines] == [
            ("half", [(100, 1.5), (1000, 2.0)]),
            ("most", [(100, 3.0), (1000, 4.0)]),
        ]
        assert chart.limit == ("goal", 1.3)

    def test_one_point_is_no_curve(self) -> None:
        assert wake_chart(self.curve("wake-append", (100, 1, 2))) is None
        assert growth_chart(self.curve("wake-append", (100, 1, 2), (200, 1, 2))) is None

    def test_labels_do_not_stand_on_one_another(self) -> None:
        assert spread([0.5, 0.1, 0.52], 0.1) == pytest.approx([0.5, 0.1, 0.6])
        assert spread([0.3, 0.3, 0.3], 0.1) == pytest.approx([0.3, 0.4, 0.5])
        assert spread([], 0.1) == []

    def test_without_matplotlib_it_says_so_at_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(PlotterMissing, match=r"\.\[bench\]"):
            load_plotter(tmp_path / "plots")
        refused = CliRunner().invoke(main, ["--only", "polls", "--plot", str(tmp_path / "plots")])
        assert refused.exit_code == 1
        assert "matplotlib" in refused.output

    def test_draws_svg_files(self, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib", reason="it is in the extra 'bench' only")
        draw = load_plotter(tmp_path / "plots")
        files = draw(self.curve("wake-append", (100, 1, 2), (1000, 8, 9)), 1.0)
        assert [file.name for file in files] == ["wake.svg"]
        assert "taskserver 16.0 ms" in files[0].read_text()


def rendered(results: list[Result]) -> str:
    console = Console(file=io.StringIO(), width=180)
    console.print(show(results, {"cores": 2}))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
