"""The pictures of the dashboard in README, taken from a server with some tasks.

``python -m tests.browser.screenshots [FOLDER]``, ``docs/`` if none is named.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, ViewportSize, expect

from tests.browser.browsers import VARIABLE, chromium, find_chromium
from tests.browser.conftest import sign_in
from tests.browser.pages import append, finish, finished, rows, running
from tests.browser.viewer import Output, post_records
from tests.server import Server

DOCS = Path(__file__).parents[2] / "docs"
SIZE = ViewportSize(width=960, height=540)
STEP = 1.2  # seconds between two moments of the run, so that its bars have a length

GREEN, RED, YELLOW, BOLD, DIM, OFF = (f"\x1b[{code}m" for code in (32, 31, 33, 1, 2, 0))
MODULES = ("audience", "encoding", "feed", "keys", "live", "model", "runs", "store", "streams", "tasks", "waiting")


def build_lines() -> list[str]:
    """What a build prints, with colours."""
    lines = [f"{BOLD}==> Building taskserver{OFF}", f"{DIM}python 3.11, linux-x86_64{OFF}"]
    lines += [f"  compiling {module}.py {DIM}…{OFF} {GREEN}ok{OFF}" for module in MODULES]
    lines.append(f"{YELLOW}warning:{OFF} taskserver/feed.py:42: unused variable 'reason'")
    for number, module in enumerate(MODULES, 1):
        dots = "." * (10 + number)
        share = f"{DIM}[{100 * number // len(MODULES):3}%]{OFF}"
        lines.append(f"tests/unit/test_{module}.py {GREEN}{dots}{OFF} {share}")
    lines.append(f"{RED}FAILED{OFF} tests/unit/test_feed.py::test_many_changes_are_one_wakeup - {BOLD}retrying{OFF}")
    return lines


def draw_bar(server: Server, task_id: str) -> None:
    """The bar that the build draws now: no line yet."""
    post_records(
        server, task_id, json.dumps({"partial": f"uploading {GREEN}{'━' * 32}{OFF}{DIM}{'━' * 8}{OFF}  80%"}).encode()
    )


def fill(server: Server) -> tuple[str, str]:
    """Some tasks; the id of the one that is shown, and of the run."""
    server.call("PUT", "/v1/dags/nightly", {"tasks": [{"task_id": name} for name in ("extract", "load", "report")]})
    run = str(server.post("/v1/dags/nightly/runs", {"tag": "2026-11-21"}).json["id"])
    placed: dict[str, str] = {}

    def step(*begun: str, ended: tuple[str, dict[str, Any]] | None = None) -> None:
        for name in begun:
            append(server, placed[name], f"{name}: begun")
        if ended is not None:
            finish(server, placed[ended[0]], **ended[1])
        time.sleep(STEP)  # what the picture shows is the time that passed

    for name, index in (("extract", 0), ("extract", 1), ("load", -1), ("report", -1)):
        wish = {"task_id": name, "map_index": index}
        placed[f"{name} {index}"] = str(server.post(f"/v1/runs/{run}/tasks", wish).json["id"])
    step("extract 0", "extract 1")
    step(ended=("extract 0", {"result": {"type": "json", "data": {"rows": 4211}}}))
    step("load -1", ended=("extract 1", {"result": {"type": "json", "data": {"rows": 3987}}}))
    step()
    finished(server, "lint", output=["All checks passed!"])
    finished(server, "deploy to staging", code=1, error="connection refused by staging-3 (port 22)")
    server.new_task(name="train model, 20 epochs", labels={"gpu": "a100"})
    build = running(server, "build and test", *build_lines(), labels={"branch": "main", "host": "ci-7"})
    return build, run


def take(page: Page, server: Server, folder: Path) -> None:
    """All pictures."""
    build, run = fill(server)
    sign_in(page, server)
    expect(rows(page)).to_have_count(8)
    page.screenshot(path=folder / "dashboard-list.png")
    draw_bar(server, build)
    output = Output.open(page, server, build)
    expect(output.unfinished(len(build_lines()) + 1)).to_contain_text("80%")
    page.screenshot(path=folder / "dashboard-task.png")
    page.emulate_media(color_scheme="dark")
    page.goto(f"{server.url}/runs/{run}")
    expect(rows(page)).to_have_count(4)
    page.screenshot(path=folder / "dashboard-run.png", clip={"x": 0, "y": 0, "width": SIZE["width"], "height": 400})


def main(folder: Path) -> None:
    """Start a server and a browser, and take the pictures."""
    path = find_chromium()
    if path is None:
        sys.exit(f"there is no Chromium; install it, or set {VARIABLE}")
    with tempfile.TemporaryDirectory() as data, Server(Path(data)) as server, chromium(path) as browser:
        take(browser.new_page(viewport=SIZE), server, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS)
