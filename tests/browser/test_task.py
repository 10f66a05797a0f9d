"""A task's page, around its output."""

from __future__ import annotations

import json

from playwright.sync_api import Page, expect

from tests.browser.conftest import sign_in
from tests.browser.pages import append, base_of, expect_icon, finish, finished, running
from tests.browser.viewer import Output
from tests.server import Server

HEADER = ".task-header"


def test_the_header_tells_how_the_task_stands(signed_in: Page, server: Server) -> None:
    task_id = server.new_task(name="build", labels={"branch": "main"})
    output = Output.open(signed_in, server, task_id)
    header = signed_in.locator(HEADER)
    expect(header).to_contain_text("queued")
    expect(header).to_contain_text(task_id)
    expect_icon(signed_in, "queued")
    append(server, task_id, "one", "two")
    expect(header).to_contain_text("running")
    expect(header).to_contain_text("2 lines")
    expect(output.text(2)).to_have_text("two")
    expect(signed_in).to_have_title("running · build · taskserver")
    expect_icon(signed_in, "running")
    finish(server, task_id, code=3, error="it broke", result={"type": "json", "data": {"rows": [1, 2]}}, output=["end"])
    expect(header).to_contain_text("failed")
    expect(header).to_contain_text("code 3")
    expect(header).to_contain_text("it broke")
    expect(header).to_contain_text("3 lines")
    expect(signed_in).to_have_title("failed · build · taskserver")
    expect_icon(signed_in, "failed")
    header.get_by_text("Result").click()
    expect(header.locator(".result")).to_be_visible()
    assert json.loads(header.locator(".result").text_content() or "") == {"rows": [1, 2]}
    header.get_by_role("link", name="branch=main").click()
    expect(signed_in.get_by_label("Label", exact=True)).to_have_value("branch=main")
    signed_in.go_back()
    expect(signed_in.get_by_role("heading", name="build")).to_be_visible()


def test_what_has_the_focus_keeps_it_when_the_task_changes(signed_in: Page, server: Server) -> None:
    task_id = server.new_task(name="build", labels={"branch": "main"})
    Output.open(signed_in, server, task_id)
    header = signed_in.locator(HEADER)
    cancel = header.get_by_role("button", name="Cancel task")
    cancel.focus()
    with signed_in.expect_response(lambda response: "?first=" in response.url):
        append(server, task_id, "a")
    expect(header).to_contain_text("running")
    expect(cancel).to_be_focused()
    header.get_by_role("link", name="branch=main").focus()
    finish(server, task_id)
    expect(header).to_contain_text("success")
    expect(header.get_by_role("link", name="branch=main")).to_be_focused()


def test_a_task_is_cancelled_after_a_question(signed_in: Page, server: Server) -> None:
    task_id = running(server, "build", "a")
    Output.open(signed_in, server, task_id)
    cancel = signed_in.locator(HEADER).get_by_role("button", name="Cancel task")
    question = signed_in.get_by_role("dialog")
    cancel.click()
    expect(question).to_contain_text("build")
    question.get_by_role("button", name="No").click()
    expect(question).to_have_count(0)
    assert server.get(f"/v1/tasks/{task_id}").json["cancel_requested"] is False
    cancel.click()
    question.get_by_role("button", name="Cancel task").click()
    expect(signed_in.locator(HEADER)).to_contain_text("asked to stop")
    expect(cancel).to_be_disabled()
    assert server.get(f"/v1/tasks/{task_id}").json["cancel_requested"] is True
    append(server, task_id, "stopping")  # what is told of the output does not undo what is known
    expect(signed_in.locator(HEADER)).to_contain_text("2 lines")
    expect(signed_in.locator(HEADER)).to_contain_text("asked to stop")
    finish(server, task_id, code=130)
    expect(signed_in.locator(HEADER)).to_contain_text("cancelled")
    expect(cancel).to_have_count(0)
    expect_icon(signed_in, "cancelled")


def test_who_may_only_read_is_offered_no_cancelling(page: Page, server: Server) -> None:
    task_id = server.post("/v1/tasks", {"name": "build"}, key=server.new_key("writer", "write", owner="ann")).json["id"]
    sign_in(page, server, server.new_key("reader", "read", owner="ann"))
    Output.open(page, server, task_id)
    expect(page.locator(HEADER)).to_contain_text("queued")
    expect(page.get_by_role("button", name="Cancel task")).to_have_count(0)


def test_a_task_that_does_not_exist_or_is_anothers(page: Page, server: Server) -> None:
    others = server.new_task(name="the admin's")
    sign_in(page, server, server.new_key("ann", "read"))
    for task_id in (others, "none"):
        page.goto(f"{server.url}/tasks/{task_id}")
        expect(page.get_by_role("heading", name="No such task")).to_be_visible()
    page.get_by_role("link", name="All tasks").click()
    expect(page.get_by_role("heading", name="No tasks yet")).to_be_visible()


def test_a_task_that_is_deleted_while_it_is_watched(signed_in: Page, server: Server) -> None:
    task_id = running(server, "build", "a")
    Output.open(signed_in, server, task_id)
    finish(server, task_id)
    expect(signed_in.locator(HEADER)).to_contain_text("success")
    server.call("DELETE", f"/v1/tasks/{task_id}")
    signed_in.reload()
    expect(signed_in.get_by_role("heading", name="No such task")).to_be_visible()


def test_hostile_results_and_errors_stay_text(signed_in: Page, server: Server) -> None:
    evil = "<img src=x onerror=\"document.title='taken over'\"><script>document.title='taken over'</script>"
    task_id = finished(server, evil, code=1, error=evil, result={"type": evil, "data": {evil: evil}})
    Output.open(signed_in, server, task_id)
    header = signed_in.locator(HEADER)
    header.get_by_text("Result", exact=True).click()
    expect(header.locator(".result")).to_contain_text("onerror=")
    expect(signed_in.locator("main script, main img:not(.state img)")).to_have_count(0)
    expect(signed_in).to_have_title(f"failed · {evil} · taskserver")


def test_a_title_cannot_be_reordered(signed_in: Page, server: Server) -> None:
    task_id = finished(server, "\u202esse\u2066c\nx")
    Output.open(signed_in, server, task_id)
    expect(signed_in).to_have_title("success · \ufffdsse\ufffdc\ufffdx · taskserver")


def test_signing_in_leads_to_where_one_wanted_to_go(page: Page, server: Server) -> None:
    task_id = running(server, "build", *map(str, range(300)))
    sign_in(page, server, url=f"{server.url}/tasks/{task_id}#L20")
    Output(page).expect_shown(20)
    assert page.url == f"{base_of(page)}tasks/{task_id}#L20"
