"""Who asks: tokens, and the endpoint that gives them (PROTOCOLS.md, B1)."""

from __future__ import annotations

from urllib.parse import parse_qsl

from aiohttp import web

from taskserver.api.airflow.answers import FORM, JSON, json_answer
from taskserver.api.airflow.schemas import LoginBody
from taskserver.errors import BadCredential, BadParameter, NoCredential, UnsupportedMediaType
from taskserver.keys import Caller
from taskserver.web.bodies import declared_type, read_body
from taskserver.web.context import services
from taskserver.web.validation import load, load_body

LOGIN = LoginBody()
SCHEMES = ("bearer", "key")  # Airflow's, and the one of our other rooms (A3)
FORM_FIELDS = frozenset(LOGIN.fields)


async def create_token(request: web.Request) -> web.StreamResponse:
    """A token for an API key: ``username`` is the key's name, ``password`` the key."""
    content_type = declared_type(request) or JSON
    if content_type == FORM:
        text = (await read_body(request)).decode("utf-8", "replace")
        # What else is in a form is left aside, as in Airflow.
        form = {name: value for name, value in parse_qsl(text, keep_blank_values=True) if name in FORM_FIELDS}
        login = load(LOGIN, form, "body")
    elif content_type == JSON:
        login = await load_body(request, LOGIN)
    else:
        raise UnsupportedMediaType(f"the body must be {JSON} or {FORM}, not {content_type}")
    if not login["username"] or not login["password"]:
        raise BadParameter("username and password must not be empty")
    try:
        token = await services(request).tokens.issue(login["username"], login["password"])
    except BadCredential as error:
        raise services(request).sign_ins.failed(request, error) from None
    return json_answer({"access_token": token}, status=201)


async def authenticate(request: web.Request) -> Caller:
    """``Authorization: Bearer`` and a token or an API key. Raises NoCredential, TokenExpired, BadCredential."""
    scheme, _, credential = request.headers.get("Authorization", "").partition(" ")
    credential = credential.strip()
    if scheme.lower() in SCHEMES and credential:
        return await services(request).tokens.verify(credential)
    raise NoCredential("send a token: Authorization: Bearer XXXX")
