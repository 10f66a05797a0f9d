"""PROTOCOLS.md, "Dashboard": the pages and files that a browser is sent."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

import taskserver
from tests.api.conversation import Answer, Api

FOLDER = Path(taskserver.__file__).parent / "api" / "static" / "dashboard"
FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file())
PAGES = ["/", "/tasks/abc", "/tasks/%C3%BC", "/runs/01a1fd1b-3194-7499-9e57-47764428228d"]


async def ask(api: Api, path: str, method: str = "GET", **headers: str) -> Answer:
    """A browser's request that is not signed in."""
    return await replace(api, prefix="").ask(method, path, headers={"Authorization": "", **headers})


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_holds_no_data_and_permits_nothing_from_elsewhere(api: Api, path: str) -> None:
    answer = await ask(api, path)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert (await ask(api, path, "HEAD")).status == 200
    assert not re.search(r"<script(?![^>]*\ssrc=)|\son\w+=|\sstyle=|<style", answer.text), "nothing inline"


@pytest.mark.parametrize("path", PAGES)
async def test_all_addresses_are_relative_and_lead_somewhere(api: Api, path: str) -> None:
    page = (await ask(api, path)).text
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    root = "./" if path == "/" else "../"
    assert len(addresses) > 4
    for address in addresses:
        assert address.startswith(root)
        assert (await ask(api, "/" + address.removeprefix(root))).status == 200, address


@pytest.mark.parametrize("path", ["/", "/tasks/abc", "/dashboard/app.js", "/dashboard/style.css"])
async def test_browsers_ask_again_and_are_told_when_nothing_is_new(api: Api, path: str) -> None:
    answer = await ask(api, path)
    assert answer.headers["Cache-Control"] == "no-cache"
    same = await ask(api, path, **{"If-None-Match": answer.headers["ETag"]})
    assert (same.status, same.body) == (304, b"")
    assert (await ask(api, path, **{"If-None-Match": '"another"'})).status == 200


@pytest.mark.parametrize("name", FILES)
async def test_each_file_is_served_with_its_type_except_the_page_itself(api: Api, name: str) -> None:
    answer = await ask(api, f"/dashboard/{name}")
    if name == "index.html":
        assert answer.status == 404
        return
    types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    assert answer.headers["Content-Type"].partition(";")[0] == types[Path(name).suffix]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.body == (FOLDER / name).read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        "/dashboard/",
        "/dashboard/none.js",
        "/dashboard/icons",
        "/dashboard/../docs.html",
        "/dashboard/..%2fdocs.js",
        "/dashboard/%2e%2e/docs.js",
        "/dashboard/icons/../../docs.js",
        "/tasks/",
        "/tasks/abc/",
        "/tasks/a/b",
        "/index.html",
    ],
)
async def test_there_is_nothing_else(api: Api, path: str) -> None:
    assert (await ask(api, path)).status == 404


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".js")])
def test_no_script_makes_markup_or_code_of_text(name: str) -> None:
    source = (FOLDER / name).read_text(encoding="utf-8")
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|https?://(?!www\.w3\.org/)"
    assert not re.search(forbidden, re.sub(r"^\s*(//|\*|/\*).*$", "", source, flags=re.MULTILINE)), name
