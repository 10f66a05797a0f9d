"""Lost connections, restarts and revoked keys, as a reader sees them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import sign_in
from tests.browser.pages import append, expect_names, finish, row, rows, running
from tests.browser.viewer import Output
from tests.server import Server

PREFIX = "/tools/tasks/"
OVER = "Your session is over, or its key was revoked. Sign in again."

Through = Callable[[str], str]


@pytest.fixture
def through_proxy(server: Server) -> Iterator[str]:
    """The server's address behind a proxy, below a prefix."""
    command = [sys.executable, "-m", "tests.browser.proxy", PREFIX, server.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        try:
            assert proxy.stdout is not None
            yield f"http://127.0.0.1:{int(proxy.stdout.readline())}{PREFIX}"
        finally:
            proxy.kill()


def banner(page: Page, text: str) -> None:
    """Wait until the banner says this."""
    expect(page.locator("#banner")).to_have_text(text)


def note_banners(page: Page) -> None:
    """Begin to note what the banner says: some of it is shown for a few seconds only."""
    page.locator("#banner").evaluate(
        """(banner) => {
          window.banners = [];
          new MutationObserver(() => window.banners.push(banner.textContent)).observe(banner, { childList: true });
        }"""
    )


def until_noted(page: Page, text: str) -> None:
    """Wait until the banner has said this since ``note_banners``."""
    page.wait_for_function("(text) => window.banners.includes(text)", arg=text)


def test_the_list_goes_on_after_a_restart(signed_in: Page, server: Server) -> None:
    build = running(server, "build", "a")
    expect(row(signed_in, "build")).to_contain_text("running")
    server.kill()
    banner(signed_in, "Connection lost. Reconnecting…")
    server.start()
    finish(server, build)
    server.new_task(name="later")
    expect_names(signed_in, "later", "build")
    expect(row(signed_in, "build")).to_contain_text("success")
    banner(signed_in, "")


def test_what_was_deleted_meanwhile_is_gone(signed_in: Page, server: Server) -> None:
    build = running(server, "build", "a")
    server.new_task(name="stays")
    expect_names(signed_in, "stays", "build")
    server.stop()
    banner(signed_in, "Connection lost. Reconnecting…")
    server.start()
    finish(server, build)
    server.call("DELETE", f"/v1/tasks/{build}")
    expect_names(signed_in, "stays")


def test_output_goes_on_after_a_restart_with_nothing_missing_or_doubled(signed_in: Page, server: Server) -> None:
    task_id = running(server, "build", *(f"line {number}" for number in range(1, 6)))
    output = Output.open(signed_in, server, task_id)
    expect(output.text(5)).to_have_text("line 5")
    note_banners(signed_in)
    server.kill()
    banner(signed_in, "Connection lost. Reconnecting…")
    server.start()
    append(server, task_id, "line 6", "line 7")
    expect(output.text(7)).to_have_text("line 7")
    until_noted(signed_in, "Connected again; nothing is missing.")
    assert output.texts() == [f"line {number}" for number in range(1, 8)]
    finish(server, task_id)
    expect(signed_in.locator(".task-header")).to_contain_text("success")
    banner(signed_in, "")


def test_a_task_that_is_gone_after_a_restart(signed_in: Page, server: Server) -> None:
    task_id = running(server, "build", "a")
    output = Output.open(signed_in, server, task_id)
    expect(output.text(1)).to_have_text("a")
    signed_in.route("**/output?tail=0", lambda route: route.abort())
    server.kill()
    banner(signed_in, "Connection lost. Reconnecting…")
    server.start()
    finish(server, task_id)
    server.call("DELETE", f"/v1/tasks/{task_id}")
    signed_in.unroute("**/output?tail=0")
    expect(signed_in.get_by_role("heading", name="No such task")).to_be_visible()
    banner(signed_in, "")


HIDDEN = """for (const [name, value] of [["hidden", true], ["visibilityState", "hidden"]]) {
  Object.defineProperty(document, name, { value });
}"""


def test_a_list_that_is_opened_in_the_background_keeps_no_connection(signed_in: Page, server: Server) -> None:
    other = signed_in.context.new_page()
    other.add_init_script(HIDDEN)
    other.clock.install()
    with other.expect_request(lambda request: "/v1/changes" in request.url) as asked:
        other.goto(server.url)
    expect(other.get_by_role("heading", name="No tasks yet")).to_be_visible()
    with other.expect_event("requestfailed", lambda request: request == asked.value):
        other.clock.run_for(20_000)


def test_a_page_that_is_opened_while_the_server_is_down_waits_for_it(signed_in: Page, server: Server) -> None:
    running(server, "build", "a")
    expect(rows(signed_in)).to_have_count(1)
    signed_in.route("**/v1/session", lambda route: route.abort())
    signed_in.reload()
    expect(signed_in.locator("#banner")).to_contain_text("the server cannot be reached")
    signed_in.unroute("**/v1/session")
    expect_names(signed_in, "build")
    banner(signed_in, "")


@pytest.mark.parametrize("where", ["list", "task"])
def test_a_key_that_is_revoked_while_its_reader_watches(page: Page, server: Server, where: str) -> None:
    key = server.new_key("ann", "read", "write")
    task_id = server.post("/v1/tasks", {"name": "build"}, key=key).json["id"]
    append(server, task_id, "a secret")
    sign_in(page, server, key, f"{server.url}/tasks/{task_id}" if where == "task" else None)
    expect(page.get_by_text("a secret" if where == "task" else "build").first).to_be_visible()
    server.call("DELETE", "/v1/keys/ann")
    expect(page.get_by_text(OVER)).to_be_visible()
    expect(page.get_by_text("a secret")).to_have_count(0)
    expect(page.get_by_text("build")).to_have_count(0)
    other = server.new_key("ann2", "read", owner="ann")
    page.get_by_label("API key").fill(other)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("a secret" if where == "task" else "build").first).to_be_visible()


def test_all_of_it_works_behind_a_proxy_and_a_prefix(page: Page, server: Server, through_proxy: str) -> None:
    task_id = running(server, "build", "a")
    sign_in(page, server, url=through_proxy)
    (cookie,) = page.context.cookies()
    assert cookie["path"] == f"{PREFIX}v1"
    expect_names(page, "build")
    server.new_task(name="later")
    expect_names(page, "later", "build")
    page.get_by_role("link", name="build").click()
    output = Output(page)
    expect(output.text(1)).to_have_text("a")
    assert page.url == f"{through_proxy}tasks/{task_id}"
    append(server, task_id, "b")
    expect(output.text(2)).to_have_text("b")
    page.reload()
    expect(output.text(2)).to_have_text("b")
    page.get_by_role("button", name="Cancel task").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel task").click()
    expect(page.locator(".task-header")).to_contain_text("asked to stop")
    page.get_by_role("link", name="taskserver").click()
    expect_names(page, "later", "build")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()
    assert page.context.cookies() == []


def test_a_proxy_that_answers_in_the_servers_place_is_waited_for(
    page: Page, server: Server, through_proxy: str
) -> None:
    build = running(server, "build", "a")
    sign_in(page, server, url=through_proxy)
    expect(row(page, "build")).to_contain_text("running")
    server.stop()
    banner(page, "Connection lost. Reconnecting…")
    server.start()
    finish(server, build)
    expect(row(page, "build")).to_contain_text("success")
    banner(page, "")
