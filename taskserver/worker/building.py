"""The dag whose function is running at the moment, and where declared dags are collected."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from taskserver.worker.graph import Graph

if TYPE_CHECKING:
    from taskserver.worker.dag import Dag

GRAPH: ContextVar[Graph | None] = ContextVar("taskserver_graph", default=None)
DECLARED: ContextVar[list[Dag] | None] = ContextVar("taskserver_declared", default=None)
"""Where dags are noted while a module is loaded."""
