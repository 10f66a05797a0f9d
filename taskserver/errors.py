"""Everything that can go wrong, as the domain sees it: one class and one stable code each.

Nothing here knows HTTP. A room of ``taskserver/api`` owns the table that turns
a class into a status and into the error shape of its protocol.
"""

from __future__ import annotations

from typing import Any, ClassVar


class TaskServerError(Exception):
    """Base of every error that is an answer and not a bug.

    Args:
        message: one sentence for the person who caused it.
        payload: facts that help a program to recover, such as ``{"last": 23}``.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, payload: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.payload = payload
        self.request_id = ""
        """The request that failed; set where failures become answers."""


# --- bad input -----------------------------------------------------------------


class BadParameter(TaskServerError):
    """A parameter or field is outside its bounds; the message names both."""

    code = "bad_parameter"


class FirstBeyondOutput(BadParameter):
    """``first`` is greater than the number of lines produced so far."""

    code = "first_beyond_output"


class BadJson(TaskServerError):
    """The request body is not JSON (or not NDJSON)."""

    code = "bad_json"


class BadBody(TaskServerError):
    """The request body can be parsed, but cannot be used."""

    code = "bad_body"


class UnsupportedMediaType(TaskServerError):
    """The request body has a content type that this endpoint does not take."""

    code = "unsupported_media_type"


class TooLarge(TaskServerError):
    """A line, a body or a result is larger than its limit; nothing of it was stored."""

    code = "too_large"


class OutputFull(TooLarge):
    """The task's output would have more lines than it may; nothing of these was stored."""

    code = "output_full"


# --- who is asking -------------------------------------------------------------


class NoCredential(TaskServerError):
    """The request names no key."""

    code = "no_credential"


class BadCredential(TaskServerError):
    """The key is unknown, revoked or expired. Which of the three is not told."""

    code = "bad_credential"


class TokenExpired(BadCredential):
    """The token's time is over; its key may still be valid."""

    code = "token_expired"


class SessionOver(BadCredential):
    """A browser's session has ended, its key is no good any more, or it was none of ours."""

    code = "session_over"

    def __init__(
        self, message: str = "the session is over; sign in again", payload: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message, payload)


class Forbidden(TaskServerError):
    """The key is valid but lacks the scope."""

    code = "forbidden"


# --- what is asked for ---------------------------------------------------------


class TaskNotFound(TaskServerError):
    """There is no such task, or the caller may not know of it."""

    code = "task_not_found"


class DagNotFound(TaskServerError):
    """There is no such dag, or the caller may not know of it."""

    code = "dag_not_found"


class RunNotFound(TaskServerError):
    """There is no such run, or the caller may not know of it."""

    code = "run_not_found"


class KeyNotFound(TaskServerError):
    """There is no such API key."""

    code = "key_not_found"


class Conflict(TaskServerError):
    """The request contradicts what is stored; ``payload`` says what is."""

    code = "conflict"


class TaskExists(Conflict):
    """The id is taken."""

    code = "task_exists"


class KeyExists(Conflict):
    """The name is in use by a key that has not been revoked."""

    code = "key_exists"


class DagExists(Conflict):
    """The dag id belongs to another owner."""

    code = "dag_exists"


class RunExists(Conflict):
    """The dag has a run with this run id or this logical date."""

    code = "run_exists"


class RunFinished(Conflict):
    """The run has ended."""

    code = "run_finished"


class RunClaimed(Conflict):
    """The run is another claimant's: this one's claim is missing, or was lost."""

    code = "run_claimed"


class TasksRunning(Conflict):
    """The run's end cannot be derived from its tasks while some of them still run."""

    code = "tasks_running"


class AppendConflict(Conflict):
    """``first`` is not the end of the output, and other lines stand there."""

    code = "append_conflict"


class TaskFinished(Conflict):
    """The task has ended; it takes no more output and no other outcome."""

    code = "task_finished"


class TaskNotFinished(Conflict):
    """The task still runs; only a finished one can be deleted."""

    code = "task_not_finished"


class CannotCopy(Conflict):
    """One database cannot be copied to the other."""

    code = "cannot_copy"


class Differs(CannotCopy):
    """A copy is not like what it was made from."""

    code = "differs"


class BackupExists(Conflict):
    """The file that a backup is to be written to exists."""

    code = "backup_exists"


# --- what the server cannot do now ---------------------------------------------


class TooManyWaiters(TaskServerError):
    """The limit of open waits is reached, of all or of this key."""

    code = "too_many_waiters"


class TooManyRequests(TaskServerError):
    """There were more requests than the limit allows, of all or with this key.

    ``payload`` has the seconds until there may be another one: ``{"retry_after": 0.25}``.
    """

    code = "too_many_requests"


class TooManySignIns(TooManyRequests):
    """The credential is not valid, and too many others from this address were not valid either."""

    code = "too_many_sign_ins"


class Draining(TaskServerError):
    """The server is shutting down."""

    code = "draining"


class StoreUnavailable(TaskServerError):
    """The store failed; nothing of the request was kept."""

    code = "store_unavailable"


class StoreFull(StoreUnavailable):
    """The disk (or the size limit of the database) is full; nothing of the request was kept."""

    code = "store_full"


# --- what keeps a server from starting -----------------------------------------


class StartupError(TaskServerError):
    """The server cannot start; the message says what to do about it."""

    code = "startup_error"


class StoreOpenError(StartupError):
    """The database cannot be used: missing directory, read-only, corrupt, locked, newer, not ours."""

    code = "store_open_error"


class StoreInUse(StoreOpenError):
    """Another taskserver has the database open."""

    code = "store_in_use"
