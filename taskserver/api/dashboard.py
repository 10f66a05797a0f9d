"""The dashboard: one page for all its addresses, and the files that it consists of.

The page holds no data and needs no key; its scripts ask room A with the session's
cookie (PROTOCOLS.md, "Dashboard").
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from aiohttp import web

from taskserver.web.failures import NoSuchEndpoint
from taskserver.web.files import REVALIDATE, revalidated
from taskserver.web.rooms import NOT_MODIFIED, Answer, Route

FOLDER = Path(__file__).with_name("static") / "dashboard"
PAGE = "index.html"
ROOT = b"{root}"
"""Stands in the page for the way from its address to that of the server: all addresses are relative."""
ETAG_LENGTH = 32  # 128 bits

TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Nothing from elsewhere, nothing inline, no text that becomes markup: whatever a line of output holds, it stays text.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none';"
    " form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
GUARDED = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


async def get_list(request: web.Request) -> web.StreamResponse:
    """The dashboard: all tasks."""
    return _page(request, "./")


async def get_task(request: web.Request) -> web.StreamResponse:
    """The dashboard: a task and its output."""
    return _page(request, "../")


async def get_run(request: web.Request) -> web.StreamResponse:
    """The dashboard: a run and its tasks."""
    return _page(request, "../")


async def get_file(request: web.Request) -> web.StreamResponse:
    """A file of the dashboard."""
    name = request.match_info["file"]
    if name not in _files():
        raise NoSuchEndpoint(f"there is no {request.path}")
    headers = {**REVALIDATE, **GUARDED, "Content-Type": TYPES[Path(name).suffix]}
    return web.FileResponse(FOLDER / name, headers=headers)


def _page(request: web.Request, root: str) -> web.StreamResponse:
    body, etag = _encode_page(root)
    return revalidated(request, body, etag, {**GUARDED, "Content-Type": "text/html; charset=utf-8"})


@cache
def _encode_page(root: str) -> tuple[bytes, str]:
    body = (FOLDER / PAGE).read_bytes().replace(ROOT, root.encode())
    return body, hashlib.sha256(body).hexdigest()[:ETAG_LENGTH]


@cache
def _files() -> frozenset[str]:
    """The names of what may be asked for."""
    return frozenset(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.suffix in TYPES)


HTML = (Answer(types=("text/html",)), NOT_MODIFIED)

DASHBOARD_ROUTES = (
    Route("GET", "/", get_list, None, answers=HTML),
    Route("GET", "/tasks/{id}", get_task, None, answers=HTML),
    Route("GET", "/runs/{id}", get_run, None, answers=HTML),
    Route(
        "GET",
        "/dashboard/{file:.+}",
        get_file,
        None,
        answers=(Answer(types=tuple(dict.fromkeys(kind.partition(";")[0] for kind in TYPES.values()))), NOT_MODIFIED),
        fails=(NoSuchEndpoint,),
    ),
)
