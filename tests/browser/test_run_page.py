"""A run's page: its tasks on a timeline, stats and results."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page, expect

from tests.browser.conftest import sign_in
from tests.browser.pages import append, expect_icon, finish, row, rows
from tests.server import Server


def trigger(server: Server, *tasks: str, **wish: Any) -> str:
    """A run of a dag with these tasks; its id."""
    server.call("PUT", "/v1/dags/nightly", {"tasks": [{"task_id": task} for task in tasks]})
    answer = server.post("/v1/dags/nightly/runs", wish)
    assert answer.status == 201, answer
    return str(answer.json["id"])


def place(server: Server, run: str, task: str, **more: Any) -> str:
    """A task of a run; its id."""
    answer = server.post(f"/v1/runs/{run}/tasks", {"task_id": task, **more})
    assert answer.status == 201, answer
    return str(answer.json["id"])


def test_a_run_is_watched_from_its_start_to_its_end(signed_in: Page, server: Server) -> None:
    run = trigger(server, "extract", "load", conf={"day": "today"})
    extract = place(server, run, "extract")
    signed_in.get_by_role("link", name="run", exact=True).click()
    expect(signed_in.get_by_role("heading", name="nightly")).to_be_visible()
    expect(row(signed_in, "extract")).to_contain_text("queued")
    expect_icon(signed_in, "queued")

    append(server, extract, "a")
    expect(row(signed_in, "extract")).to_contain_text("running")
    expect(signed_in.locator(".run-header .state").first).to_have_text("running")
    expect(row(signed_in, "extract").locator("svg rect.running")).to_have_count(1)
    load = place(server, run, "load", map_index=2)
    expect(row(signed_in, "load")).to_contain_text("[2]")
    finish(server, extract, result={"type": "json", "data": {"rows": 7}})
    expect(row(signed_in, "extract").locator("svg rect.success")).to_have_count(1)
    expect(row(signed_in, "extract").get_by_role("img", name="waited")).to_be_visible()
    expect(signed_in.get_by_role("list", name="Tasks by state")).to_contain_text("2 tasks")
    row(signed_in, "extract").get_by_text("Result").click()
    expect(row(signed_in, "extract").locator(".result")).to_contain_text('"rows": 7')

    finish(server, load, code=1, error="no disk")
    expect(row(signed_in, "load")).to_contain_text("no disk")
    place(server, run, "load", map_index=2, try_number=2)
    expect(rows(signed_in)).to_have_count(3)
    expect(signed_in.get_by_role("list", name="Tasks by state")).to_contain_text("2 tasks")
    server.post(f"/v1/runs/{run}/finish", {"state": "failed", "error": "load failed"})
    expect(signed_in.locator(".run-header")).to_contain_text("load failed")
    expect(signed_in).to_have_title("failed · nightly · taskserver")
    expect_icon(signed_in, "failed")
    expect(signed_in.get_by_role("button", name="Cancel run")).to_have_count(0)

    signed_in.get_by_text("Configuration").click()
    expect(signed_in.locator(".run-header .result")).to_contain_text('"day": "today"')
    signed_in.get_by_role("link", name="extract").click()
    expect(signed_in.get_by_role("link", name="run: extract")).to_be_visible()
    assert server.call("DELETE", f"/v1/runs/{run}").status == 204
    signed_in.go_back()
    expect(signed_in.get_by_role("heading", name="No such run")).to_be_visible()


def test_a_run_that_is_given_back_is_queued_again(signed_in: Page, server: Server) -> None:
    run = trigger(server)
    signed_in.goto(f"{server.url}/runs/{run}")
    header = signed_in.locator(".run-header")
    state = header.locator(".state").first
    expect(state).to_have_text("queued")
    for attempt in (1, 2):
        claim = server.post("/v1/runs/claim", {"dags": ["nightly"]}).json["claim"]
        expect(state).to_have_text("running")
        if attempt == 1:
            server.post(f"/v1/runs/{run}/release", {"claim": claim})
            expect(state).to_have_text("queued")
            expect_icon(signed_in, "queued")
    expect(header).to_contain_text("attempt 2")
    server.post(f"/v1/runs/{run}/finish", {"claim": claim, "state": "success"})
    expect(state).to_have_text("success")


def test_what_is_open_and_focused_stays_so_when_something_changes(signed_in: Page, server: Server) -> None:
    run = trigger(server, conf={"day": "today"})
    extract = place(server, run, "extract")
    signed_in.goto(f"{server.url}/runs/{run}")
    signed_in.get_by_text("Configuration").click()
    conf, summary = signed_in.locator(".run-header .result"), signed_in.locator(".run-header summary")
    expect(conf).to_be_visible()
    append(server, extract, "a")
    expect(signed_in.locator(".run-header .state").first).to_have_text("running")
    expect(row(signed_in, "extract")).to_contain_text("running")
    expect(conf).to_be_visible()
    expect(summary).to_be_focused()
    row(signed_in, "extract").get_by_role("link").focus()
    finish(server, extract)
    expect(row(signed_in, "extract")).to_contain_text("success")
    expect(row(signed_in, "extract").get_by_role("link")).to_be_focused()
    expect(conf).to_be_visible()


def test_a_run_is_cancelled_after_a_question(signed_in: Page, server: Server) -> None:
    run = trigger(server, "extract")
    task_id = place(server, run, "extract")
    append(server, task_id, "a")
    signed_in.goto(f"{server.url}/runs/{run}")
    signed_in.get_by_role("button", name="Cancel run").click()
    signed_in.get_by_role("dialog").get_by_role("button", name="Cancel run").click()
    expect(row(signed_in, "extract")).to_contain_text("asked to stop")
    assert server.get(f"/v1/tasks/{task_id}").json["cancel_requested"] is True


def test_a_run_that_is_deleted_while_it_is_watched(signed_in: Page, server: Server) -> None:
    run = trigger(server)
    signed_in.goto(f"{server.url}/runs/{run}")
    expect(signed_in.get_by_role("heading", name="nightly")).to_be_visible()
    server.call("DELETE", f"/v1/runs/{run}")
    expect(signed_in.get_by_role("heading", name="This run was deleted")).to_be_visible()


def test_others_runs_do_not_exist(page: Page, server: Server) -> None:
    run = trigger(server)
    sign_in(page, server, server.new_key("ann", "read"))
    for run_id in (run, "nonsense"):
        page.goto(f"{server.url}/runs/{run_id}")
        expect(page.get_by_role("heading", name="No such run")).to_be_visible()


def test_hostile_words_stay_text(signed_in: Page, server: Server) -> None:
    evil = "<img src=x onerror=\"document.title='taken over'\">"
    run = trigger(server, "extract", note=evil, tag=evil, conf={evil: evil})
    task_id = place(server, run, "extract")
    finish(server, task_id, code=1, error=evil)
    server.post(f"/v1/runs/{run}/finish", {"state": "failed", "error": evil})
    signed_in.goto(f"{server.url}/runs/{run}")
    expect(row(signed_in, "extract")).to_contain_text("onerror=")
    expect(signed_in.locator(".run-header")).to_contain_text("onerror=")
    expect(signed_in.locator("main img:not(.state img)")).to_have_count(0)
