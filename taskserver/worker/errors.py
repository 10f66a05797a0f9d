"""What can be wrong with a dag, and with what its tasks return."""

from __future__ import annotations


class DagError(Exception):
    """A dag cannot be made of what was declared; the message says what to change."""


class BadValue(Exception):
    """A task has returned what cannot be kept as its value."""


class TaskStopped(BaseException):
    """Raised inside a task that is to stop: it was cancelled, its time is over, or its worker ends.

    Not an ``Exception``, so that ``except Exception`` does not take it for a
    failure of what was tried.
    """
