"""What commands have in common: options with environment variables, value types, and the key's whereabouts."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from taskserver.cli.exits import ExitCode, WrongUsage, leave
from taskserver.config import DEFAULT_DATABASE, DEFAULT_URL
from taskserver.errors import StartupError
from taskserver.keyfile import key_file_of, read_key
from taskserver.model import ID_PATTERN

# Without `envvar` an option's variable is TASKSERVER_<COMMAND>_<OPTION>.
option = partial(click.option, show_default=True, show_envvar=True)

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
_DURATION = re.compile(r"([0-9]{1,9})([smhdw]?)")

F = TypeVar("F", bound=Callable[..., Any])


class Number(click.FloatRange):
    """A number within bounds, and a finite one: ``nan`` would be within any."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number; raises click.BadParameter."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


def text(value: str) -> str:
    """Text that can be sent: what the command line brought along that is no UTF-8 becomes U+FFFD."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def task_id(value: str) -> str:
    """A task's id."""
    if not ID_PATTERN.fullmatch(value):
        raise WrongUsage(f"{value!r} cannot be a task's id: an id is 1 to 64 of A-Z a-z 0-9 _ . ~ -")
    return value


def label(value: str) -> tuple[str, str]:
    """``key=value``"""
    key, equals, rest = text(value).partition("=")
    if not key or not equals:
        raise WrongUsage(f"the label {value!r} must look like key=value")
    return key, rest


def duration(value: str) -> int:
    """A time such as 90s, 45m, 12h, 30d or 2w, in seconds."""
    match = _DURATION.fullmatch(value)
    if match is None:
        raise WrongUsage(f"the duration {value!r} must look like 90s, 45m, 12h, 30d or 2w")
    return int(match[1]) * _UNITS[match[2] or "s"]


def positive_duration(value: str) -> int:
    """A duration of at least a second."""
    seconds = duration(value)
    if not seconds:
        raise WrongUsage(f"the duration {value!r} must be a second at least")
    return seconds


def connection_options(command: F) -> F:
    """--url, --key, --key-file and --database."""
    for add in (
        option(
            "--database",
            default=DEFAULT_DATABASE,
            envvar="TASKSERVER_DATABASE",
            help="Without a key: the database beside which the server left its first one.",
        ),
        option("--key-file", metavar="FILE", envvar="TASKSERVER_KEY_FILE", help="A file that holds the API key."),
        option(
            "--key",
            envvar="TASKSERVER_KEY",
            help="The API key. On a command line other users of this machine can see it; the variable is safer.",
        ),
        option("--url", default=DEFAULT_URL, envvar="TASKSERVER_URL", help="The server."),
    ):
        command = add(command)
    return command


def find_key(key: str | None, key_file: str | None, database: str) -> str:
    """The API key that the options and the environment lead to; leaves with a message if there is none.

    What stands on the command line beats the environment.
    """
    source = click.get_current_context().get_parameter_source
    if key and key_file and source("key_file") is ParameterSource.COMMANDLINE is not source("key"):
        key = None
    if key:
        return key
    try:
        path = Path(key_file) if key_file else key_file_of(database)
        found = read_key(path)
    except StartupError as error:
        leave(ExitCode.NO_KEY, error.message)
    if found:
        return found
    if key_file:
        return leave(ExitCode.NO_KEY, f"there is no API key in {path}")
    ways = "--key, --key-file, TASKSERVER_KEY or TASKSERVER_KEY_FILE"
    return leave(ExitCode.NO_KEY, f"no API key: give {ways} (there is none in {path} either)")
