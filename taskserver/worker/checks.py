"""What ``@dag`` and ``@task`` ask of the settings that they share. ``where`` is what a message begins with."""

from __future__ import annotations

import math

from taskserver.config import MAX_NAME_LENGTH, MAX_RETRIES
from taskserver.worker.errors import DagError


def check_retries(where: str, retries: object) -> None:
    """Raises DagError if it is not a count that may be."""
    if not isinstance(retries, int) or isinstance(retries, bool) or not 0 <= retries <= MAX_RETRIES:
        raise DagError(f"{where}: retries must be 0 to {MAX_RETRIES}, not {retries!r}")


def check_name(where: str, setting: str, name: object) -> None:
    """Raises DagError if it cannot be a name for people."""
    if not isinstance(name, str) or len(name) > MAX_NAME_LENGTH or "\0" in name:
        raise DagError(f"{where}: its {setting} must be a text of at most {MAX_NAME_LENGTH} characters")


def check_number(where: str, setting: str, number: object) -> None:
    """Raises DagError if it is not a number."""
    if not isinstance(number, (int, float)) or isinstance(number, bool) or math.isnan(number):
        raise DagError(f"{where}: {setting} must be a number, not {number!r}")
