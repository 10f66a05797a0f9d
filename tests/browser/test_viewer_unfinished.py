"""Lines that have no end yet: bars that move, questions that wait; and a reader who is not disturbed by them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.test_viewer_following import SEE, lines
from tests.browser.viewer import Output, finish, post_records, store
from tests.e2e.commands import Commands
from tests.server import Server, until

# Draws a bar on standard error, a step for each word, with lines and another unfinished line between.
BAR = r"""
import sys
def bar(text):
    sys.stderr.write(text)
    sys.stderr.flush()
bar("\r\x1b[32m 10%\x1b[0m |#    |")
sys.stdin.readline()
bar("\r\x1b[32m 50%\x1b[0m |##   |")
sys.stdin.readline()
print("a line", flush=True)
sys.stdin.readline()
print("is it?", end=" ", flush=True)
sys.stdin.readline()
bar("\r\x1b[32m100%\x1b[0m |#####|\n")
sys.stdin.readline()
print("yes")
"""


def test_a_progress_bar_moves_in_its_place(signed_in: Page, server: Server, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(BAR)
    with Commands(server, tmp_path).start("run", "--", sys.executable, str(script)) as running:
        output = Output.open(signed_in, server, running.task_id)
        bar = output.unfinished(1)
        expect(bar.locator(".text")).to_have_text("10% |#    |")
        expect(bar.get_by_text("10%")).to_have_class("fg-2")
        expect(bar.locator(".stream")).to_have_text("err")
        expect(bar.locator(".number")).to_contain_text("unfinished line")
        running.say("go on\n")
        expect(bar.locator(".text")).to_have_text("50% |##   |")
        running.say("go on\n")
        expect(output.text(1)).to_have_text("a line")
        expect(output.unfinished(2).locator(".text")).to_have_text("50% |##   |")
        running.say("go on\n")
        expect(output.unfinished(2).locator(".text")).to_have_text("is it? ")
        expect(output.unfinished(3).locator(".text")).to_have_text("50% |##   |")
        running.say("go on\n")
        expect(output.text(2)).to_have_text("100% |#####|")
        expect(output.unfinished(3).locator(".text")).to_have_text("is it? ")
        running.say("go on\n")
        expect(output.text(3)).to_have_text("is it? yes")
        assert running.end().code == 0
    expect(output.frame.locator(".unfinished")).to_have_count(0)
    assert output.lines() == {1: "a line", 2: "100% |#####|", 3: "is it? yes"}


def test_a_bar_comes_back_after_a_restart_and_goes_with_the_task(
    signed_in: Page, server: Server, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(BAR)
    with Commands(server, tmp_path).start("run", "--lease", "10", "--", sys.executable, str(script)) as running:
        output = Output.open(signed_in, server, running.task_id)
        expect(output.unfinished(1).locator(".text")).to_have_text("10% |#    |")
        server.kill()
        server.start()
        signed_in.reload()
        expect(output.unfinished(1).locator(".text")).to_have_text("10% |#    |")
        finish(server, running.task_id, code=1, error="enough")
        expect(signed_in.locator(".state-failed")).to_be_visible()
        expect(output.frame.locator(".unfinished")).to_have_count(0)
        for _ in range(5):
            running.say("go on\n")
        running.end()


def tell(server: Server, task_id: str, out: str = "", err: str = "") -> None:
    """What is unfinished now."""
    rows = [{"partial": out}, {"partial": err, "stream": "stderr"}]
    post_records(server, task_id, b"\n".join(json.dumps(row).encode() for row in rows))


def opened(page: Page, server: Server, count: int, hash_: str = "") -> tuple[str, Output]:
    """A running task with so many lines, and its output."""
    task_id = server.new_task()
    store(server, task_id, lines(1, count))
    output = Output.open(page, server, task_id, hash_)
    if not hash_:
        output.expect_shown(count)
    return task_id, output


def wrap(page: Page) -> None:
    page.get_by_role("button", name="Wrap long lines").click()


def test_a_task_that_only_draws_is_running(signed_in: Page, server: Server) -> None:
    signed_in.clock.install()  # it is not the next glance at the task that tells
    task_id = server.new_task()
    output = Output.open(signed_in, server, task_id)
    expect(signed_in.get_by_text("No output yet.")).to_be_visible()
    tell(server, task_id, err="10%")
    expect(output.unfinished(1)).to_be_visible()
    expect(signed_in.get_by_text("No output yet.")).to_be_hidden()
    signed_in.clock.run_for(1000)
    expect(signed_in.locator(".state-running")).to_be_visible()


@pytest.mark.parametrize("count", [255, 256, 257])
def test_it_has_the_colour_that_the_line_before_left_behind(signed_in: Page, server: Server, count: int) -> None:
    task_id = server.new_task()
    store(server, task_id, [*lines(1, count - 1), "\x1b[31mred begins"])
    output = Output.open(signed_in, server, task_id)
    output.expect_shown(count)
    tell(server, task_id, out="10%")
    expect(output.unfinished(count + 1).get_by_text("10%")).to_have_class("fg-1")
    store(server, task_id, ["10%"])
    expect(output.text(count + 1).get_by_text("10%")).to_have_class("fg-1")


def test_a_reader_who_has_left_the_end_is_left_alone(signed_in: Page, server: Server) -> None:
    task_id, output = opened(signed_in, server, 1000)
    tell(server, task_id, err="10%")
    expect(output.unfinished(1001)).to_be_in_viewport()
    output.press("ArrowUp")
    expect(output.unfinished(1001)).to_have_count(0)
    expect(output.new_lines).to_have_text("unfinished line ↓")
    before = output.shown()
    tell(server, task_id)
    expect(output.new_lines).to_be_hidden()
    tell(server, task_id, err="20%")
    expect(output.new_lines).to_have_text("unfinished line ↓")
    store(server, task_id, lines(1001, 1010))
    expect(output.new_lines).to_have_text("10 new lines ↓")
    assert output.shown() == before


def test_so_is_one_whose_long_bar_becomes_short(signed_in: Page, server: Server) -> None:
    task_id, output = opened(signed_in, server, 200)
    wrap(signed_in)
    tell(server, task_id, out="loading " + "p" * 1500)
    expect(output.unfinished(201)).to_be_in_viewport()
    for _ in range(5):
        output.press("ArrowUp")
    tell(server, task_id, out="loading p")
    expect(output.unfinished(201).locator(".text")).to_have_text("loading p")
    store(server, task_id, lines(201, 220))
    expect(output.new_lines).to_have_text("20 new lines ↓")


def test_when_it_goes_lines_are_left_on_the_screen(signed_in: Page, server: Server) -> None:
    signed_in.set_viewport_size({"width": 390, "height": 740})
    task_id, output = opened(signed_in, server, 50)
    wrap(signed_in)
    tell(server, task_id, "Continue? ", "y" * 1800)
    expect(output.unfinished(52)).to_be_in_viewport()
    output.press("ArrowUp")
    tell(server, task_id)
    expect(output.unfinished(52)).to_have_count(0)
    expect(output.row(50)).to_be_in_viewport()
    shown = output.shown()
    output.press("PageUp")
    until(lambda: len(output.shown()) > 1 and output.shown()[0] < shown[0], "the lines before")


def test_who_comes_by_a_link_is_told_that_something_waits_below(signed_in: Page, server: Server) -> None:
    task_id, output = opened(signed_in, server, 200, "#L199")
    output.expect_shown(199)
    tell(server, task_id, out="Continue? [y/N] ")
    expect(output.new_lines).to_have_text("unfinished line ↓")
    output.new_lines.click()
    expect(output.unfinished(201).locator(".text")).to_have_text("Continue? [y/N] ")
    expect(output.new_lines).to_be_hidden()


def test_what_does_not_move_stays_selected(signed_in: Page, server: Server) -> None:
    task_id, output = opened(signed_in, server, 3)
    tell(server, task_id, "Password? ", "10%")
    output.unfinished(4).get_by_text("Password? ").select_text()
    tell(server, task_id, "Password? ", "20%")
    expect(output.unfinished(5).locator(".text")).to_have_text("20%")
    assert "Password?" in signed_in.evaluate("getSelection().toString()")


def test_it_stays_while_lines_of_the_other_stream_come(signed_in: Page, server: Server) -> None:
    task_id, output = opened(signed_in, server, 3)
    tell(server, task_id, err="10%")
    expect(output.unfinished(4)).to_be_visible()
    signed_in.evaluate(
        """() => {
          window.gone = 0;
          const look = () => {
            if (!document.querySelector(".unfinished")) window.gone += 1;
            requestAnimationFrame(look);
          };
          look();
        }"""
    )
    bar = {"partial": "10%", "stream": "stderr"}
    for number in range(4, 14):
        post_records(server, task_id, b"\n".join(json.dumps(row).encode() for row in ({"text": f"line {number}"}, bar)))
        expect(output.unfinished(number + 1)).to_be_visible()
    assert signed_in.evaluate("window.gone") == 0
    store(server, task_id, ["a line, and no bar any more"])
    expect(output.row(14)).to_be_visible()
    expect(output.frame.locator(".unfinished")).to_have_count(0)


def test_it_is_forgotten_with_the_connection(signed_in: Page, server: Server) -> None:
    task_id, output = opened(signed_in, server, 3)
    tell(server, task_id, err="10%")
    expect(output.unfinished(4)).to_be_visible()
    server.kill()
    expect(output.frame.locator(".unfinished")).to_have_count(0)
    server.start()


def test_who_looks_again_sees_it_where_it_stands_now(signed_in: Page, server: Server) -> None:
    signed_in.clock.install()
    task_id, output = opened(signed_in, server, 3)
    tell(server, task_id, err="10%")
    expect(output.unfinished(4)).to_be_visible()
    with signed_in.expect_event("requestfailed", lambda request: "follow=true" in request.url):
        signed_in.evaluate(SEE, "hidden")
        signed_in.clock.run_for(10_000)
    store(server, task_id, lines(4, 5))
    tell(server, task_id, err="90%")
    signed_in.evaluate(SEE, "visible")
    signed_in.clock.resume()
    expect(output.unfinished(6).locator(".text")).to_have_text("90%")
    expect(output.frame.locator(".unfinished")).to_have_count(1)
    assert output.lines() == {number: f"line {number}" for number in range(1, 6)}


def test_it_stands_where_its_line_will_be(signed_in: Page, server: Server) -> None:
    task_id, output = opened(signed_in, server, 3)
    tell(server, task_id, err="10%")
    signed_in.get_by_role("button", name="Show the time of each line").click()
    expect(output.row(3).locator("time")).to_be_visible()
    store(server, task_id, lines(4, 4))
    tell(server, task_id, out="10%")
    expect(output.text(4)).to_have_text("line 4")
    expect(output.unfinished(5).locator(".stream")).to_have_text("")
    expect(output.unfinished(5).locator(".text")).to_have_text("10%")
    place = output.unfinished(5).locator(".text").bounding_box()
    line = output.text(4).bounding_box()
    assert place is not None
    assert line is not None
    assert place["x"] == line["x"]


def test_it_is_marked_by_a_search(signed_in: Page, server: Server) -> None:
    task_id, output = opened(signed_in, server, 1)
    tell(server, task_id, err="line 2: 10%")
    output.search("line")
    expect(output.count).to_have_text("1 of 1 line")
    expect(output.frame.locator("mark")).to_have_count(2)


def test_the_number_of_lines_never_goes_back(signed_in: Page, server: Server) -> None:
    task_id = server.new_task()
    for _ in range(2):
        store(server, task_id, ["x" * 60_000] * 120)
    client = signed_in.context.new_cdp_session(signed_in)
    client.send("Network.enable")
    slow = {"offline": False, "latency": 0, "downloadThroughput": 6_000_000, "uploadThroughput": -1}
    client.send("Network.emulateNetworkConditions", slow)
    signed_in.add_init_script(
        """window.said = [];
        new MutationObserver(() => {
          const count = document.querySelector("main")?.innerText.match(/([\\d,]+) lines/)?.[1];
          if (count && count !== window.said.at(-1)) window.said.push(count);
        }).observe(document, { childList: true, subtree: true, characterData: true });"""
    )
    output = Output.open(signed_in, server, task_id)
    output.expect_shown(240)
    store(server, task_id, ["the last"])
    output.expect_shown(241)
    until(lambda: signed_in.evaluate("window.said.at(-1)") == "241", "the new number")
    assert signed_in.evaluate("window.said") == ["240", "241"]


def test_a_finished_task_has_none(signed_in: Page, server: Server) -> None:
    task_id = server.new_task()
    tell(server, task_id, err="10%")
    output = Output.open(signed_in, server, task_id)
    expect(output.unfinished(1)).to_be_visible()
    finish(server, task_id)
    expect(signed_in.get_by_text("This task has printed nothing.")).to_be_visible()
    expect(output.frame.locator(".unfinished")).to_have_count(0)
