"""Fixtures: callers of Airflow's API; the server and its keys are those of the other API tests."""

from __future__ import annotations

import pytest

from tests.api.airflow.conversation import Airflow
from tests.api.conversation import Api


@pytest.fixture
def airflow(api: Api) -> Airflow:
    """Ann, as a caller of Airflow's API. She has a dag."""
    return Airflow(api)


@pytest.fixture
def airflow_admin(admin: Api) -> Airflow:
    """An admin, as a caller of Airflow's API."""
    return Airflow(admin)
