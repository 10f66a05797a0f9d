"""Fixtures: the application in this process, and an authenticated client that speaks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import ClientTimeout, TCPConnector
from pytest_aiohttp.plugin import AiohttpClient, AiohttpServer

from taskserver.config import PARSER_LINE_LIMIT, Settings
from taskserver.model import Scope
from taskserver.store import Store
from taskserver.stores import open_store, open_wakeup
from taskserver.web.app import make_app, make_services
from tests.api.conversation import Api, Client
from tests.conftest import DatabaseIn

Serve = Callable[[Settings], Awaitable[Api]]


@pytest.fixture
async def serve(
    aiohttp_client: AiohttpClient, aiohttp_server: AiohttpServer, database_in: DatabaseIn, tmp_path: Path
) -> AsyncIterator[Serve]:
    """Starts a server with these settings on an empty database; the client that it gives is an admin's."""
    opened: list[tuple[Store, Client]] = []

    async def start(settings: Settings) -> Api:
        folder = tmp_path / str(len(opened))
        folder.mkdir()
        store = await open_store(await database_in(folder))
        services = make_services(settings, store, await open_wakeup(store))
        server = await aiohttp_server(
            make_app(services),
            shutdown_timeout=settings.timing.shutdown,
            max_line_size=PARSER_LINE_LIMIT,
            max_field_size=PARSER_LINE_LIMIT,
        )
        client: Client = await aiohttp_client(server, timeout=ClientTimeout(total=60), connector=TCPConnector(limit=0))
        opened.append((store, client))
        key, secret = await services.keys.issue("root", [Scope.ADMIN])
        return Api(client, services, secret, key.id)

    yield start
    for store, client in opened:
        await client.close()
        await store.close()


@pytest.fixture
async def admin(serve: Serve) -> Api:
    """A client with an admin's key."""
    return await serve(Settings())


@pytest.fixture
async def api(admin: Api) -> Api:
    """Ann, who may read and write her tasks."""
    return await admin.with_key("ann")
