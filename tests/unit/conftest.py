"""Fixtures of more than one module: an empty store, and a clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from taskserver.store import Store
from taskserver.stores import open_store
from tests.unit.clock import Clock


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """An empty one, in a file."""
    opened = await open_store(f"sqlite:///{tmp_path}/tasks.db", synchronous="normal")
    yield opened
    await opened.close()


@pytest.fixture
def clock() -> Clock:
    """It stands still."""
    return Clock()
