"""Each page, as axe-core judges it (WCAG 2.2 A and AA, and its own best practices), and the ways around with keys."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import NewPage, sign_in
from tests.browser.pages import finished, row, rows, running
from tests.browser.test_run_page import place, trigger
from tests.browser.viewer import Output
from tests.server import Server

# Only the file is wanted: the package around it would bring nothing more.
AXE = Path(str(distribution("axe-playwright-python").locate_file("axe_playwright_python/axe.min.js")))
ACCEPTED = ("minor", "moderate")
LOOKS: list[dict[str, Any]] = [
    {"color_scheme": "light"},
    {"color_scheme": "dark"},
    {"color_scheme": "light", "viewport": {"width": 360, "height": 740}, "has_touch": True},
]


def check(page: Page) -> None:
    """The page has nothing that keeps somebody out."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("async () => (await axe.run()).violations")
    serious = [
        (one["id"], one["help"], [node["html"] for node in one["nodes"]])
        for one in found
        if one["impact"] not in ACCEPTED
    ]
    assert serious == []


def fits(page: Page) -> bool:
    """Whether nothing stands beyond the screen's side."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


@pytest.fixture(params=LOOKS, ids=["light", "dark", "phone"])
def look(request: pytest.FixtureRequest, new_page: NewPage) -> Page:
    """A page in one of the ways in which people look at it; axe may do what the policy forbids."""
    return new_page(bypass_csp=True, **request.param)


def test_every_page(look: Page, server: Server) -> None:
    look.goto(server.url)
    look.get_by_label("API key").fill("wrong")
    look.get_by_role("button", name="Sign in").click()
    expect(look.get_by_role("alert")).not_to_be_empty()
    check(look)
    sign_in(look, server)
    expect(look.get_by_role("heading", name="No tasks yet")).to_be_visible()
    check(look)
    assert fits(look)

    for state, code in (("done", 0), ("broken", 1)):
        finished(server, state, code=code, error="x" * 300 if code else "", result={"type": "t", "data": [1]})
    task_id = running(server, "n" * 200, "\x1b[31mred\x1b[0m", "x" * 2000, labels={"k" * 200: "v" * 200, "a": "b"})
    expect(rows(look)).to_have_count(3)
    expect(row(look, "broken")).to_contain_text("failed")
    check(look)
    assert fits(look)
    look.keyboard.press("?")
    check(look)
    look.keyboard.press("Escape")

    Output.open(look, server, task_id)
    check(look)
    assert fits(look)
    look.get_by_role("button", name="Cancel task").click()
    check(look)
    look.keyboard.press("Escape")

    run = trigger(server, "extract", "load", conf={"a": 1})
    running(server, "other")
    place(server, run, "extract")
    place(server, run, "load")
    look.goto(f"{server.url}/runs/{run}")
    expect(rows(look)).to_have_count(2)
    check(look)
    assert fits(look)
    look.goto(f"{server.url}/tasks/none")
    expect(look.get_by_role("heading", name="No such task")).to_be_visible()
    check(look)


def test_a_chosen_theme_stays(signed_in: Page) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = signed_in.evaluate(ground)
    button = signed_in.get_by_role("button", name="Theme")
    button.click()
    button.click()
    expect(button).to_have_text("Theme: dark")
    assert signed_in.evaluate(ground) != light
    signed_in.reload()
    expect(button).to_have_text("Theme: dark")
    assert signed_in.evaluate(ground) != light


def test_the_focus_begins_at_the_content_and_comes_by_everything(signed_in: Page, server: Server) -> None:
    server.new_task(name="build")
    expect(rows(signed_in)).to_have_count(1)
    signed_in.reload()
    expect(rows(signed_in)).to_have_count(1)
    focused = "document.activeElement.textContent || document.activeElement.name"
    order = []
    for _ in range(10):
        signed_in.keyboard.press("Tab")
        order.append(signed_in.evaluate(focused))
    assert order[:2] == ["Skip to content", "taskserver"]
    assert order[2:5] == ["Theme: auto", "Keys", "Sign out"]
    assert order[5] == "text"
    assert order[-1] == "build"
    signed_in.get_by_role("button", name="Skip to content").focus()
    signed_in.keyboard.press("Enter")
    signed_in.keyboard.press("Tab")
    assert signed_in.evaluate(focused) == "text"
