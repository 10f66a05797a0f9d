"""The words of the viewer's tests: a task's page, and what its output shows."""

from __future__ import annotations

import contextlib
import http.client
import re
from collections.abc import Iterable, Iterator
from typing import Any

from playwright.sync_api import Locator, Page, expect

from tests.server import EVENT_LIMIT, Server, until

BODY_LINES = 50_000  # lines of a request when much is stored: less than its 8 MiB

# "live" is left out: who begins to watch when lines are shown may be just before or just after it.
CONNECTIONS = """(element) => {
  window.connections = [];
  element.addEventListener("connection", ({ detail }) => detail === "live" || window.connections.push(detail));
}"""


# Who scrolls is told in the next frame, and draws in that one or in the one after it.
DRAWN = "() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(() => drawn())))"


class Output:
    """The output on a task's page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.frame = page.get_by_role("log", name="Lines of output")
        self.rows = self.frame.locator(".row:not(.unfinished)")
        self.search_field = page.get_by_role("searchbox", name="Search the output")
        self.new_lines = page.locator(".new-lines")

    @classmethod
    def open(cls, page: Page, server: Server, task_id: str, hash_: str = "") -> Output:
        """Go to a task's page, in a browser that is signed in, and wait until lines are shown."""
        page.goto(f"{server.url}/tasks/{task_id}{hash_}")
        output = cls(page)
        expect(output.frame).to_be_visible()
        return output

    def row(self, number: int) -> Locator:
        """The row of a line, counted from 1 as people do."""
        return self.frame.locator(f'.row[data-n="{number - 1}"]:not(.unfinished)')

    def unfinished(self, number: int) -> Locator:
        """The row of a line that has no end yet and stands where this number would."""
        return self.frame.locator(f'.row.unfinished[data-n="{number - 1}"]')

    def text(self, number: int) -> Locator:
        """The text of a line that is on the screen."""
        return self.row(number).locator(".text")

    def shown(self) -> list[int]:
        """The numbers of the lines on the screen, in order."""
        numbers: list[str] = self.frame.locator(".row:not(.unfinished) .number").all_inner_texts()
        return [int(number) for number in numbers]

    def texts(self) -> list[str]:
        """What stands in the rows on the screen."""
        return self.frame.locator(".text").all_inner_texts()

    def lines(self) -> dict[int, str]:
        """The lines on the screen, all seen at one moment."""
        found: list[tuple[str, str]] = self.rows.evaluate_all(
            "(rows) => rows.map((row) => [...row.querySelectorAll('.number, .text')].map((part) => part.innerText))"
        )
        return {int(number): text for number, text in found}

    def expect_shown(self, number: int) -> None:
        """Wait until a line is on the screen and has been fetched."""
        expect(self.row(number)).to_be_in_viewport()
        expect(self.row(number)).not_to_have_class(re.compile("coming"))

    def expect_complete(self) -> None:
        """Wait until every line on the screen has been fetched."""
        expect(self.frame.locator(".row.coming")).to_have_count(0)

    def press(self, key: str) -> None:
        """A key while the output has the focus; returns when what it did is drawn."""
        self.frame.focus()
        self.page.keyboard.press(key)
        self.page.evaluate(DRAWN)

    def wheel(self, pixels: float) -> None:
        """Turn the mouse's wheel over the output."""
        self.frame.hover()
        self.page.mouse.wheel(0, pixels)

    def drag_to(self, share: float) -> None:
        """Move the scroll bar, as if its handle were dragged to this share of its way, and wait until that is drawn."""
        self.frame.evaluate(
            "(frame, share) => { frame.scrollTop = share * (frame.scrollHeight - frame.clientHeight);"
            f" return ({DRAWN})(); }}",
            share,
        )

    def search(self, text: str) -> None:
        """Look for a text: to type it is enough. Enter would step on if the first match had been found by then."""
        self.search_field.fill(text)

    @property
    def count(self) -> Locator:
        """What the search says it found."""
        return self.page.locator(".output-bar .count")

    def watch_connection(self) -> None:
        """Begin to note when the connection is lost, and when what was missed has come."""
        self.page.locator(".output").evaluate(CONNECTIONS)

    def until_connection(self, *states: str) -> None:
        """Wait until these events have come, and no others."""
        until(lambda: self.connection_events() == list(states), f"{states}, not {self.connection_events()}")

    def connection_events(self) -> list[str]:
        """What has been noted since ``watch_connection``."""
        found: list[str] = self.page.evaluate("window.connections")
        return found


def store(server: Server, task_id: str, lines: Iterable[str]) -> None:
    """Append many lines."""
    for body in _bodies(lines):
        answer = server.post(f"/v1/tasks/{task_id}/output", body)
        assert answer.status == 200, answer


def _bodies(lines: Iterable[str]) -> Iterator[str]:
    body: list[str] = []
    for line in lines:
        body.append(line)
        if len(body) == BODY_LINES:
            yield "\n".join(body)
            body = []
    if body:
        yield "\n".join(body)


def post_records(server: Server, task_id: str, records: bytes) -> None:
    """Append lines as NDJSON, with streams and times."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=EVENT_LIMIT)) as connection:
        headers = {**server.headers, "Content-Type": "application/x-ndjson"}
        connection.request("POST", f"/v1/tasks/{task_id}/output", records, headers)
        assert connection.getresponse().status == 200


def done(server: Server, *lines: str, **word: Any) -> str:
    """A finished task with these lines; its id."""
    task_id = server.new_task(name="work")
    store(server, task_id, lines)
    finish(server, task_id, **word)
    return task_id


def finish(server: Server, task_id: str, **word: Any) -> None:
    """End a task."""
    answer = server.post(f"/v1/tasks/{task_id}/finish", word)
    assert answer.status == 200, answer
