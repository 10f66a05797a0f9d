"""Fixtures of the tests that drive a real browser against a real server.

Without a browser they are skipped, and the summary says so; with CI=true that is a failure.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from tests.browser.browsers import VARIABLE, chromium, find_chromium
from tests.server import EVENT_LIMIT, Server

MISSING = f"NO BROWSER: install Chromium (apt-get install chromium) or set {VARIABLE}; the dashboard was not tested"

NewPage = Callable[..., Page]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium. Closed with the package: while it is open no test can have an event loop of its own."""
    path = find_chromium()
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    expect.set_options(timeout=EVENT_LIMIT * 1000)
    with chromium(path) as opened:
        yield opened


@pytest.fixture
def complaints() -> list[str]:
    """What pages complained of: scripts that failed, and what the security policy kept from happening."""
    return []


@pytest.fixture
def new_page(browser: Browser, complaints: list[str]) -> Iterator[NewPage]:
    """Opens pages, each in a browser profile of its own; ``new_page(viewport={...})`` and so on.

    The test fails if one of them complains.
    """
    contexts: list[BrowserContext] = []

    def note(message: ConsoleMessage) -> None:
        # An answer that is no success is reported too; what the page makes of it is what counts.
        if message.type == "error" and "Failed to load resource" not in message.text:
            complaints.append(message.text)

    def open_page(**options: object) -> Page:
        context = browser.new_context(**options)  # type: ignore[arg-type]
        context.set_default_timeout(EVENT_LIMIT * 1000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", note)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def page(new_page: NewPage) -> Page:
    """A page of a browser that has never been here."""
    return new_page()


@pytest.fixture
def signed_in(page: Page, server: Server) -> Page:
    """A page that shows the list, signed in as an admin."""
    sign_in(page, server)
    return page


def sign_in(page: Page, server: Server, key: str | None = None, url: str | None = None) -> None:
    """Sign in as a person would, as an admin unless ``key`` says otherwise; ``url`` is where, if not at the list."""
    page.goto(url or f"{server.url}/")
    page.get_by_label("API key").fill(key or server.key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
