"""The other commands, and what all have in common: the key, wrong input, failures."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.commands import TASKSERVER, Commands, on_a_terminal
from tests.server import until

NO_SERVER = "http://127.0.0.1:9"  # "discard": nobody serves it any more
EVERY_COMMAND = [
    ["run", "--", "true"],
    ["tail", "x"],
    ["wait", "x"],
    ["list"],
    ["cancel", "x"],
    ["prune", "--older-than", "1d"],
    ["keys", "create", "x"],
    ["keys", "list"],
    ["keys", "revoke", "x"],
]


# --- list, cancel -----------------------------------------------------------------


def test_list_shows_the_newest_first_and_filters(taskserver: Commands) -> None:
    server = taskserver.server
    built = server.new_task(name="build", labels={"branch": "main", "arch": "arm"})
    server.post(f"/v1/tasks/{built}/finish", {"code": 2, "output": ["a", "b"]})
    tested = server.new_task(name="test", labels={"branch": "main"})

    rows = [line.split("\t") for line in taskserver("list").lines]
    assert [[row[0], row[1], row[2], row[3], row[5]] for row in rows] == [
        [tested, "queued", "", "0", "test"],
        [built, "failed", "2", "2", "build"],
    ]
    for options, expected in (
        (["--state", "failed"], [built]),
        (["--name", "test"], [tested]),
        (["--label", "branch=main"], [tested, built]),
        (["--label", "branch=main", "--label", "arch=arm"], [built]),
        (["--label", "arch=x86"], []),
        (["--limit", "1"], [tested]),
    ):
        assert [line.split("\t")[0] for line in taskserver.inside("list", *options).lines] == expected, options
    assert [line.split("\t")[0] for line in taskserver.inside("list", TASKSERVER_LIST_NAME="build").lines] == [built]


def test_list_goes_on_where_a_page_ends(taskserver: Commands) -> None:
    ids = [taskserver.server.new_task() for _ in range(510)]

    assert [line.split("\t")[0] for line in taskserver("list", "--limit", "505").lines] == ids[:-506:-1]


def test_list_as_json_has_all_fields(taskserver: Commands) -> None:
    task_id = taskserver.server.new_task(name="build", labels={"branch": "main"}, lease=60)

    (task,) = json.loads(taskserver("list", "--json").out)
    shown = taskserver.task(task_id)
    assert task == {key: value for key, value in shown.items() if key not in ("output", "result")}
    assert json.loads(taskserver("list", "--json", "--name", "other").out) == []


def test_on_a_terminal_lists_are_tables_and_names_are_harmless(taskserver: Commands) -> None:
    task_id = taskserver.server.new_task(name="[red]evil[/red]\x1b[2J\nname")
    shown = on_a_terminal(taskserver, "list")

    assert "ID" in shown.splitlines()[0]
    assert "NAME" in shown.splitlines()[0]
    assert task_id in shown
    assert "[red]evil[/red]\\x1b[2J\\nname" in shown
    assert "STATE" in on_a_terminal(taskserver, "keys", "list")
    assert "\x1b" not in taskserver("list").out.decode()


def test_cancel_of_a_running_task_asks_and_of_a_finished_one_tells(taskserver: Commands) -> None:
    task_id = taskserver.server.new_task()
    taskserver.server.post(f"/v1/tasks/{task_id}/heartbeat")
    assert taskserver("cancel", task_id).err == f"taskserver: task {task_id} is asked to stop\n"
    assert taskserver.task(task_id)["cancel_requested"] is True

    taskserver.server.post(f"/v1/tasks/{task_id}/finish", {"code": 0})
    assert taskserver("cancel", task_id).err == f"taskserver: task {task_id} is success\n"


# --- keys -------------------------------------------------------------------------


def test_a_key_is_made_used_listed_and_revoked(taskserver: Commands) -> None:
    made = taskserver("keys", "create", "ci", "--scope", "write", "--owner", "team", "--expires-in", "30d")
    key = made.out.decode().strip()
    assert made.out.count(b"\n") == 1
    assert key not in made.err

    done = taskserver("run", "-q", "--", "true", TASKSERVER_KEY=key)
    assert done.code == 0
    refused = taskserver("list", TASKSERVER_KEY=key)
    assert (refused.code, refused.err) == (77, "taskserver: this API key lacks the scope 'read'\n")

    rows = [line.split("\t") for line in taskserver("keys", "list").lines]
    assert [row[1:5] for row in rows] == [["admin", "admin", "admin", "valid"], ["ci", "team", "write", "valid"]]
    assert rows[0][6] == ""
    assert rows[1][5][:10] < rows[1][6][:10]

    assert taskserver("keys", "revoke", "ci").err == f"taskserver: key {rows[1][0]} (ci) is revoked\n"
    assert taskserver("keys", "revoke", rows[1][0]).code == 0
    assert taskserver("run", "--", "true", TASKSERVER_KEY=key).code == 77
    assert [line.split("\t")[4] for line in taskserver("keys", "list").lines] == ["valid", "revoked"]


def test_a_key_is_for_reading_and_writing_unless_told_otherwise(taskserver: Commands) -> None:
    assert "for read, write;" in taskserver.inside("keys", "create", "one").err
    assert (
        "for admin, read;" in taskserver.inside("keys", "create", "two", TASKSERVER_KEYS_CREATE_SCOPE="read admin").err
    )


def test_keys_refuses_what_cannot_be(taskserver: Commands) -> None:
    taskserver.inside("keys", "create", "ci")
    taken = taskserver.inside("keys", "create", "ci")
    assert taken.code == 65
    assert taken.err.startswith("taskserver: there is a key named 'ci' already")
    assert taskserver.inside("keys", "create", "a b").code == 65
    assert taskserver.inside("keys", "create", "x", "--expires-in", "soon").code == 2
    gone = taskserver.inside("keys", "revoke", "no/such key")
    assert (gone.code, gone.err) == (66, "taskserver: there is no API key 'no/such key'\n")


# --- where the key comes from -------------------------------------------------------


@pytest.fixture
def keyless(taskserver: Commands) -> Commands:
    """Commands that nobody has told a key."""
    del taskserver.environment["TASKSERVER_KEY"]
    return taskserver


def test_the_key_is_found_beside_the_database(keyless: Commands) -> None:
    assert keyless("list").code == 0  # in the working directory, under the default name
    keyless.server.key_file.rename(keyless.folder / "other.db.key")
    assert keyless("list").code == 78
    assert keyless("list", "--database", "sqlite:///other.db").code == 0
    assert keyless("list", TASKSERVER_DATABASE=f"sqlite:///{keyless.folder}/other.db").code == 0


def test_the_key_can_be_in_a_file(keyless: Commands) -> None:
    file = keyless.folder / "my.key"
    keyless.server.key_file.rename(file)

    assert keyless("list", "--key-file", str(file)).code == 0
    assert keyless("list", TASKSERVER_KEY_FILE=str(file)).code == 0
    assert keyless("list", "--key-file", str(file), TASKSERVER_KEY="x" * 40).code == 0  # the command line wins
    assert keyless("list", "--key", "x" * 40, TASKSERVER_KEY_FILE=str(file)).code == 77
    missing = keyless("list", "--key-file", "no.key")
    assert (missing.code, missing.err) == (78, "taskserver: there is no API key in no.key\n")


def test_without_any_key_a_command_says_how_to_give_one(keyless: Commands) -> None:
    keyless.server.key_file.unlink()
    done = keyless("list")

    ways = "--key, --key-file, TASKSERVER_KEY or TASKSERVER_KEY_FILE"
    assert (done.code, done.out) == (78, b"")
    assert done.err == f"taskserver: no API key: give {ways} (there is none in tasks.db.key either)\n"


# --- failures -----------------------------------------------------------------------


def test_every_command_tells_in_one_line_that_there_is_no_server(taskserver: Commands) -> None:
    taskserver.environment["TASKSERVER_URL"] = NO_SERVER
    for command in EVERY_COMMAND:
        done = taskserver.inside(*command)
        assert (done.code, done.out) == (69, b"")
        assert done.err == f"taskserver: cannot reach {NO_SERVER}: Connection refused\n"


def test_a_wrong_key_an_unknown_task_and_wrong_words_are_told_in_one_line(taskserver: Commands) -> None:
    unknown = "taskserver: the API key is unknown, revoked or expired\n"
    for command in EVERY_COMMAND:
        done = taskserver.inside(*command, TASKSERVER_KEY="x" * 40)
        assert (done.code, done.out, done.err) == (77, b"", unknown)
    for name in ("tail", "wait", "cancel"):
        done = taskserver.inside(name, "nosuch")
        assert (done.code, done.out, done.err) == (66, b"", "taskserver: there is no task 'nosuch'\n")
        bad = taskserver.inside(name, "a/b")
        assert (bad.code, bad.out) == (2, b"")
        assert bad.err == "taskserver: 'a/b' cannot be a task's id: an id is 1 to 64 of A-Z a-z 0-9 _ . ~ -\n"
    for arguments in (["--url", "127.0.0.1:8080"], ["--url", "http://"], ["--key", "two words"], ["--key", "ключ"]):
        done = taskserver.inside("list", *arguments)
        assert (done.code, done.err.count("\n")) == (2, 1), done


def test_ctrl_c_ends_a_command_quietly(taskserver: Commands) -> None:
    task_id = taskserver.server.new_task()
    taskserver.server.post(f"/v1/tasks/{task_id}/output", "one\n")
    with taskserver.start("tail", task_id) as tail:
        until(lambda: tail.out, "the first line")
        tail.signal(signal.SIGINT)
        done = tail.end()
    assert (done.code, done.err) == (130, "")


def test_a_disk_that_is_full_is_told_in_one_line(taskserver: Commands) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    taskserver.server.new_task()
    for command in (["list"], ["keys", "list"], ["list", "--json"]):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [*TASKSERVER, *command],
                env=taskserver.environment,
                stdout=full,
                stderr=subprocess.PIPE,
                timeout=60,
                check=False,
                text=True,
            )
        assert (done.returncode, done.stderr) == (74, "taskserver: No space left on device\n")
