"""Typed access of handlers to the services behind them: the only way from a room to the core."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiohttp import web

from taskserver.audience import Audiences
from taskserver.board import Board
from taskserver.config import Settings
from taskserver.feed import Feed
from taskserver.keys import Actor, Caller, Keys
from taskserver.runs import Runs
from taskserver.store import Store
from taskserver.tasks import Tasks
from taskserver.tokens import Tokens
from taskserver.upkeep import Upkeep
from taskserver.waiting import Waits
from taskserver.wakeup import Wakeup
from taskserver.web.addresses import client_address
from taskserver.web.bounds import Throttle
from taskserver.web.signins import SignIns
from taskserver.web.streaming import EncodeOnce


@dataclass(frozen=True)
class Services:
    """What a running server consists of."""

    settings: Settings
    store: Store
    wakeup: Wakeup
    waits: Waits
    tasks: Tasks
    runs: Runs
    keys: Keys
    tokens: Tokens
    audiences: Audiences
    feed: Feed
    upkeep: Upkeep | None
    throttle: Throttle
    sign_ins: SignIns
    board: Board
    encoded: EncodeOnce = field(default_factory=EncodeOnce)


SERVICES = web.AppKey("services", Services)
CALLER = web.RequestKey("caller", Caller)


def services(request: web.Request) -> Services:
    """The services of the server that answers this request."""
    return request.app[SERVICES]


def caller(request: web.Request) -> Caller:
    """Whose key came with this request; its route says that it needs one."""
    return request[CALLER]


def actor(request: web.Request) -> Actor:
    """Who sends a request, for the audit."""
    who = caller(request)
    return Actor(who.name, who.key_id, client_address(request) or None)
