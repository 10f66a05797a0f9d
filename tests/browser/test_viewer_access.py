"""Every colour and style that output may have, as axe-core judges them, in each way in which people look at it."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import NewPage, sign_in
from tests.browser.test_accessibility import LOOKS, check, fits
from tests.browser.viewer import Output, done
from tests.server import Server

COLOURS = [*range(30, 38), *range(90, 98), *range(40, 48), *range(100, 108)]
EVERY = " ".join(f"\x1b[{code}mcolour{code}\x1b[0m" for code in COLOURS)
INVERSE = " ".join(f"\x1b[7;{code}minverse{code}\x1b[0m" for code in COLOURS)
LINES = [EVERY, INVERSE, "\x1b[2mdim \x1b[31mand red\x1b[0m", "nul \0 bidi \u202e", "x" * 6000, *["line"] * 500]


@pytest.mark.parametrize("look", LOOKS, ids=["light", "dark", "phone"])
def test_nothing_keeps_anybody_from_reading(new_page: NewPage, server: Server, look: dict[str, Any]) -> None:
    page = new_page(bypass_csp=True, **look)  # axe is a script that the page would not take
    task_id = done(server, *LINES)
    sign_in(page, server)
    output = Output.open(page, server, task_id, "#L8-L10")
    output.press("Home")
    output.expect_shown(1)
    output.search("line")
    expect(output.count).to_have_text("1 of 500 lines")
    output.expect_shown(1)
    check(page)
    page.get_by_role("button", name="Wrap long lines").click()
    output.press("Home")
    output.expect_shown(1)
    check(page)
    assert fits(page)
