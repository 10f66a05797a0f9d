"""Whatever a line holds, it is text: nothing of it runs, leaves the page, hides or stops it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.viewer import Output, done, finish, post_records, store
from tests.e2e.commands import Commands
from tests.server import Server

MARKUP = [
    "<script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "</span></div><iframe srcdoc='<script>parent.hacked = 1</script>'>",
    "&lt;b&gt; &#60;i&#62; {{7*7}} ${7*7}",
    "\x1b]8;;javascript:window.hacked=1\x07click\x1b]8;;\x07",
    "\x1b[38;2;1;2;3;url(https://example.org)mstyle",
    "\x1b[1<script>mweird",
]


def test_markup_is_text(signed_in: Page, server: Server) -> None:
    asked: list[str] = []
    signed_in.on("request", lambda request: asked.append(request.url))
    output = Output.open(signed_in, server, done(server, *MARKUP))
    for number, line in enumerate(MARKUP[:4], start=1):
        expect(output.text(number)).to_have_text(line)
    output.text(5).get_by_text("click").click()
    output.search("script")
    expect(output.count).to_have_text("1 of 2 lines")
    assert signed_in.evaluate("window.hacked") is None
    assert output.frame.locator("script, img, iframe, [style*=url], a[href^=javascript]").count() == 0
    assert [url for url in asked if not url.startswith(server.url)] == []


def test_unfinished_lines_are_as_harmless(signed_in: Page, server: Server) -> None:
    task_id = server.new_task()
    output = Output.open(signed_in, server, task_id)
    hostile = [*MARKUP[:4], "user\u202enimda", "\x1b]0;stolen title\x07a", "x" * 100_000]
    for text, shown in zip(hostile, [*MARKUP[:4], "userU+202Enimda", "a", "x" * 3072], strict=True):
        post_records(server, task_id, json.dumps({"partial": text}).encode())
        expect(output.unfinished(1).locator(".text")).to_have_text(shown)
    output.unfinished(1).locator(".number").click()
    assert signed_in.evaluate("[window.hacked ?? null, location.hash]") == [None, ""]
    assert "stolen" not in signed_in.title()
    assert output.frame.locator("script, img, iframe").count() == 0


def test_titles_and_links(signed_in: Page, server: Server) -> None:
    output = Output.open(
        signed_in,
        server,
        done(server, "\x1b]0;stolen title\x07a", "\x1b]8;;https://example.org/x\x1b\\there\x1b]8;;\x1b\\ not", "plain"),
    )
    link = output.text(2).get_by_role("link")
    expect(link).to_have_text("there")
    expect(link).to_have_attribute("href", "https://example.org/x")
    expect(link).to_have_attribute("rel", "noopener noreferrer")
    expect(link).to_have_attribute("target", "_blank")
    assert "stolen" not in signed_in.title()
    expect(output.text(1)).to_have_text("a")


def test_what_would_hide_or_turn_text_round_is_seen(signed_in: Page, server: Server) -> None:
    output = Output.open(signed_in, server, done(server, "user\u202enimda\u202c \0 \x08\x08 \u200b \x9b31m", "next"))
    expect(output.text(1)).to_have_text("userU+202EnimdaU+202C ^@ ^H^H U+200B U+009B31m")
    expect(output.text(2)).to_have_text("next")


def test_codes_that_never_end(signed_in: Page, server: Server) -> None:
    hostile = ["\x1b[" * 300_000, "\x1b[1m\x1b[0m" * 80_000, "\x1b]0;" * 200_000, "\r" * 900_000, "a\r" * 400_000]
    output = Output.open(signed_in, server, done(server, *hostile, "the end"))
    expect(output.text(6)).to_have_text("the end")
    output.expect_complete()
    output.search("the end")
    expect(output.count).to_have_text("1 of 1 line")


@pytest.mark.parametrize("wrap", [False, True])
def test_a_line_of_ten_megabytes(signed_in: Page, server: Server, tmp_path: Path, wrap: bool) -> None:
    script = "import sys; print('before'); print('x' * 10_000_000); print('after')"
    command = Commands(server, tmp_path)("run", "--", sys.executable, "-c", script)
    assert command.code == 0, command.err
    task = server.get("/v1/tasks?limit=1").json["tasks"][0]
    assert task["last"] == 12  # ten of at most 1 MiB
    output = Output.open(signed_in, server, task["id"])
    expect(output.text(1)).to_have_text("before")
    if wrap:
        signed_in.get_by_role("button", name="Wrap long lines").click()
    output.press("End")
    output.expect_shown(12)
    expect(output.text(12)).to_have_text("after")
    output.expect_complete()
    assert output.frame.evaluate("(frame) => frame.textContent.length") < 100_000
    output.row(11).get_by_role("button", name="show all").click()
    signed_in.wait_for_function("(frame) => frame.textContent.length > 500000", arg=output.frame.element_handle())
    output.press("End")
    output.expect_shown(12)
    output.press("Home")
    expect(output.text(1)).to_have_text("before")


def test_long_and_colourful_lines_are_fetched_once(signed_in: Page, server: Server) -> None:
    codes = "\x1b[38;2;1;2;3m" * 100
    line = f"{codes}\r{'x' * 5000}{codes}"  # what is kept of it is as long as it can be
    task_id = server.new_task()
    for _ in range(6):
        store(server, task_id, [line] * 512)
    finish(server, task_id)
    # The screen spans two pages, as far from the end as it takes for six to be wanted.
    output = Output.open(signed_in, server, task_id, "#L1025")
    output.expect_complete()
    signed_in.wait_for_load_state("networkidle")


def test_many_long_lines_are_not_all_kept(signed_in: Page, server: Server) -> None:
    task_id = server.new_task()
    for number in range(40):
        store(server, task_id, [f"{number} " + "y" * 1_000_000])
    store(server, task_id, ["last"])
    finish(server, task_id)
    output = Output.open(signed_in, server, task_id)
    output.press("End")
    output.expect_shown(41)
    expect(output.text(41)).to_have_text("last")
    output.press("Home")
    output.expect_shown(1)
    output.expect_complete()
    assert output.frame.evaluate("(frame) => frame.textContent.length") < 300_000
