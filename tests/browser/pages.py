"""The words of the browser tests: what a person sees on the dashboard's pages, and does there."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Locator, Page, expect

from tests.server import Server


def rows(page: Page) -> Locator:
    """The rows of the list, or of a run."""
    return page.locator("table.tasks tbody tr")


def row(page: Page, name: str) -> Locator:
    """The row of the task with this name."""
    return rows(page).filter(has=page.get_by_role("link", name=name, exact=True))


def expect_names(page: Page, *names: str) -> None:
    """Wait until the list shows these tasks and no others, in this order."""
    expect(page.locator("table.tasks tbody th > a:first-child")).to_have_text(names)


def expect_icon(page: Page, state: str) -> None:
    """Wait until the tab's icon tells this state."""
    expect(page.locator("#icon")).to_have_attribute("href", f"{base_of(page)}dashboard/icons/{state}.svg")


def base_of(page: Page) -> str:
    """The server's address as the page knows it."""
    base: str = page.evaluate("document.getElementById('home').href")
    return base


def finished(server: Server, name: str, task_id: str | None = None, **word: Any) -> str:
    """A task that has ended; its id, which the server draws unless it is given."""
    task_id = server.new_task(name=name, **({} if task_id is None else {"id": task_id}))
    finish(server, task_id, **word)
    return task_id


def running(server: Server, name: str, *lines: str, **fields: Any) -> str:
    """A task that runs; its id."""
    task_id = server.new_task(name=name, **fields)
    append(server, task_id, *lines)
    return task_id


def append(server: Server, task_id: str, *lines: str) -> None:
    """Add lines to a task's output."""
    answer = server.post(f"/v1/tasks/{task_id}/output", {"lines": lines})
    assert answer.status == 200, answer


def finish(server: Server, task_id: str, **word: Any) -> None:
    """End a task."""
    answer = server.post(f"/v1/tasks/{task_id}/finish", word)
    assert answer.status == 200, answer
