"""A million lines and more: what is on the screen is all there is of them in the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import sign_in
from tests.browser.viewer import Output, done
from tests.server import Server

LINES = 1_000_000
MOST_ROWS = 200  # in the document; a screen has fifty
MOST_HEAP = 80 * 1024 * 1024


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A server with a finished task of a million lines."""
    with Server(tmp_path_factory.mktemp("million")) as server:
        yield (
            server,
            done(server, *(f"line {number} \x1b[3{number % 7}mof a build\x1b[0m" for number in range(1, LINES + 1))),
        )


@pytest.fixture
def output(page: Page, stored: tuple[Server, str]) -> Output:
    server, task_id = stored
    sign_in(page, server)
    return Output.open(page, server, task_id)


def expect_line(output: Output, number: int) -> None:
    output.expect_shown(number)
    expect(output.text(number)).to_have_text(f"line {number} of a build")


def expect_in_order(output: Output) -> None:
    """Every row on the screen has the line that belongs there."""
    lines = output.lines()
    first = min(lines)
    assert list(lines.items()) == [(number, f"line {number} of a build") for number in range(first, first + len(lines))]


def test_its_ends(output: Output) -> None:
    expect_line(output, 1)
    output.press("End")
    expect_line(output, LINES)
    output.press("PageUp")
    output.press("PageUp")
    output.expect_complete()
    output.press("Home")
    expect_line(output, 1)


def test_every_way_through_it_shows_lines_in_order(output: Output) -> None:
    expect_line(output, 1)
    for share in (0.1, 0.5, 0.999, 0.3333, 0.0001):
        output.drag_to(share)
        expected = round(share * LINES)
        output.page.wait_for_function(
            "([frame, low, high]) => { const n = Number(frame.querySelector('.number')?.textContent);"
            " return n >= low && n <= high; }",
            arg=[output.frame.element_handle(), expected - 200, expected + 200],
        )
        output.expect_complete()
        expect_in_order(output)
    # Beyond what a browser's elements can be high, the wheel still goes line by line.
    output.drag_to(0.5)
    output.expect_complete()
    top = output.shown()[0]
    output.wheel(200)
    output.expect_shown(top + 11)
    expect(output.row(top + 8)).to_have_count(0)
    output.wheel(-400)
    output.expect_shown(top - 9)


def test_nothing_of_it_stays_in_the_page(output: Output) -> None:
    expect_line(output, 1)
    for step in range(1, 101):
        output.drag_to(step / 100)
        output.expect_complete()
        assert output.frame.locator(".row").count() < MOST_ROWS
    expect_line(output, LINES)
    session = output.page.context.new_cdp_session(output.page)
    session.send("HeapProfiler.collectGarbage")
    heap = session.send("Runtime.getHeapUsage")["usedSize"]
    assert heap < MOST_HEAP, f"{heap / 1024 / 1024:.0f} MiB"


def test_a_line_in_the_middle_by_link_and_by_search(output: Output, stored: tuple[Server, str]) -> None:
    server, task_id = stored
    Output.open(output.page, server, task_id, "#L654321")
    expect_line(output, 654_321)
    output.search("line 777777 of")
    expect_line(output, 777_777)
    expect(output.count).to_have_text("1 of 1 line")


def test_with_lines_wrapped(output: Output) -> None:
    output.page.set_viewport_size({"width": 400, "height": 600})
    output.page.get_by_role("button", name="Wrap long lines").click()
    output.press("End")
    expect_line(output, LINES)
    output.drag_to(0.5)
    output.expect_complete()
    top = output.shown()[0]
    assert abs(top - LINES / 2) < 200
    output.press("PageDown")
    expect(output.row(top)).to_have_count(0)
    output.expect_complete()
    expect_in_order(output)
    output.press("Home")
    expect_line(output, 1)
