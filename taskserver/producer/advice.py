"""What a user can do when a run had to end without its server: curl lines that send what is left."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import orjson

from taskserver.producer.process import Exit

CURL = 'curl --fail-with-body -H "Authorization: Key $TASKSERVER_KEY"'
NDJSON = "-H 'Content-Type: application/x-ndjson'"


@dataclass(frozen=True)
class Left:
    """Lines that the server has not acknowledged: in ``path``, the first of them having the number ``first``.

    The first ``unanswered`` of them were sent in one request whose answer never
    came: they may stand in the task already. ``closing``: they are the end of an
    output that was too long.
    """

    path: Path
    first: int
    lines: int
    unanswered: int
    closing: bool = False


def advice(task_url: str, left: Left, end: Exit) -> list[str]:
    """Lines for the user, shell commands among them; to be followed in order."""
    said = [f"the server has not been told that the command ended (code {end.code})"]
    if left.lines:
        said.append(f"the lines that it did not take ({left.lines}) are kept in {left.path}; to send them:")
        said += _sends(task_url, left)
    said.append("to end the task:")
    word = shlex.quote(orjson.dumps({"code": end.code, "error": end.error}).decode())
    said.append(f"  {CURL} -H 'Content-Type: application/json' -d {word} {shlex.quote(task_url + '/finish')}")
    return said


def _sends(task_url: str, left: Left) -> list[str]:
    path = shlex.quote(str(left.path))
    more = "&closing=true" if left.closing else ""
    commands = []
    if left.unanswered:
        # In one piece, exactly as before: the server recognises a repeat.
        target = shlex.quote(f"{task_url}/output?first={left.first}{more}")
        commands.append(f"  head -n {left.unanswered} {path} | {CURL} {NDJSON} --data-binary @- {target}")
    if left.lines > left.unanswered:
        target = shlex.quote(f"{task_url}/output?first={left.first + left.unanswered}{more}")
        commands.append(f"  tail -n +{left.unanswered + 1} {path} | {CURL} {NDJSON} -T - {target}")
    return commands
