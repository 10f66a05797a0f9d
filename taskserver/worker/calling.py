"""Calling a task: a function, an async one or a command, with its time limit; and what became of it."""

from __future__ import annotations

import asyncio
import inspect
import os
import traceback
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskserver.config import MAX_ERROR_LENGTH
from taskserver.model import CANCELLED_CODE, Stream
from taskserver.worker.command import CommandFailed, run_command
from taskserver.worker.context import CURRENT, Context
from taskserver.worker.errors import BadValue, TaskStopped
from taskserver.worker.graph import TaskSettings
from taskserver.worker.stopping import Stopper
from taskserver.worker.values import encode_value

FAILED_CODE = 1
OURS = str(Path(__file__).parent)

Write = Callable[[Stream, bytes], object]


@dataclass(frozen=True)
class Ended:
    """How a call ended: ``value`` is JSON, or None if it failed; then ``code`` and ``error`` say how.

    ``stopped``: it did not fail by itself, so that another try would make no sense.
    """

    value: bytes | None
    code: int = 0
    error: str = ""
    stopped: bool = False


def call(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Any,
    settings: TaskSettings,
    context: Context,
    stopper: Stopper,
    write: Write,
) -> Ended:
    """Call a task's function in this thread. ``write`` takes what a command prints, and a failure's traceback."""
    token, process = CURRENT.set(context), os.getpid()
    try:
        with stopper.after(settings.timeout):
            returned = _call(function, args, kwargs, stopper)
            if settings.command:
                returned = run_command(returned, stopper, write)
        return Ended(encode_value(returned))
    except (CommandFailed, BadValue) as error:
        return _failed(str(error), getattr(error, "code", FAILED_CODE), stopper)
    except BaseException as error:
        if os.getpid() == process and not (isinstance(error, TaskStopped) and stopper.reason):
            with suppress(TaskStopped):
                write(Stream.STDERR, _traceback(error))
        return _failed(_describe(error), FAILED_CODE, stopper)
    finally:
        if os.getpid() != process:
            os._exit(0)  # a child that the task has forked came back from it: the task itself goes on in its parent
        CURRENT.reset(token)


def _call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Any, stopper: Stopper) -> Any:
    with stopper.by_raising():
        returned = function(*args, **kwargs)
    return asyncio.run(_awaited(returned, stopper)) if inspect.iscoroutine(returned) else returned


async def _awaited(coroutine: Coroutine[Any, Any, Any], stopper: Stopper) -> Any:
    loop, work = asyncio.get_running_loop(), asyncio.ensure_future(coroutine)

    def cancel() -> None:
        loop.call_soon_threadsafe(work.cancel)

    with stopper.by(cancel):
        try:
            return await work
        except asyncio.CancelledError:
            if stopper.reason:
                raise TaskStopped from None
            raise


def _failed(error: str, code: int, stopper: Stopper) -> Ended:
    if stopper.reason:
        timed_out = stopper.reason.startswith("timed out")
        return Ended(None, FAILED_CODE if timed_out else CANCELLED_CODE, stopper.reason, stopped=not timed_out)
    sendable = error.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
    return Ended(None, code, sendable[:MAX_ERROR_LENGTH])


def _describe(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"the task called sys.exit({error.code!r}); a task ends by returning or raising"
    try:
        text = str(error)
    except Exception:  # the task's own class may do anything
        text = "its text cannot be made"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _traceback(error: BaseException) -> bytes:
    lines = traceback.format_exception(error.with_traceback(_theirs(error)))
    return "".join(lines).encode("utf-8", "backslashreplace")


def _theirs(error: BaseException) -> Any:
    """The traceback from the task's own code on."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename.startswith(OURS):
        trace = trace.tb_next
    return trace
