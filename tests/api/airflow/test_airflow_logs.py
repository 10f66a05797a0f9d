"""PROTOCOLS.md, B4: the log of a task of a run."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from taskserver.config import Memory, Settings
from taskserver.errors import StoreUnavailable
from taskserver.model import Scope
from tests.api.airflow.conversation import NDJSON, Airflow, Work, detail, faults, path_of
from tests.api.conftest import Serve

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
BAD_TOKEN = "Bad Signature. Please use only the tokens provided by the API."


def texts(found: Any) -> list[str]:
    """What the events say."""
    return [event["event"] for event in found["content"]]


# --- JSON ------------------------------------------------------------------------


async def test_lines_are_events(airflow: Airflow) -> None:
    work = await airflow.begin()
    task = await work.task("a")
    rows = [{"text": 'one "\N{SNOWMAN}" \t', "time": "2026-11-20T12:00:00.5Z"}, {"text": "", "stream": "stderr"}]
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    await airflow.api.json("POST", f"/tasks/{task}/output", data=data, headers={"Content-Type": NDJSON})
    found = await work.log("a")
    assert set(found) == {"content", "continuation_token"}
    one, two = found["content"]
    assert one == {"event": 'one "\N{SNOWMAN}" \t', "timestamp": "2026-11-20T12:00:00.500000Z", "stream": "stdout"}
    assert (two["event"], two["stream"]) == ("", "stderr")
    assert TIME.fullmatch(two["timestamp"])


async def test_the_token_goes_on_where_the_answer_ended(airflow: Airflow) -> None:
    work = await airflow.begin()
    task = await work.task("a")
    first = await work.log("a")
    assert first["content"] == []
    await airflow.api.append(task, "1", "2")
    second = await work.log("a", token=first["continuation_token"])
    assert texts(second) == ["1", "2"]
    assert texts(await work.log("a", token=second["continuation_token"])) == []
    await airflow.api.append(task, "3")
    assert texts(await work.log("a", token=second["continuation_token"])) == ["3"]
    assert texts(await work.log("a", token="")) == ["1", "2", "3"]
    await airflow.api.finish(task, output=["4"])
    last = await work.log("a", token=second["continuation_token"])
    assert texts(last) == ["3", "4"]
    assert last["continuation_token"] is None
    assert (await work.log("a"))["continuation_token"] is None


@pytest.mark.usefixtures("one_process")
async def test_a_poll_with_a_token_reads_no_storage(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    work = await airflow.begin()
    task = await work.task("a")
    await airflow.api.append(task, "x")
    token = (await work.log("a"))["continuation_token"]

    async def read(*_: object) -> Any:
        raise StoreUnavailable("the database failed")

    monkeypatch.setattr(airflow.api.services.store, "_query", read)
    assert await work.log("a", token=token) == {"content": [], "continuation_token": token}
    assert "failed" in (await work.log("a", status=503))["detail"]


async def test_tries_and_map_indexes_have_logs_of_their_own(airflow: Airflow) -> None:
    work = await airflow.begin(mapped=("m",))
    for name, index, number in (("a", -1, 1), ("a", -1, 2), ("m", 0, 1), ("m", 3, 1)):
        task = await work.task(name, index, number)
        await airflow.api.append(task, f"{name} {index} {number}")
    assert texts(await work.log("a")) == ["a -1 1"]
    assert texts(await work.log("a", 2)) == ["a -1 2"]
    assert texts(await work.log("m", map_index=3)) == ["m 3 1"]
    assert texts(await work.log("m", map_index=0)) == ["m 0 1"]


async def test_a_large_log_comes_whole(serve: Serve) -> None:
    airflow = Airflow(await serve(Settings(memory=Memory(task_bytes=1024, page_bytes=4096))))
    work = await airflow.begin()
    lines = [f"line {number} \N{SNOWMAN}" for number in range(3000)]
    task = await work.task("a")
    await airflow.api.append(task, *lines)
    assert texts(await work.log("a")) == lines
    await airflow.api.finish(task)
    async with work.following("a") as following:
        assert [event["event"] async for event in following] == lines


# --- NDJSON ----------------------------------------------------------------------


async def test_a_running_tasks_log_is_followed_to_its_end(airflow: Airflow) -> None:
    work = await airflow.begin()
    task = await work.task("a")
    await airflow.api.append(task, "1")
    async with work.following("a") as lines:
        assert (await lines.next())["event"] == "1"
        await airflow.api.append(task, "2", "3")
        assert [(await lines.next())["event"] for _ in range(2)] == ["2", "3"]
        await airflow.api.finish(task, output=["4"])
        assert [event["event"] async for event in lines] == ["4"]


async def test_the_headers_token_is_where_the_stream_begins(airflow: Airflow) -> None:
    work = await airflow.begin()
    task = await work.task("a")
    await airflow.api.append(task, "1", "2")
    token = (await work.log("a"))["continuation_token"]
    async with work.following("a", token=token) as lines:
        assert lines.response.headers["Airflow-Continuation-Token"] == token
        await airflow.api.finish(task, output=["3"])
        assert [event["event"] async for event in lines] == ["3"]
    async with work.following("a") as lines:
        assert "Airflow-Continuation-Token" not in lines.response.headers, "the task has ended"
        assert [event["event"] async for event in lines] == ["1", "2", "3"]


async def test_an_empty_log_that_is_followed_begins_at_once(airflow: Airflow) -> None:
    work = await airflow.begin()
    task = await work.task("a")
    async with work.following("a") as lines:
        await airflow.api.finish(task)
        assert [event async for event in lines] == []


async def test_what_breaks_a_followed_log_off(airflow_admin: Airflow, airflow: Airflow) -> None:
    work = await airflow.begin()
    await work.task("a")
    colleague = await airflow_admin.with_key("colleague", owner="ann")
    theirs = Work(colleague, work.id, work.run_id, work.claim)
    async with work.following("a") as mine, theirs.following("a") as other:
        await airflow_admin.api.json("DELETE", f"/keys/{colleague.api.key_id}")
        assert await other.breaks_off() == []
        await work.delete()
        assert await mine.breaks_off() == []
    work = await airflow.begin()
    await work.task("a")
    async with work.following("a") as lines:
        airflow.api.services.waits.drain()
        assert await lines.breaks_off() == []


# --- what is refused -------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("application/json, application/x-ndjson", "application/json"),
        ("text/html, application/x-ndjson;q=0.9, */*;q=0.8", NDJSON),
        ("APPLICATION/X-NDJSON", NDJSON),
    ],
)
async def test_accept_chooses_the_format(airflow: Airflow, accept: str, kind: str) -> None:
    work = await airflow.begin()
    await work.done("a", output=["x"])
    answer = await airflow.ask("GET", f"{work.path}/taskInstances/a/logs/1", headers={"Accept": accept})
    assert (answer.status, answer.headers["Content-Type"]) == (200, kind)


@pytest.mark.parametrize("accept", ["text/plain", "text/html, image/png", "application", "json"])
async def test_other_formats_there_are_none(airflow: Airflow, accept: str) -> None:
    answer = await airflow.ask("GET", "/dags/x/dagRuns/y/taskInstances/z/logs/bad", headers={"Accept": accept})
    assert detail(answer, 406) == "Only application/json or application/x-ndjson is supported"


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("/x", ("int_parsing", ["path", "try_number"])),
        ("/1.5", ("int_parsing", ["path", "try_number"])),
        ("/-1", ("greater_than_equal", ["path", "try_number"])),
        ("/1?map_index=x", ("int_parsing", ["query", "map_index"])),
        ("/1?map_index=", ("int_parsing", ["query", "map_index"])),
    ],
)
async def test_numbers_that_are_none(airflow: Airflow, path: str, fault: tuple[str, list[str]]) -> None:
    assert faults(await airflow.ask("GET", f"/dags/x/dagRuns/y/taskInstances/z/logs{path}")) == [fault]


async def test_what_is_not_there(airflow: Airflow, airflow_admin: Airflow) -> None:
    bob = await airflow_admin.with_key("bob")
    theirs = await bob.begin()
    await theirs.task("a")
    token = (await theirs.log("a"))["continuation_token"]
    logs = f"{theirs.path}/taskInstances/a/logs/1"
    for path in (
        f"{path_of('none')}/taskInstances/a/logs/1",
        logs,
        f"{logs}?token={token}",
        f"{theirs.path}/taskInstances/%2E%2E/logs/1",
    ):
        assert detail(await airflow.ask("GET", path), 404) == "TaskInstance not found"
    for path in (f"{logs[:-1]}2", f"{logs}?map_index=0", f"{logs[:-1]}0", f"{logs}?map_index={'9' * 30}"):
        assert detail(await bob.ask("GET", path), 404) == "TaskInstance not found"
    await theirs.delete()
    assert detail(await bob.ask("GET", f"{logs}?token={token}"), 404) == "TaskInstance not found"


async def test_only_the_tokens_of_the_log_itself_are_taken(airflow: Airflow) -> None:
    work = await airflow.begin()
    task = await work.task("a")
    await work.task("b")
    alone = await airflow.api.create("x")
    other = (await work.log("b"))["continuation_token"]
    forged = [
        other,
        "x",
        "%ff",
        "\N{SNOWMAN}",
        "=",
        (await airflow.login("ann", airflow.api.key)),
        *(_encoded(text) for text in (f"1 {task}", f"-1 {task}", f"0 {alone}", f"0{task}", f"{'9' * 20} {task}", "")),
    ]
    for token in forged:
        assert (await work.log("a", status=400, token=token or "="))["detail"] == BAD_TOKEN, token
    assert texts(await work.log("a", token=_encoded(f"0 {task}"))) == [], "well made is as good as given"


def _encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


async def test_a_log_needs_the_right_to_read(airflow: Airflow) -> None:
    work = await airflow.begin()
    await work.task("a")
    writer = await airflow.with_key("writer", Scope.WRITE, owner="ann")
    answer = await writer.ask("GET", f"{work.path}/taskInstances/a/logs/1")
    assert detail(answer, 403) == "Forbidden"
