"""Meters and the board: what is counted, how processes share it, and how it looks to Prometheus."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from taskserver.board import Board
from taskserver.errors import StoreFull, StoreUnavailable
from taskserver.meters import SLOT_WORDS, Counter, Kind, Meters, Waiter
from taskserver.model import TaskState
from taskserver.web.app import make_rooms
from taskserver.web.exposition import expose

LIVE = {TaskState.QUEUED: 2, TaskState.RUNNING: 7}
DOCUMENT = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")


def exposed(board: Board, live: Mapping[TaskState, int] | None = LIVE) -> dict[str, Metric]:
    """What a scrape tells, by name."""
    return {metric.name: metric for metric in text_string_to_metric_families(expose(board, live).decode())}


def samples(metric: Metric) -> dict[tuple[str, ...], float]:
    """The values of a metric by what its name ends with and its labels."""
    return {(sample.name.removeprefix(metric.name), *sample.labels.values()): sample.value for sample in metric.samples}


# --- meters ----------------------------------------------------------------------


def test_each_figure_has_cells_of_its_own() -> None:
    meters = Meters()
    for meter in meters:
        for row in range(len(meter.family.rows)):
            meter.add(1, row) if isinstance(meter, Counter) else meter.observe(0.003, 1, row)
    for meter in meters:
        for row in range(len(meter.family.rows)):
            if isinstance(meter, Counter):
                assert meter.value(row) == 1, meter.family.name
            else:
                assert (sum(meter.counts(row)), meter.sum(row)) == (1, 0.003), meter.family.name


def test_a_value_counts_at_the_first_bound_that_it_does_not_exceed() -> None:
    groups = Meters().groups
    for value in (1, 2, 3, 1000, 1001):
        groups.observe(value)
    groups.observe(5, times=10)
    assert ",".join(map(str, groups.bounds)) == "1,2,4,8,16,32,64,128,256,512,1000"
    assert groups.counts() == [1, 1, 1, 10, 0, 0, 0, 0, 0, 0, 1, 1]
    assert groups.sum() == 2007 + 50


def test_failures_of_the_store_are_told_apart() -> None:
    meters = Meters()
    for error in (StoreUnavailable("gone"), StoreFull("full"), StoreUnavailable("gone")):
        meters.store_failed(error)
    assert [meters.store_errors.value(row) for row in (0, 1)] == [2, 1]


def test_cells_that_do_not_suffice_are_noticed() -> None:
    with pytest.raises(ValueError, match="SLOT_WORDS"):
        Meters(memoryview(bytearray(8)).cast("q"))
    assert Meters().size <= SLOT_WORDS


def test_every_room_has_its_meters() -> None:
    rooms, other = make_rooms()
    for room in (*rooms, other):
        assert Meters().room(room.name).statuses[200] == 0
    with pytest.raises(ValueError, match="lounge"):
        Meters().room("lounge")


# --- the board -------------------------------------------------------------------


@pytest.fixture
def boards() -> list[Board]:
    """The boards of three processes: the first one made the memory, the others have inherited its descriptor."""
    first = Board(3)
    assert first.descriptor is not None
    return [first, *(Board(3, slot, os.dup(first.descriptor)) for slot in (1, 2))]


def test_whoever_is_asked_tells_of_all(boards: list[Board]) -> None:
    for number, board in enumerate(boards, 1):
        board.meters.appended(number, 100 * number)
        board.meters.wakes.observe(number)
    for board in boards:
        total = board.total()
        assert (total.appends.value(), total.lines.value(), total.bytes.value()) == (3, 6, 600)
        assert total.wakes.sum() == 6
        assert board.processes() == [(slot, os.getpid()) for slot in range(3)]
    boards[0].close()
    boards[0].close()
    assert boards[1].total().lines.value() == 6


def test_who_takes_a_dead_ones_place_goes_on_where_it_was(boards: list[Board]) -> None:
    first, second, _ = boards
    second.meters.appended(5, 50)
    second.meters.waiters.add(3, Waiter.STREAM)
    first.meters.waiters.add(1, Waiter.STREAM)
    first.vacate(1)
    assert [slot for slot, _ in first.processes()] == [0, 2]
    assert first.total().waiters.value(Waiter.STREAM) == 1
    assert first.total().lines.value() == 5
    assert first.descriptor is not None
    replaced = Board(3, 1, os.dup(first.descriptor))
    replaced.meters.appended(1, 10)
    assert first.total().lines.value() == 6
    assert len(first.processes()) == 3
    first.close()


def test_a_server_of_one_process_shares_no_memory() -> None:
    board = Board()
    assert board.descriptor is None
    board.meters.appended(1, 1)
    assert board.total().lines.value() == 1
    board.close()


# --- exposition ------------------------------------------------------------------


def test_it_can_be_parsed_and_says_what_was_counted() -> None:
    board = Board()
    meters = board.meters
    meters.appended(3, 30)
    meters.appended(4, 40)
    meters.waiters.add(2, Waiter.RUN)
    meters.committed(3, 0.004)
    meters.room("airflow").statuses[404] += 1
    meters.room("tasks").statuses[200] += 1
    meters.room("tasks").times[2] += 1
    meters.room("tasks").times[-1] += 2000
    told = exposed(board)
    assert samples(told["taskserver_lines"]) == {("_total",): 7}
    assert samples(told["taskserver_waiters"])["", "wait", "airflow"] == 2
    assert samples(told["taskserver_requests"]) == {("_total", "tasks", "200"): 1, ("_total", "airflow", "404"): 1}
    commits = samples(told["taskserver_commit_seconds"])
    assert (commits["_bucket", "0.0025"], commits["_bucket", "0.005"], commits["_bucket", "+Inf"]) == (0, 1, 1)
    assert (commits["_count",], commits["_sum",]) == (1, 0.004)
    latency = samples(told["taskserver_request_duration_seconds"])
    assert (latency["_count", "tasks"], latency["_count", "airflow"]) == (1, 0)
    assert (latency["_bucket", "0.001", "tasks"], latency["_bucket", "0.0025", "tasks"]) == (0, 1)
    assert latency["_sum", "tasks"] == 0.002
    assert samples(told["taskserver_live_tasks"]) == {("", "queued"): 2, ("", "running"): 7}


def test_without_the_store_the_rest_is_told() -> None:
    told = exposed(Board(), None)
    assert "taskserver_live_tasks" not in told
    assert "taskserver_waiters" in told


def test_names_follow_the_conventions() -> None:
    for meter in Meters():
        family = meter.family
        assert re.fullmatch(r"taskserver_[a-z_]+", family.name)
        assert family.name.endswith("_total") is (family.kind is Kind.COUNTER), family.name
        assert family.about.endswith("."), family.name


def test_each_figure_is_documented_and_each_one_documented_exists() -> None:
    told = {
        f"{name}_total" if metric.type == "counter" else name
        for name, metric in exposed(Board()).items()
        if name.startswith("taskserver_")
    }
    table = re.findall(r"^\| `(taskserver_\w+)` \| (\w+) \|", DOCUMENT, re.MULTILINE)
    assert {name for name, _ in table} == told
    used = {name for name in re.findall(r"\btaskserver_\w+", DOCUMENT) if not name.startswith("taskserver_key")}
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in used} == told
