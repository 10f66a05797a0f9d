"""The viewer for those who do not use a mouse, or do not see: what axe-core finds, in both themes."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import NewPage, sign_in
from tests.browser.viewer import Output, done
from tests.server import Server

COLOURS = [*range(30, 38), *range(90, 98), *range(40, 48), *range(100, 108)]
EVERY = " ".join(f"\x1b[{code}mcolour{code}\x1b[0m" for code in COLOURS)
INVERSE = " ".join(f"\x1b[7;{code}minverse{code}\x1b[0m" for code in COLOURS)
LINES = [EVERY, INVERSE, "\x1b[2mdim \x1b[31mand red\x1b[0m", "nul \0 bidi \u202e", "x" * 6000, *["line"] * 500]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_finding(new_page: NewPage, server: Server, scheme: str) -> None:
    page = new_page(color_scheme=scheme, bypass_csp=True)  # axe is a script that the page would not take
    task_id = done(server, *LINES)
    sign_in(page, server)
    output = Output.open(page, server, task_id, "#L8-L10")
    output.press("Home")
    output.expect_shown(1)
    output.search("line")
    expect(output.count).to_have_text("1 of 500 lines")
    output.expect_shown(1)
    found = Axe().run(page).response["violations"]
    assert [
        (rule["id"], node["html"], [check["message"] for check in node["any"]])
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ] == []
