"""Signing in and out, in a browser."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.browser.conftest import sign_in
from tests.server import Server


def test_a_key_signs_in_and_the_list_is_shown(page: Page, server: Server) -> None:
    server.new_task(name="build")
    sign_in(page, server)
    expect(page.get_by_role("link", name="build")).to_be_visible()
    assert server.key not in page.content()


def test_a_wrong_key_is_told_and_can_be_corrected(page: Page, server: Server) -> None:
    page.goto(server.url)
    page.get_by_label("API key").fill("tsk_this-is-not-a-key-of-this-server-at-all")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_have_text("This key is unknown, revoked or expired.")
    sign_in(page, server)


def test_the_session_survives_a_reload_and_ends_with_sign_out(signed_in: Page) -> None:
    signed_in.reload()
    expect(signed_in.get_by_role("heading", name="Tasks", exact=True)).to_be_visible()
    signed_in.get_by_role("button", name="Sign out").click()
    expect(signed_in.get_by_label("API key")).to_be_visible()
    signed_in.reload()
    expect(signed_in.get_by_label("API key")).to_be_visible()


def test_no_script_can_read_the_session_and_no_storage_holds_the_key(signed_in: Page, server: Server) -> None:
    assert signed_in.evaluate("document.cookie") == ""
    stored = signed_in.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, location.href])")
    assert server.key not in stored
    (cookie,) = signed_in.context.cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    assert server.key not in cookie["value"]
