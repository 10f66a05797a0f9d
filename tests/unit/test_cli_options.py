"""What holds for every command and option of the CLI, and the small types of its values."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from taskserver.cli import main
from taskserver.cli.exits import EXIT_CODES_HELP, ExitCode, exit_code_of, printable
from taskserver.cli.options import duration, label, task_id, text


def commands(command: click.Command, path: str = "taskserver") -> Iterator[tuple[str, click.Command]]:
    """A command and all below it, by what is typed."""
    yield path, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, f"{path} {name}")


COMMANDS = dict(commands(main))


def test_the_commands_are_these() -> None:
    assert [path.removeprefix("taskserver ") for path in COMMANDS][1:] == [
        "serve", "run", "worker", "tail", "wait", "list", "cancel", "prune", "backup", "copy",
        "keys", "keys create", "keys list", "keys revoke",
    ]  # fmt: skip


@pytest.mark.parametrize("path", COMMANDS)
def test_help_says_what_it_is_and_shows_an_example(path: str) -> None:
    shown = CliRunner().invoke(main, [*path.split()[1:], "--help"]).output

    assert COMMANDS[path].help
    assert f"Example:\n    {path}" in shown
    for option in COMMANDS[path].params:
        if isinstance(option, click.Option) and option.name not in ("help", "version"):
            assert option.help, option.name


NUMBERS = [
    (option, path)
    for path, command in COMMANDS.items()
    for option in command.params
    if isinstance(option.type, click.FloatRange) or option.type is click.FLOAT
]


@pytest.mark.parametrize("value", ["nan", "inf", "1e999"])
@pytest.mark.parametrize(("option", "path"), NUMBERS, ids=lambda it: getattr(it, "name", it))
def test_numbers_are_finite(option: click.Option, path: str, value: str) -> None:
    ended = CliRunner().invoke(main, [*path.split()[1:], option.opts[0], value])

    assert ended.exit_code == 2, ended.output
    assert f"Invalid value for '{option.opts[0]}'" in ended.output


@pytest.mark.parametrize("path", COMMANDS)
def test_every_option_has_an_environment_variable_and_says_so(path: str) -> None:
    shown = "".join(CliRunner().invoke(main, [*path.split()[1:], "--help"]).output.split())
    prefix = path.upper().replace(" ", "_")
    for option in COMMANDS[path].params:
        if not isinstance(option, click.Option) or option.name in ("help", "version"):
            continue
        name = option.envvar or f"{prefix}_{str(option.name).upper()}"
        assert isinstance(name, str)
        assert name.startswith("TASKSERVER_")
        assert f"envvar:{name}" in shown
        assert "--" + name.removeprefix(f"{prefix}_").removeprefix("TASKSERVER_").lower().replace("_", "-") in [
            *option.opts,
            *option.secondary_opts,
        ]


def test_the_help_names_every_exit_code() -> None:
    for code in ExitCode:
        assert f"  {code.value} " in EXIT_CODES_HELP, code


@pytest.mark.parametrize(
    ("value", "seconds"), [("90", 90), ("90s", 90), ("45m", 2700), ("12h", 43200), ("30d", 2592000), ("2w", 1209600)]
)
def test_durations(value: str, seconds: int) -> None:
    assert duration(value) == seconds


@pytest.mark.parametrize("value", ["", "d", "1y", "-1d", "1.5h", "1h30m", "１d"])
def test_what_is_no_duration(value: str) -> None:
    with pytest.raises(click.UsageError, match="must look like 90s"):
        duration(value)


def test_labels() -> None:
    assert label("branch=main") == ("branch", "main")
    assert label("query=a=b") == ("query", "a=b")
    assert label("empty=") == ("empty", "")
    for value in ("", "branch", "=main"):
        with pytest.raises(click.UsageError, match="must look like key=value"):
            label(value)


def test_task_ids() -> None:
    assert task_id("aB-_.~9") == "aB-_.~9"
    for value in ("", "a/b", "a b", "ü", "x" * 65, "x\n"):
        with pytest.raises(click.UsageError, match="cannot be a task's id"):
            task_id(value)


def test_text_can_always_be_sent() -> None:
    assert text("grün") == "grün"
    assert text(b"a\xff".decode("utf-8", "surrogateescape")) == "a\ufffd"


def test_what_is_printed_stays_on_its_line_and_leaves_terminals_alone() -> None:
    assert printable("grün 🐍\n\x1b[31m\t\x9b") == "grün 🐍\\n\\x1b[31m\\t\\x9b"


def test_exit_codes_of_tasks() -> None:
    assert [exit_code_of(code) for code in (0, 1, 255, 256, -1, 2**31 - 1)] == [0, 1, 255, 1, 1, 1]
