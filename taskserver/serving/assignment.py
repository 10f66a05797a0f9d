"""What a worker is told at its start, through its standard input."""

from __future__ import annotations

from dataclasses import dataclass

from taskserver.config import Settings
from taskserver.store import Invitation


@dataclass(frozen=True)
class Assignment:
    """The settings, how to join the store, and the descriptor of the socket through which connections come."""

    settings: Settings
    invitation: Invitation
    door: int
