"""Commands that work on a database themselves, without a server in between."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

from taskserver.cli.exits import ExitCode, leave, leave_for_os
from taskserver.errors import Conflict, StartupError, StoreInUse, TaskServerError

T = TypeVar("T")


def directly(work: Coroutine[Any, Any, T]) -> T:
    """What the work returns; leaves with a message if it fails. Raises StoreInUse."""
    try:
        answer = asyncio.run(work)
        sys.stdout.flush()
        return answer
    except StoreInUse:
        raise
    except StartupError as error:
        leave(ExitCode.CANNOT_START, error.message)
    except Conflict as error:
        leave(ExitCode.REFUSED, error.message)
    except TaskServerError as error:
        leave(ExitCode.UNAVAILABLE, error.message)
    except OSError as error:
        leave_for_os(error)
    except KeyboardInterrupt:
        sys.exit(ExitCode.KEYBOARD)
