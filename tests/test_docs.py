"""What is documented exists, and what exists is documented."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from aiohttp import web

from taskserver.cli import main
from taskserver.config import Settings
from taskserver.stores import open_store
from taskserver.web.app import make_app, make_services

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROTOCOLS = (ROOT / "PROTOCOLS.md").read_text(encoding="utf-8")

OUR_PREFIX, CONNECT_PREFIX = "/v1", "/__api__/v1"
SAME_ELSEWHERE = (f" {CONNECT_PREFIX}/", " //")  # paths that are documented under another prefix


def commands(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command of the CLI that does something, with the words that call it."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield (*path, name), command


COMMANDS = dict(commands(main))


def options(command: click.Command) -> list[click.Option]:
    """A command's options without --help."""
    return [parameter for parameter in command.params if isinstance(parameter, click.Option)]


def console_lines() -> list[str]:
    """The commands in README: the lines after ``$`` in its console blocks, continuation lines joined."""
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    lines = re.findall(r"^\$ (.*)$", "\n".join(blocks).replace("\\\n", " "), re.MULTILINE)
    assert lines
    return lines


@pytest.mark.parametrize("line", console_lines())
def test_a_command_in_the_readme_can_be_called(line: str) -> None:
    words = shlex.split(line.split(" | ")[-1] if "| taskserver" in line else line)
    if words[0].startswith("./"):
        script = ROOT / words[0]
        assert script.exists()
        assert script.stat().st_mode & 0o100, f"{script} cannot be executed"
    elif words[0] == "taskserver":
        path = tuple(words[1:3]) if tuple(words[1:3]) in COMMANDS else tuple(words[1:2])
        known = {flag for option in options(COMMANDS[path]) for flag in (*option.opts, *option.secondary_opts)}
        ours = words[: words.index("--")] if "--" in words else words
        for word in ours[1 + len(path) :]:
            assert not word.startswith("-") or word.partition("=")[0] in known, f"{word} is no flag of {path}"


@pytest.mark.parametrize("path", list(COMMANDS), ids=" ".join)
def test_each_command_is_in_the_readme_and_has_help_with_an_example(path: tuple[str, ...]) -> None:
    assert f"taskserver {' '.join(path)}" in README
    help_text = COMMANDS[path].help
    assert help_text is not None
    assert f"taskserver {' '.join(path)}" in help_text.partition("Example")[2], "the help shows no example"


@pytest.mark.parametrize("path", list(COMMANDS), ids=" ".join)
def test_each_flag_has_help_and_an_environment_variable(path: tuple[str, ...]) -> None:
    # click derives a variable from this prefix for every flag that does not name one.
    assert main.context_settings["auto_envvar_prefix"] == "TASKSERVER"
    for option in options(COMMANDS[path]):
        assert option.help, f"{option.name} has no help"
        assert option.allow_from_autoenv or option.envvar
        assert option.envvar is None or str(option.envvar).startswith("TASKSERVER_")


def settings_in_readme() -> dict[str, tuple[str, str]]:
    """The configuration table: flag to (environment variable, default)."""
    rows = re.findall(r"^\| `(--[a-z-]+)[^`]*` \| `(TASKSERVER_\w+)` \| `?([^|`]*)`? \|", README, re.MULTILINE)
    return {flag: (variable, default) for flag, variable, default in rows}


def test_the_configuration_table_has_each_setting_of_serve_with_its_default() -> None:
    table = settings_in_readme()
    assert set(table) == {option.opts[0] for option in options(COMMANDS["serve",])}
    for option in options(COMMANDS["serve",]):
        variable, default = table[option.opts[0]]
        assert option.envvar == variable
        if isinstance(option.default, (str, int)) and not option.is_flag:
            assert default == str(option.default), option.name


async def test_each_route_is_in_the_protocols_and_each_one_there_exists(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/tasks.db")
    app = make_app(make_services(Settings(), store))
    routes = {f"{route.method} {path_of(route)}" for route in app.router.routes() if route.method not in ("HEAD", "*")}
    await store.close()
    ours = {route for route in routes if not any(prefix in route for prefix in SAME_ELSEWHERE)}
    assert {route for route in ours if f"`{route}" not in PROTOCOLS} == set()
    documented = re.findall(r"`((?:GET|POST|PUT|DELETE|PATCH) /[^`?]*)", PROTOCOLS)
    assert set(documented) - routes == set()


def path_of(route: web.AbstractRoute) -> str:
    """The route's path as it was registered."""
    assert route.resource is not None
    return route.resource.canonical


def test_each_script_says_what_it_is_for() -> None:
    for script in (ROOT / "scripts").iterdir():
        if script.is_file():
            lines = script.read_text(encoding="utf-8").splitlines()
            comment = lines[1] if lines[0].startswith("#!") else lines[0]
            assert comment.startswith("# "), f"{script.name} does not say what it is for"
            subprocess.run(["bash", "-n", str(script)], check=True)
