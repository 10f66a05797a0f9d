"""The list of tasks: live, filtered, a page at a time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import sign_in
from tests.browser.pages import append, base_of, expect_icon, expect_names, finish, finished, row, rows, running
from tests.server import Server

HOSTILE = [
    "<script>document.title = 'taken over'</script>",
    "<img src=x onerror=\"document.title = 'taken over'\">",
    '"><svg onload=alert(1)>',
    "javascript:alert(1)",
    "{{constructor.constructor('alert(1)')()}}",
]


def test_new_tasks_and_states_appear_by_themselves(signed_in: Page, server: Server) -> None:
    expect(signed_in.get_by_role("heading", name="No tasks yet")).to_be_visible()
    task_id = server.new_task(name="build")
    expect(row(signed_in, "build")).to_contain_text("queued")
    append(server, task_id, "a")
    expect(row(signed_in, "build")).to_contain_text("running")
    expect(signed_in).to_have_title("1 running · taskserver")
    expect_icon(signed_in, "running")
    server.post(f"/v1/tasks/{task_id}/cancel")
    expect(row(signed_in, "build")).to_contain_text("asked to stop")
    finish(server, task_id, code=1, error="it broke")
    expect(row(signed_in, "build")).to_contain_text("cancelled")
    expect(row(signed_in, "build")).to_contain_text("it broke")
    expect_icon(signed_in, "idle")
    server.call("DELETE", f"/v1/tasks/{task_id}")
    expect(signed_in.get_by_role("heading", name="No tasks yet")).to_be_visible()


def test_the_newest_stands_first_wherever_it_comes_from(signed_in: Page, server: Server) -> None:
    for name in ("a", "b"):
        server.new_task(name=name)
    expect_names(signed_in, "b", "a")
    signed_in.reload()
    expect_names(signed_in, "b", "a")
    server.new_task(name="c")
    expect_names(signed_in, "c", "b", "a")


def test_a_duration_counts_while_the_task_runs(signed_in: Page, server: Server) -> None:
    running(server, "build", "a")
    duration = row(signed_in, "build").locator(".duration")
    first = duration.inner_text()
    expect(duration).not_to_have_text(first)
    expect(row(signed_in, "build").locator("time")).to_have_attribute("title", re.compile(r"\d:\d\d:\d\d"))


def test_others_tasks_are_not_shown(page: Page, server: Server) -> None:
    ann = server.new_key("ann", "read", "write")
    sign_in(page, server, ann)
    server.new_task(name="the admin's")
    server.post("/v1/tasks", {"name": "ann's"}, key=ann)
    expect_names(page, "ann's")
    page.reload()
    expect_names(page, "ann's")


def test_filters_hold_for_what_comes_later_too(signed_in: Page, server: Server) -> None:
    # Ids of our own: one that the server draws may hold the text that is looked for.
    server.new_task(id="build", name="build", labels={"branch": "main"})
    finished(server, "test", task_id="test")
    expect_names(signed_in, "test", "build")

    signed_in.get_by_label("State").select_option("queued")
    expect_names(signed_in, "build")
    late = server.new_task(id="late", name="late")
    finished(server, "later", task_id="later", code=1)
    expect_names(signed_in, "late", "build")
    append(server, late, "a")
    expect_names(signed_in, "build")
    signed_in.get_by_label("State").select_option("")
    expect_names(signed_in, "later", "late", "test", "build")

    signed_in.get_by_label("Text").fill("LAT")
    expect_names(signed_in, "later", "late")
    assert signed_in.url.endswith("/?text=LAT"), "it can be bookmarked"
    server.new_task(id="the-latest", name="the latest")
    server.new_task(id="another", name="another")
    expect_names(signed_in, "the latest", "later", "late")
    signed_in.reload()
    expect(signed_in.get_by_label("Text")).to_have_value("LAT")
    expect_names(signed_in, "the latest", "later", "late")
    signed_in.get_by_label("Text").fill("")

    signed_in.get_by_label("Name").fill("build")
    expect_names(signed_in, "build")
    signed_in.get_by_label("Name").fill("buil")
    expect(signed_in.get_by_role("heading", name="No task matches")).to_be_visible()
    server.new_task(id="buil", name="buil")
    expect_names(signed_in, "buil")
    signed_in.get_by_label("Name").fill("none")
    signed_in.get_by_role("button", name="Show all tasks").click()
    expect(row(signed_in, "another")).to_be_visible()
    expect(signed_in.get_by_label("Name")).to_have_value("")

    signed_in.get_by_role("link", name="branch=main").click()
    expect_names(signed_in, "build")
    signed_in.get_by_label("Label", exact=True).fill("branch=")
    expect(signed_in.get_by_role("heading", name="No task matches")).to_be_visible()


def test_older_tasks_come_a_page_at_a_time(signed_in: Page, server: Server) -> None:
    for number in range(120):
        server.new_task(name=f"task {number}")
    signed_in.reload()
    expect(rows(signed_in)).to_have_count(50)
    signed_in.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(rows(signed_in)).to_have_count(100)
    signed_in.evaluate("scrollTo(0, 0)")
    server.new_task(name="newest")
    expect(rows(signed_in)).to_have_count(101)
    # Not `click`, which brings the button in sight, whereupon the rest comes by itself and the button goes.
    signed_in.get_by_role("button", name="Older tasks").dispatch_event("click")
    expect(rows(signed_in)).to_have_count(121)
    expect(signed_in.get_by_role("button", name="Older tasks")).to_be_hidden()
    expect_names(signed_in, "newest", *(f"task {number}" for number in reversed(range(120))))


@pytest.mark.parametrize("which", ["command", "curl lines"])
def test_what_the_empty_list_says_works(signed_in: Page, server: Server, tmp_path: Path, which: str) -> None:
    shown = signed_in.locator(".copyable").filter(has=signed_in.get_by_role("button", name=f"Copy the {which}"))
    script = shown.locator("code").inner_text().replace("your key", server.key).replace("sleep 1", "true")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", "-e", "-c", script], env={**os.environ, "PATH": path}, cwd=tmp_path, check=True, timeout=60)
    expect(row(signed_in, "hello")).to_contain_text("success")
    (task,) = server.get("/v1/tasks").json["tasks"]
    assert server.get(f"/v1/tasks/{task['id']}").json["output"] == [f"line {number}" for number in range(1, 6)]


def test_hostile_names_and_labels_stay_text(signed_in: Page, server: Server) -> None:
    for number, text in enumerate(HOSTILE):
        server.new_task(name=text, labels={text: text, "href": "javascript:alert(1)"})
        expect(rows(signed_in)).to_have_count(number + 1)
    finished(server, "ends", code=1, error=HOSTILE[0], output=["x"])
    expect(rows(signed_in)).to_contain_text(["ends", *reversed(HOSTILE)])
    expect(signed_in.locator("main script, main img:not(.state img), main svg, main [onload]")).to_have_count(0)
    hrefs: list[str] = signed_in.locator("main a").evaluate_all("(links) => links.map((link) => link.href)")
    assert all(href.startswith(base_of(signed_in)) for href in hrefs)
    expect(signed_in).to_have_title("Tasks · taskserver")


def test_names_cannot_reorder_or_hide_what_stands_around_them(signed_in: Page, server: Server) -> None:
    server.new_task(name="invoice\u202efdp.exe", labels={"a\u2066b": "line\nbreak\x07"})
    expect(rows(signed_in)).to_contain_text(["invoice\ufffdfdp.exe"])
    expect(rows(signed_in)).to_contain_text(["a\ufffdb=line\ufffdbreak\ufffd"])
    server.new_task(name="שלום עולם")
    expect(signed_in.locator("tbody tr").first.locator("bdi").first).to_have_text("שלום עולם")


def test_it_can_be_used_without_a_mouse(signed_in: Page, server: Server) -> None:
    for name in ("a", "b"):
        running(server, name, "line")
    for name in ("a", "b"):
        expect(row(signed_in, name)).to_contain_text("running")
    expect_names(signed_in, "b", "a")
    signed_in.keyboard.press("j")
    expect(signed_in.get_by_role("link", name="b", exact=True)).to_be_focused()
    signed_in.keyboard.press("j")
    signed_in.keyboard.press("j")
    expect(signed_in.get_by_role("link", name="a", exact=True)).to_be_focused()
    signed_in.keyboard.press("k")
    signed_in.keyboard.press("/")
    expect(signed_in.get_by_label("Text")).to_be_focused()
    signed_in.keyboard.type("j?")  # typed, not obeyed
    expect(signed_in.get_by_label("Text")).to_have_value("j?")
    signed_in.get_by_label("Text").fill("")
    expect_names(signed_in, "b", "a")
    signed_in.get_by_role("link", name="a", exact=True).focus()
    signed_in.keyboard.press("Enter")
    expect(signed_in.get_by_role("heading", name="a", exact=True)).to_be_visible()
    signed_in.keyboard.press("u")
    expect(signed_in.get_by_role("heading", name="Tasks", exact=True)).to_be_visible()


def test_what_has_the_focus_keeps_it_when_its_task_changes(signed_in: Page, server: Server) -> None:
    build = server.new_task(name="build", labels={"branch": "main"})
    link = row(signed_in, "build").get_by_role("link", name="build", exact=True)
    link.focus()
    append(server, build, "a")
    expect(row(signed_in, "build")).to_contain_text("running")
    expect(link).to_be_focused()
    label = row(signed_in, "build").get_by_role("link", name="branch=main")
    label.focus()
    finish(server, build)
    expect(row(signed_in, "build")).to_contain_text("success")
    expect(label).to_be_focused()


def test_the_keys_are_listed_and_can_be_switched_off(signed_in: Page) -> None:
    signed_in.keyboard.press("?")
    dialog = signed_in.get_by_role("dialog", name="Keys")
    expect(dialog).to_contain_text("find a task")
    dialog.get_by_label("Single keys do things").uncheck()
    signed_in.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    signed_in.keyboard.press("/")
    expect(signed_in.get_by_label("Text")).not_to_be_focused()
    signed_in.reload()
    signed_in.keyboard.press("?")
    expect(dialog).to_have_count(0)
    signed_in.get_by_role("button", name="Keys").click()
    expect(dialog).to_be_visible()
