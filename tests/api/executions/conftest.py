"""Fixtures: the server and its keys are those of the other API tests, the client speaks to the executions room."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from taskserver.config import Settings
from tests.api.conftest import Serve as ServeTasks
from tests.api.executions.conversation import Api

Serve = Callable[[Settings], Awaitable[Api]]


@pytest.fixture
def serve(serve: ServeTasks) -> Serve:
    """As the other API tests' fixture of this name; what the others make of it are clients of this room too."""

    async def start(settings: Settings) -> Api:
        root = await serve(settings)
        return Api(root.client, root.services, root.key, root.key_id)

    return start
