"""Commands that work on a database themselves, without a server in between."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from taskserver.cli.exits import ExitCode, leave, leave_for_os
from taskserver.errors import Conflict, StartupError, StoreFull, TaskServerError

T = TypeVar("T")


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Leaves with a message if what is done here fails."""
    try:
        yield
        sys.stdout.flush()
    except StartupError as error:
        leave(ExitCode.CANNOT_START, error.message)
    except Conflict as error:
        leave(ExitCode.REFUSED, error.message)
    except StoreFull as error:
        leave(ExitCode.IO_ERROR, error.message)
    except TaskServerError as error:
        leave(ExitCode.UNAVAILABLE, error.message)
    except OSError as error:
        leave_for_os(error)
    except KeyboardInterrupt:
        sys.exit(ExitCode.KEYBOARD)


def directly(work: Coroutine[Any, Any, T]) -> T:
    """What the work returns; see ``told``."""
    with told():
        return asyncio.run(work)
