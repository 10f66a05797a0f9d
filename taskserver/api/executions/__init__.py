"""The executions room: runs, as the callers of an executions API know them (PROTOCOLS.md, C)."""

from taskserver.api.executions.room import executions_room

__all__ = ["executions_room"]
