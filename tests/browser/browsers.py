"""Finding and starting a browser for the tests: Chromium as the system installs it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
VARIABLE = "TASKSERVER_CHROMIUM"
"""The environment variable that names another one."""


def find_chromium() -> str | None:
    """The path of the browser, if there is one."""
    found = (shutil.which(name) for name in (os.environ.get(VARIABLE, ""), *NAMES) if name)
    return next((path for path in found if path), None)


def launch_arguments() -> list[str]:
    """The flags that a browser needs where tests run."""
    arguments = ["--disable-dev-shm-usage"]  # containers have little shared memory
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # Chromium's own cannot be set up by root
    return arguments


@contextmanager
def chromium(path: str) -> Iterator[Browser]:
    """A headless browser. While it is open no other event loop can run in this thread."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=launch_arguments())
        try:
            yield browser
        finally:
            browser.close()
