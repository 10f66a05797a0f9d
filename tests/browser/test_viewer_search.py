"""Searching the whole output from its page."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.browser.viewer import Output, done, store
from tests.server import Server

YEARS_LATER = "2100-01-01"
LINES = [f"line {number} {'needle' if number % 100 == 0 else 'hay'}" for number in range(1, 5001)]


def test_matches_are_counted_and_stepped_through(signed_in: Page, server: Server) -> None:
    output = Output.open(signed_in, server, done(server, *LINES))
    output.expect_shown(1)
    output.search("NEEDLE")
    expect(output.count).to_have_text("1 of 50 lines")
    output.expect_shown(100)
    expect(output.row(100)).to_have_class(re.compile("current"))
    expect(output.row(100).locator("mark")).to_have_text("needle")
    output.search_field.press("Enter")
    expect(output.count).to_have_text("2 of 50 lines")
    output.expect_shown(200)
    signed_in.get_by_role("button", name="Next match").click()
    output.expect_shown(300)
    output.search_field.press("Shift+Enter")
    output.search_field.press("Shift+Enter")
    output.search_field.press("Shift+Enter")
    expect(output.count).to_have_text("50 of 50 lines")  # round the beginning
    output.expect_shown(5000)
    output.search_field.press("Enter")
    expect(output.count).to_have_text("1 of 50 lines")
    output.expect_shown(100)


def test_enter_does_not_wait_until_the_typing_is_over(signed_in: Page, server: Server) -> None:
    output = Output.open(signed_in, server, done(server, *LINES))
    output.expect_shown(1)
    signed_in.clock.install()  # the time for typing does not pass
    signed_in.clock.pause_at(YEARS_LATER)
    output.search("needle")
    expect(output.count).to_have_text("")
    output.search_field.press("Enter")
    expect(output.count).to_have_text("1 of 50 lines")


def test_it_begins_where_the_reader_is(signed_in: Page, server: Server) -> None:
    output = Output.open(signed_in, server, done(server, *LINES), "#L2050")
    output.expect_shown(2050)
    output.search("needle")
    expect(output.count).to_have_text("21 of 50 lines")
    output.expect_shown(2100)


def test_case_and_what_is_not_there(signed_in: Page, server: Server) -> None:
    output = Output.open(signed_in, server, done(server, "Error", "error", "fine"))
    output.search("error")
    expect(output.count).to_have_text("1 of 2 lines")
    signed_in.get_by_role("button", name="Match case").click()
    expect(output.count).to_have_text("1 of 1 line")
    output.search("nowhere")
    expect(output.count).to_have_text("no match")
    output.search_field.press("Escape")
    expect(output.count).to_have_text("")
    expect(output.frame).to_be_focused()
    expect(output.frame.locator("mark")).to_have_count(0)


def test_a_match_across_a_change_of_colour(signed_in: Page, server: Server) -> None:
    output = Output.open(signed_in, server, done(server, "an er\x1b[31mror\x1b[0m here"))
    output.search("error h")
    expect(output.count).to_have_text("1 of 1 line")
    expect(output.frame.locator("mark")).to_have_text(["er", "ror", " h"])


def test_keys_open_it(signed_in: Page, server: Server) -> None:
    output = Output.open(signed_in, server, done(server, "a/b"))
    output.expect_shown(1)
    for key in ("/", "Control+f"):
        output.press(key)
        expect(output.search_field).to_be_focused()
    signed_in.keyboard.type("a/b")  # a slash in the field is text
    expect(output.search_field).to_have_value("a/b")
    expect(output.count).to_have_text("1 of 1 line")


def test_what_comes_while_one_watches_is_found_too(signed_in: Page, server: Server) -> None:
    task_id = server.new_task()
    store(server, task_id, ["needle 1", *["hay"] * 500])
    output = Output.open(signed_in, server, task_id)
    output.expect_shown(501)
    output.search("needle")
    expect(output.count).to_have_text("1 of 1 line")
    store(server, task_id, ["hay", "needle 2"])
    expect(output.count).to_have_text("1 of 2 lines")
    output.search_field.press("Enter")
    output.expect_shown(503)


def test_more_matches_than_one_answer_holds(signed_in: Page, server: Server) -> None:
    output = Output.open(signed_in, server, done(server, *(f"every line {number}" for number in range(30_000))))
    output.search("every")
    expect(output.count).to_have_text("1 of 30,000 lines")
    output.search_field.press("Shift+Enter")
    expect(output.count).to_have_text("30,000 of 30,000 lines")
    output.expect_shown(30_000)
