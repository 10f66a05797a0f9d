"""What a worker is told at its start, through its standard input."""

from __future__ import annotations

from dataclasses import dataclass

from taskserver.config import Settings
from taskserver.store import Invitation


@dataclass(frozen=True)
class Assignment:
    """The settings, how to join the store, and two descriptors.

    ``door`` is the socket through which connections come, ``board`` the memory
    in which processes count: this one in the slot with that number.
    """

    settings: Settings
    invitation: Invitation
    door: int
    board: int
    slot: int
