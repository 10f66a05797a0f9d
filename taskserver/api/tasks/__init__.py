"""The tasks room: Posit Connect's task API, and the producing side of it (PROTOCOLS.md, section A)."""

from taskserver.api.tasks.room import tasks_room

__all__ = ["tasks_room"]
