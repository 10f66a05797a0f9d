"""A headless Chromium that watches the dashboard, for the figures about what its readers see."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.load import LoadError
from tests.bench.servers import Bench, Target

if TYPE_CHECKING:
    from playwright.async_api import Page

SCREEN = (1280, 900)
LIMIT = 60_000  # milliseconds for anything that a page does
NO_BROWSER = "it needs a browser (--browser)"

# Functions that the figures' scripts use, in every page from its beginning on. A screen is there when the frame in
# which its last row came is drawn, so `performance.now()` is read in the next one.
PROBES = """
(() => {
  const frame = () => document.querySelector(".frame");
  const nextFrame = () => new Promise(requestAnimationFrame);
  const until = async (look) => { while (!look()) await nextFrame(); await nextFrame(); };
  const complete = () => frame()?.querySelector(".row") && !frame().querySelector(".row.coming");
  const has = (n) => complete() && frame().querySelector(`.row[data-n="${n}"]`);
  const press = (key) => {
    frame().focus();
    frame().dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  };
  window.probes = { frame, nextFrame, until, complete, has, press };
})();
"""


def browser_version(program: Path) -> str:
    """The version of a Chromium. Raises LoadError if it cannot be run."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise LoadError(f"cannot run {program}: {error}") from None
    return done.stdout.strip()


@contextlib.asynccontextmanager
async def signed_in(bench: Bench, target: Target) -> AsyncIterator[Page]:
    """A page of a new browser that is signed in, with PROBES in each document."""
    # Only here, so that the other figures need no playwright.
    from playwright.async_api import async_playwright

    from tests.browser.browsers import launch_arguments

    assert bench.browser is not None
    width, height = SCREEN
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=bench.browser, args=launch_arguments())
        try:
            context = await browser.new_context(viewport={"width": width, "height": height})
            context.set_default_timeout(LIMIT)
            page = await context.new_page()
            await page.add_init_script(PROBES)
            await page.goto(f"http://127.0.0.1:{target.port}/")
            await page.get_by_label("API key").fill(target.key)
            await page.get_by_role("button", name="Sign in").click()
            await page.get_by_role("button", name="Sign out").wait_for()
            yield page
        finally:
            await browser.close()
