"""Room: what a protocol tells the shared web layer about itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from taskserver.errors import TaskServerError
from taskserver.keys import Caller
from taskserver.model import Scope

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Authenticate = Callable[[web.Request], Awaitable[Caller]]


@dataclass(frozen=True)
class Route:
    """One endpoint: ``scope`` is what a key needs for it, and None if it needs no key."""

    method: str
    path: str
    handler: Handler
    scope: Scope | None


@dataclass(frozen=True)
class Room:
    """One protocol.

    Attributes:
        name: for logs and metrics.
        prefixes: what the paths of the room begin with; every route is served under each.
        routes: its endpoints, relative to a prefix.
        authenticate: who asks; raises NoCredential or BadCredential.
        refuse: the answer to a failure, in the room's own shape; the status comes from ``failures.status``.
    """

    name: str
    prefixes: tuple[str, ...]
    routes: tuple[Route, ...]
    authenticate: Authenticate
    refuse: Callable[[TaskServerError], web.Response]
