"""Every implementation of the interfaces: a new store or wake-up is one more ``pytest.param``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from taskserver.store import Store
from taskserver.stores import join_store, open_shared_store, open_store, open_wakeup
from taskserver.wakeup import LocalWakeup, Wakeup
from tests.contract.helpers import Opener, Recorder
from tests.postgres import PostgresServer


async def open_sqlite(folder: Path) -> Store:
    return await open_store(f"sqlite:///{folder}/tasks.db")


async def open_joined(folder: Path) -> Store:
    """A store that another one commits for, over a real socket; this one's end is the other one's too."""
    shared = await open_shared_store(f"sqlite:///{folder}/tasks.db")
    joined = await join_store(await shared.invite(), lost=unexpected)
    leave = joined.close

    async def close() -> None:
        await leave()
        await shared.close()

    joined.close = close  # type: ignore[method-assign]
    return joined


def unexpected() -> None:
    raise AssertionError("the store that commits was lost")


async def open_local(folder: Path) -> Wakeup:
    return LocalWakeup()


async def open_postgres(folder: Path, server: PostgresServer) -> Store:
    return await open_store(await server.database(folder))


STORES = [
    pytest.param(open_sqlite, id="sqlite"),
    pytest.param(open_joined, id="sqlite-joined"),
    pytest.param(open_postgres, id="postgres"),
]
WAKEUPS = [pytest.param(open_local, id="local"), pytest.param(open_postgres, id="postgres")]


@pytest.fixture(params=STORES)
def opener(request: pytest.FixtureRequest) -> Opener[Store]:
    """Opens a store; called again for the same folder it finds what was stored there."""
    if request.param is open_postgres:
        return partial(open_postgres, server=request.getfixturevalue("postgres"))
    found: Opener[Store] = request.param
    return found


@pytest.fixture
async def store(opener: Opener[Store], tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store."""
    opened = await opener(tmp_path)
    yield opened
    await opened.close()


@pytest.fixture
def changes(store: Store) -> Recorder:
    """The store's listener: keeps what is reported."""
    recorder = Recorder()
    store.listen(recorder)
    return recorder


@pytest.fixture(params=WAKEUPS)
async def wakeup(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Wakeup]:
    """A wake-up that nobody subscribes to yet."""
    if request.param is open_postgres:
        store = await open_postgres(tmp_path, request.getfixturevalue("postgres"))
        opened = await open_wakeup(store)
        yield opened
        await opened.close()
        await store.close()
    else:
        opened = await request.param(tmp_path)
        yield opened
        await opened.close()
