"""Following a running task: what comes, what is read meanwhile, and servers that go away."""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.viewer import Output, finish, store
from tests.e2e.commands import Commands
from tests.server import Server

# Says what it did when it is told to go on, so that the test and the command take turns.
SCRIPT = r"""
import sys
print("\x1b[32mgreen\x1b[0m start", flush=True)
sys.stdin.readline()
print("\r".join(f"{n}%" for n in range(0, 101, 10)), flush=True)
sys.stdin.readline()  # what stands in two pipes at once has no order
print("a problem", file=sys.stderr, flush=True)
sys.stdin.readline()
sys.exit(3)
"""


def lines(first: int, last: int) -> list[str]:
    return [f"line {number}" for number in range(first, last + 1)]


def test_a_command_that_runs(signed_in: Page, server: Server, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with Commands(server, tmp_path).start("run", "--", sys.executable, str(script)) as running:
        output = Output.open(signed_in, server, running.task_id)
        expect(output.text(1)).to_have_text("green start")
        expect(output.text(1).get_by_text("green")).to_have_class("fg-2")
        running.say("go on\n")
        expect(output.text(2)).to_have_text("100%")
        running.say("go on\n")
        expect(output.text(3)).to_have_text("a problem")
        expect(output.row(3).locator(".stream")).to_have_text("err")
        expect(signed_in).to_have_title("running · " + running_name(server, running.task_id) + " · taskserver")
        running.say("go on\n")
        assert running.end().code == 3
    expect(signed_in.locator(".state-failed")).to_be_visible()


def running_name(server: Server, task_id: str) -> str:
    return str(server.get(f"/v1/tasks/{task_id}").json["name"])


def test_the_end_stays_in_sight_until_the_reader_leaves_it(signed_in: Page, server: Server) -> None:
    task_id = server.new_task()
    store(server, task_id, lines(1, 1000))
    output = Output.open(signed_in, server, task_id)
    output.expect_shown(1000)
    store(server, task_id, lines(1001, 1100))
    output.expect_shown(1100)
    output.wheel(-1000)
    expect(output.row(1100)).to_have_count(0)
    before = output.shown()
    store(server, task_id, lines(1101, 1150))
    expect(output.new_lines).to_have_text("50 new lines ↓")
    assert output.shown() == before
    store(server, task_id, lines(1151, 1151))
    expect(output.new_lines).to_have_text("51 new lines ↓")
    output.new_lines.click()
    output.expect_shown(1151)
    expect(output.new_lines).to_be_hidden()
    store(server, task_id, lines(1152, 1200))
    output.expect_shown(1200)
    output.expect_complete()
    assert output.texts()[-1] == "line 1200"


def test_a_task_that_has_not_begun(signed_in: Page, server: Server) -> None:
    task_id = server.new_task()
    output = Output.open(signed_in, server, task_id)
    expect(signed_in.locator(".state-queued")).to_be_visible()
    store(server, task_id, ["begun"])
    expect(output.text(1)).to_have_text("begun")
    expect(signed_in.locator(".state-running")).to_be_visible()
    finish(server, task_id)
    expect(signed_in.locator(".state-success")).to_be_visible()


def test_an_end_that_cannot_be_asked_for_at_once(signed_in: Page, server: Server) -> None:
    task_id = server.new_task()
    store(server, task_id, ["begun"])
    with signed_in.expect_request(lambda request: "follow=true" in request.url):
        output = Output.open(signed_in, server, task_id)
    expect(output.text(1)).to_have_text("begun")
    signed_in.route("**/output?tail=0", lambda route: route.abort())
    with signed_in.expect_event("requestfailed", lambda request: request.url.endswith("?tail=0")):
        finish(server, task_id, output=["end"])
    expect(output.text(2)).to_have_text("end")
    signed_in.unroute("**/output?tail=0")
    expect(signed_in.locator(".state-success")).to_be_visible()


def test_a_state_that_changes_without_a_line(signed_in: Page, server: Server) -> None:
    signed_in.clock.install()
    task_id = server.new_task()
    Output.open(signed_in, server, task_id)
    expect(signed_in.locator(".state-queued")).to_be_visible()
    assert server.post(f"/v1/tasks/{task_id}/heartbeat").status == 200
    signed_in.clock.run_for(5000)
    expect(signed_in.locator(".state-running")).to_be_visible()


SEE = """(state) => {
  Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_a_page_out_of_sight_keeps_no_connection_and_catches_up(signed_in: Page, server: Server) -> None:
    signed_in.clock.install()
    task_id = server.new_task()
    store(server, task_id, lines(1, 1000))
    with signed_in.expect_request(lambda request: "follow=true" in request.url):
        output = Output.open(signed_in, server, task_id)
    output.expect_shown(1000)
    with signed_in.expect_event("requestfailed", lambda request: "follow=true" in request.url):
        signed_in.evaluate(SEE, "hidden")
        signed_in.clock.run_for(10_000)
    store(server, task_id, lines(1001, 3000))
    with signed_in.expect_response(lambda response: response.url.endswith("?tail=0")):
        signed_in.clock.run_for(5000)  # the title is kept up to date
    with signed_in.expect_request(lambda request: "follow=true" in request.url):
        signed_in.evaluate(SEE, "visible")
        signed_in.clock.resume()
    output.expect_shown(3000)
    store(server, task_id, lines(3001, 3100))
    output.expect_shown(3100)
    output.expect_complete()
    assert output.texts()[-1] == "line 3100"


def test_a_server_that_is_killed_and_comes_back(signed_in: Page, server: Server) -> None:
    task_id = server.new_task()
    store(server, task_id, lines(1, 5000))
    output = Output.open(signed_in, server, task_id)
    output.expect_shown(5000)
    output.watch_connection()
    for turn in range(1, 4):
        server.kill()
        output.until_connection(*["reconnecting", "caught-up"] * (turn - 1), "reconnecting")
        server.start()
        store(server, task_id, lines(5000 + turn * 100 - 99, 5000 + turn * 100))
        output.until_connection(*["reconnecting", "caught-up"] * turn)
        output.expect_shown(5000 + turn * 100)
    finish(server, task_id)
    expect(signed_in.locator(".state-success")).to_be_visible()
    read_all(output, 5300)


def read_all(output: Output, last: int) -> None:
    """Look at every line from the end to the beginning: each is there, once, and in order."""
    output.press("End")
    output.expect_shown(last)
    seen: dict[int, str] = {}
    while 1 not in seen:
        output.expect_complete()
        shown = output.lines()
        top = min(shown)
        assert list(shown) == list(range(top, top + len(shown)))
        seen.update(shown)
        if top > 1:
            output.press("PageUp")
            expect(output.frame.locator(".row .number").first).not_to_have_text(str(top))
    assert seen == {number: f"line {number}" for number in range(1, last + 1)}


def test_lines_that_are_fetched_wait_for_the_server_too(signed_in: Page, server: Server) -> None:
    task_id = server.new_task()
    store(server, task_id, lines(1, 5000))
    finish(server, task_id)
    output = Output.open(signed_in, server, task_id)
    output.expect_shown(1)
    output.expect_complete()
    output.watch_connection()
    server.kill()
    output.drag_to(0.5)
    output.until_connection("reconnecting")
    server.start()
    output.until_connection("reconnecting", "caught-up")
    output.expect_shown(2500)
    output.expect_complete()


def test_a_task_that_is_deleted_is_not_asked_for_again(signed_in: Page, server: Server) -> None:
    task_id = server.new_task()
    store(server, task_id, lines(1, 5000))
    finish(server, task_id)
    output = Output.open(signed_in, server, task_id)
    output.expect_shown(1)
    output.expect_complete()
    output.page.locator(".output").evaluate(
        "(element) => element.addEventListener('refused', (event) => { window.refused = event.detail; })"
    )
    assert server.call("DELETE", f"/v1/tasks/{task_id}").status == 204
    output.drag_to(0.5)
    signed_in.wait_for_function("() => window.refused === 404")
