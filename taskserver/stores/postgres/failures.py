"""What may go wrong between a node and its database, and what a caller is told of it."""

from __future__ import annotations

import asyncio
import logging

import asyncpg

from taskserver.errors import StoreFull, StoreUnavailable, TaskServerError

log = logging.getLogger(__name__)

Conflicts = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    # Two nodes added the same: the one that comes second reads the other's row when it tries again.
    asyncpg.UniqueViolationError,
)
"""Errors of transactions that were undone because of another one: done again they may well succeed."""

Lost = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,  # the driver's word for a connection or a pool that is closed
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
"""Errors that mean that the connection is of no use any more."""

Everybodys = (
    *Lost,
    asyncpg.InsufficientResourcesError,  # a full disk, too many connections, no memory
    asyncpg.OperatorInterventionError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby, or a primary that was demoted
    asyncpg.LockNotAvailableError,
    asyncpg.PostgresSystemError,
    *Conflicts,
)
"""Errors that no single operation is to blame for: trying them one by one is of no use."""


class OutcomeUnknown(Exception):
    """The connection broke while a transaction was being committed: it may stand or not."""


def as_answer(error: Exception) -> TaskServerError:
    """The error as a caller may see it. What is unexpected is logged in full."""
    if isinstance(error, TaskServerError):
        return error
    if isinstance(error, asyncpg.DiskFullError):
        log.error("the database cannot grow: %s", error)
        return StoreFull("the database's disk is full; nothing was stored")
    if isinstance(error, OutcomeUnknown):
        log.error("the connection to the database broke during a commit: %s", error)
        return StoreUnavailable("the connection to the database broke; it is not known whether this was stored")
    if isinstance(error, Everybodys):
        log.error("the database is not available: %s", describe(error))
    else:
        log.error("the database failed", exc_info=error)
    return StoreUnavailable(f"the database failed: {describe(error)}")


def describe(error: BaseException) -> str:
    """An error in one line; timeouts have no words of their own."""
    return str(error) or type(error).__name__
