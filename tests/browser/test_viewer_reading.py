"""Reading output: where it opens, moving in it, how lines look, links to lines, copying and downloading."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.viewer import Output, done, finish, post_records, store
from tests.server import Server

COLOURS = "\x1b[31mred\x1b[0m \x1b[1;4mstrong\x1b[0m \x1b[38;5;208morange\x1b[0m \x1b[48;2;1;2;3mground\x1b[0m"


def lines(count: int) -> list[str]:
    return [f"line {number}" for number in range(1, count + 1)]


class TestOpening:
    def test_a_finished_task_at_its_top(self, signed_in: Page, server: Server) -> None:
        output = Output.open(signed_in, server, done(server, *lines(1000)))
        output.expect_shown(1)
        expect(output.text(1)).to_have_text("line 1")
        expect(output.new_lines).to_be_hidden()

    def test_a_running_task_at_its_end(self, signed_in: Page, server: Server) -> None:
        task_id = server.new_task()
        store(server, task_id, lines(1000))
        output = Output.open(signed_in, server, task_id)
        output.expect_shown(1000)
        output.expect_complete()
        assert output.texts()[-1] == "line 1000"

    def test_no_lines(self, signed_in: Page, server: Server) -> None:
        task_id = server.new_task()
        Output.open(signed_in, server, task_id)
        expect(signed_in.get_by_text("No output yet.")).to_be_visible()
        finish(server, task_id)
        expect(signed_in.get_by_text("This task has printed nothing.")).to_be_visible()


class TestMoving:
    def test_by_keys(self, signed_in: Page, server: Server) -> None:
        output = Output.open(signed_in, server, done(server, *lines(1000)))
        output.expect_shown(1)
        output.press("ArrowDown")
        expect(output.row(1)).to_have_count(0)
        output.press("PageDown")
        expect(output.row(2)).to_have_count(0)
        output.press("PageUp")
        output.expect_shown(2)
        output.press("ArrowUp")
        output.expect_shown(1)
        output.press("End")
        output.expect_shown(1000)
        output.press("Home")
        output.expect_shown(1)

    def test_by_wheel_and_bar(self, signed_in: Page, server: Server) -> None:
        output = Output.open(signed_in, server, done(server, *lines(1000)))
        output.expect_shown(1)
        output.wheel(200)
        output.expect_shown(11)
        expect(output.row(9)).to_have_count(0)
        output.drag_to(0.5)
        output.expect_shown(500)
        output.drag_to(1)
        output.expect_shown(1000)
        output.expect_complete()
        assert output.lines() == {number: f"line {number}" for number in range(min(output.lines()), 1001)}

    def test_rows_of_different_heights(self, signed_in: Page, server: Server) -> None:
        long = [f"{number} " + "word " * (number % 7) * 40 for number in range(1, 501)]
        output = Output.open(signed_in, server, done(server, *long))
        output.expect_shown(1)
        signed_in.get_by_role("button", name="Wrap").click()
        expect(output.frame).to_have_class(re.compile("wrap"))
        seen = set(output.shown())
        for _ in range(400):
            before = output.shown()
            output.press("PageDown")
            output.page.wait_for_function(
                "([frame, last]) => frame.querySelector('.row:last-child .number').textContent !== last"
                " || frame.querySelector('.row:last-child .number').textContent === '500'",
                arg=[output.frame.element_handle(), str(before[-1])],
            )
            seen.update(output.shown())
            if 500 in seen:
                break
        assert seen == set(range(1, 501))  # nothing was skipped
        for _ in range(400):
            before = output.shown()
            if before[0] == 1:
                break
            output.press("PageUp")
            output.page.wait_for_function(
                "([frame, first]) => frame.querySelector('.row .number').textContent !== first",
                arg=[output.frame.element_handle(), str(before[0])],
            )
            assert output.shown()[0] < before[0]
        output.expect_shown(1)


class TestLooks:
    def test_colours_and_styles(self, signed_in: Page, server: Server) -> None:
        output = Output.open(signed_in, server, done(server, COLOURS))
        expect(output.text(1)).to_have_text("red strong orange ground")
        part = output.text(1).get_by_text
        expect(part("red", exact=True)).to_have_class("fg-1")
        expect(part("strong")).to_have_class("bold underline")
        expect(part("strong")).to_have_css("font-weight", "700")
        expect(part("orange")).to_have_css("color", "rgb(255, 135, 0)")
        expect(part("ground")).to_have_css("background-color", "rgb(1, 2, 3)")

    def test_a_style_goes_on_in_the_next_line(self, signed_in: Page, server: Server) -> None:
        output = Output.open(signed_in, server, done(server, "\x1b[32mone", "two", "\x1b[0mthree", *lines(500)))
        expect(output.text(2).locator("span")).to_have_class("fg-2")
        expect(output.text(3).locator("span")).not_to_have_class("fg-2")

    def test_a_progress_bar_shows_its_last_state(self, signed_in: Page, server: Server) -> None:
        output = Output.open(signed_in, server, done(server, "\r".join(f"{n}%" for n in range(101))))
        expect(output.text(1)).to_have_text("100%")

    def test_standard_error_is_told_apart_in_words_too(self, signed_in: Page, server: Server) -> None:
        task_id = server.new_task()
        body = b'{"text": "out"}\n{"text": "problem", "stream": "stderr", "time": "2026-11-20T10:11:12.345Z"}\n'
        post_records(server, task_id, body)
        output = Output.open(signed_in, server, task_id)
        expect(output.row(2).locator(".stream")).to_have_text("err")
        expect(output.row(1).locator(".stream")).to_have_text("")
        time = output.row(2).locator("time")
        expect(time).to_be_hidden()
        signed_in.get_by_role("button", name="Show the time of each line").click()
        expect(time).to_be_visible()
        expect(time).to_have_attribute("datetime", "2026-11-20T10:11:12.345Z")

    def test_a_long_line_is_cut_and_can_be_shown_as_a_whole(self, signed_in: Page, server: Server) -> None:
        output = Output.open(signed_in, server, done(server, "before", "x" * 200_000 + "the end", "after"))
        output.expect_shown(3)
        expect(output.text(2)).not_to_contain_text("the end")
        output.row(2).get_by_role("button", name="show all 200.0 KB").click()
        expect(output.text(2)).to_contain_text("the end")
        output.press("End")
        output.expect_shown(3)

    def test_the_page_is_never_wider_than_the_screen(self, signed_in: Page, server: Server) -> None:
        output = Output.open(signed_in, server, done(server, "x" * 5000, "short"))
        output.expect_shown(1)
        assert signed_in.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert output.frame.evaluate("(frame) => frame.scrollWidth > 10 * frame.clientWidth")
        output.frame.evaluate("(frame) => { frame.scrollLeft = 10000; }")
        expect(output.row(2).locator(".number")).to_be_in_viewport()
        signed_in.get_by_role("button", name="Wrap long lines").click()
        expect(output.row(1)).to_have_css("white-space", "normal")
        signed_in.wait_for_function(
            "(frame) => frame.scrollWidth <= frame.clientWidth", arg=output.frame.element_handle()
        )


class TestLinks:
    def test_to_a_line_and_to_a_range(self, signed_in: Page, server: Server) -> None:
        task_id = done(server, *lines(1000))
        output = Output.open(signed_in, server, task_id, "#L500-L502")
        output.expect_shown(500)
        expect(output.frame.locator(".row.selected .text")).to_have_text(["line 500", "line 501", "line 502"])
        signed_in.goto(f"{server.url}/tasks/{task_id}#L900")  # the same page with another hash
        output.expect_shown(900)
        expect(output.frame.locator(".row.selected .text")).to_have_text(["line 900"])

    def test_are_made_by_clicks(self, signed_in: Page, server: Server) -> None:
        output = Output.open(signed_in, server, done(server, *lines(1000)))
        output.row(3).locator(".number").click()
        expect(signed_in).to_have_url(re.compile("#L3$"))
        output.row(6).locator(".number").click(modifiers=["Shift"])
        expect(signed_in).to_have_url(re.compile("#L3-L6$"))
        output.row(2).locator(".number").click(modifiers=["Shift"])
        expect(signed_in).to_have_url(re.compile("#L2-L3$"))
        expect(output.frame.locator(".row.selected")).to_have_count(2)
        signed_in.reload()
        output.expect_shown(2)
        expect(output.frame.locator(".row.selected")).to_have_count(2)

    def test_to_a_line_of_a_running_task_stays_there(self, signed_in: Page, server: Server) -> None:
        task_id = server.new_task()
        store(server, task_id, lines(1000))
        output = Output.open(signed_in, server, task_id, "#L1000")
        output.expect_shown(1000)
        store(server, task_id, lines(500))
        expect(output.new_lines).to_have_text("500 new lines ↓")
        output.expect_shown(1000)


class TestTakingAway:
    def test_lines_are_copied_without_numbers_and_codes(self, signed_in: Page, server: Server) -> None:
        signed_in.context.grant_permissions(["clipboard-read", "clipboard-write"])
        output = Output.open(signed_in, server, done(server, "before", COLOURS, "\x1b[1mafter", "more"))
        output.expect_shown(4)
        output.row(2).locator(".number").click()
        output.row(3).locator(".number").click(modifiers=["Shift"])
        signed_in.get_by_role("button", name="Copy 2 lines").click()
        expect(signed_in.get_by_role("button", name="Copied")).to_be_visible()
        assert signed_in.evaluate("navigator.clipboard.readText()") == "red strong orange ground\nafter"

    def test_as_many_lines_as_are_marked(self, signed_in: Page, server: Server) -> None:
        signed_in.context.grant_permissions(["clipboard-read", "clipboard-write"])
        every = lines(25_000)
        Output.open(signed_in, server, done(server, *every), "#L2-L99999")
        signed_in.get_by_role("button", name="Copy 24,999 lines").click()
        expect(signed_in.get_by_role("button", name="Copied")).to_be_visible()
        assert signed_in.evaluate("navigator.clipboard.readText()").split("\n") == every[1:]

    def test_where_scripts_have_no_clipboard(self, signed_in: Page, server: Server) -> None:
        signed_in.context.grant_permissions(["clipboard-read", "clipboard-write"])
        output = Output.open(signed_in, server, done(server, "\x1b[31mone\x1b[0m", "two", "three"), "#L1-L2")
        output.expect_shown(3)
        # As it is over plain http.
        signed_in.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined, configurable: true })")
        signed_in.get_by_role("button", name="Copy 2 lines").click()
        expect(signed_in.get_by_role("button", name="Copied")).to_be_visible()
        signed_in.evaluate("delete navigator.clipboard")
        assert signed_in.evaluate("navigator.clipboard.readText()") == "one\ntwo"

    def test_a_selection_too(self, signed_in: Page, server: Server) -> None:
        signed_in.context.grant_permissions(["clipboard-read", "clipboard-write"])
        output = Output.open(signed_in, server, done(server, "first line", "\x1b[31msecond\x1b[0m line", "third line"))
        output.expect_shown(3)
        output.frame.evaluate(
            """(frame) => {
              const [one, , three] = frame.querySelectorAll(".text");
              const texts = (element) => element.firstChild.firstChild;
              getSelection().setBaseAndExtent(texts(one), 6, texts(three), 5);
            }"""
        )
        signed_in.keyboard.press("Control+C")
        assert signed_in.evaluate("navigator.clipboard.readText()") == "line\nsecond line\nthird"

    def test_a_selection_stays_when_other_lines_come(self, signed_in: Page, server: Server) -> None:
        task_id = server.new_task()
        store(server, task_id, lines(3))
        output = Output.open(signed_in, server, task_id)
        output.expect_shown(3)
        output.text(2).evaluate("(text) => getSelection().setBaseAndExtent(text, 0, text.firstChild.firstChild, 4)")
        assert signed_in.evaluate("getSelection().toString().trim()") == "line"
        store(server, task_id, ["another"])
        expect(output.text(4)).to_have_text("another")
        assert signed_in.evaluate("getSelection().toString().trim()") == "line"

    @pytest.mark.parametrize(
        ("link", "text"),
        [("Download", "red strong orange ground\n10%\r20%\n"), ("with codes", f"{COLOURS}\n10%\r20%\n")],
    )
    def test_all_of_it_can_be_downloaded(self, signed_in: Page, server: Server, link: str, text: str) -> None:
        task_id = done(server, COLOURS, "10%\r20%")
        Output.open(signed_in, server, task_id)
        with signed_in.expect_download() as found:
            signed_in.get_by_role("link", name=link, exact=True).click()
        assert Path(found.value.path()).read_bytes().decode() == text
        assert found.value.suggested_filename.startswith(task_id)
