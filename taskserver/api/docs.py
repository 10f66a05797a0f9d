"""The OpenAPI document, and a page to read it with: Swagger UI from an installed package, nothing from other hosts."""

from __future__ import annotations

from functools import cache
from importlib.metadata import distribution
from pathlib import Path

from aiohttp import web
from marshmallow import INCLUDE, Schema, fields

from taskserver.web.failures import NoSuchEndpoint
from taskserver.web.files import REVALIDATE, revalidated
from taskserver.web.openapi import DOCUMENT, OPENAPI_VERSION
from taskserver.web.rooms import NOT_MODIFIED, Answer, Route

FOLDER = Path(__file__).with_name("static")
OUR_SCRIPT = "docs.js"
FILES = {
    OUR_SCRIPT: "text/javascript; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon-32x32.png": "image/png",
}
"""What the page consists of, and its content types."""

PAGE_HEADERS = {
    **REVALIDATE,
    "Content-Type": "text/html; charset=utf-8",
    "Referrer-Policy": "no-referrer",
    # Swagger UI's icons are data: URLs; it needs nothing else beyond this server.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}


class OpenApi(Schema):
    """The beginning of an OpenAPI document."""

    class Meta:  # noqa: D106 - marshmallow's place for options
        unknown = INCLUDE

    openapi = fields.String(required=True, metadata={"enum": [OPENAPI_VERSION]})
    info = fields.Dict(required=True)
    paths = fields.Dict(required=True)


async def get_document(request: web.Request) -> web.StreamResponse:
    """This API as an OpenAPI document."""
    document = request.app[DOCUMENT]
    return revalidated(request, document.body, document.etag, {"Content-Type": "application/json"})


async def get_page(request: web.Request) -> web.StreamResponse:
    """This API as a page to read and to try it."""
    return web.FileResponse(FOLDER / "docs.html", headers=PAGE_HEADERS)


async def get_file(request: web.Request) -> web.StreamResponse:
    """A file of that page."""
    name = request.match_info["file"]
    if name not in FILES:
        raise NoSuchEndpoint(f"there is no {request.path}")
    folder = FOLDER if name == OUR_SCRIPT else swagger_ui()
    return web.FileResponse(folder / name, headers={**REVALIDATE, "Content-Type": FILES[name]})


@cache
def swagger_ui() -> Path:
    """Where Swagger UI's files lie. Of the package that brings them nothing is imported: it would import Flask."""
    return Path(str(distribution("flask-swagger-ui").locate_file("flask_swagger_ui/dist")))


DOCS_ROUTES = (
    Route("GET", "/openapi.json", get_document, None, answers=(Answer(schema=OpenApi()), NOT_MODIFIED)),
    Route("GET", "/docs", get_page, None, answers=(Answer(types=("text/html",)), NOT_MODIFIED)),
    Route(
        "GET",
        "/docs/{file}",
        get_file,
        None,
        answers=(Answer(types=("text/javascript", "text/css", "image/png")), NOT_MODIFIED),
        fails=(NoSuchEndpoint,),
    ),
)
