"""Copying: everything arrives, whatever it was copied from and to, and a copy that was interrupted goes on."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from taskserver.dagmodel import RunState
from taskserver.encoding import encode_records
from taskserver.errors import CannotCopy, Differs, StoreInUse, StoreOpenError
from taskserver.model import ApiKey, NewTask, Scope, Stream, TaskFilter
from taskserver.stores import copy_database, open_store
from taskserver.stores.archive import Kind, Size
from taskserver.stores.copying import Summary
from tests.contract.helpers import FAILURE, NOW, SECOND, create, finished, lines, numbered, sides, texts
from tests.contract.run_helpers import CLAIM, add_task, claim, events, register, trigger
from tests.postgres import PostgresServer

SECRET = b"what signs tokens"


@pytest.fixture(params=["sqlite-postgres", "postgres-sqlite", "sqlite-sqlite", "postgres-postgres"])
async def way(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """The URLs of two empty databases."""
    urls = []
    for name, kind in zip(("source", "target"), request.param.split("-"), strict=True):
        if kind == "sqlite":
            urls.append(f"sqlite:///{tmp_path}/{name}.db")
        else:
            server: PostgresServer = request.getfixturevalue("postgres")
            urls.append(await server.database(tmp_path / name))
    return urls[0], urls[1]


def quiet(what: str, done: Size, whole: Size) -> None:
    assert done.lines <= whole.lines


async def copied(source: str, target: str, **options: bool) -> Summary:
    return await copy_database(source, target, quiet, **options)


async def fill(url: str) -> None:
    """Some of everything."""
    store = await open_store(url)
    key = ApiKey("0123456789abcdef", "ann", "ann", frozenset(Scope), bytes(range(32)), NOW, NOW + 5)
    await store.add_key(key)
    await store.add_key(ApiKey("1" * 16, "bob", "bob", frozenset({Scope.READ}), b"\0" * 32, NOW))
    await store.revoke_key("1" * 16, NOW + 1)
    await store.keep_secret("token", SECRET)
    await store.create_task(NewTask("queued", "ann", "nightly ü'\"", 5 * SECOND, {"a=b": "ü\n\"'{}", "": "\\"}), NOW)
    await create(store, "live", lease=5)
    for first in range(0, 300, 3):
        await store.append("live", lines(*numbered(first, first + 3)), None, NOW + first)
    await store.request_cancel("live", NOW)
    sealed = await finished(store, "sealed", *numbered(0, 3000), "ü \0 \ud7ff \U0001f600", '\t"\\', "")
    await store.seal(sealed.log)
    await create(store, "failed")
    records = [(f"{number}", NOW + number, Stream(number % 2)) for number in range(100)]
    await store.append("failed", encode_records(records), None, NOW)
    await store.finish("failed", FAILURE, NOW + 7)
    await create(store, "deleted")
    for number in range(30):
        await store.append("deleted", lines(f"{number}" + "x" * 60_000), None, NOW)
    await store.finish("deleted", FAILURE, NOW)
    await store.delete_task("deleted")
    assert await store.sweep()  # its output is half gone
    await register(store, retries=2)
    await trigger(store, run_id="done", conf=b'{"x":[1]}', metadata=b"{}", tag="v1", note="n", logical_date=NOW)
    run = await claim(store)
    assert run is not None
    task = await add_task(store, run, "load", map_index=3, try_number=2)
    await store.finish(task.id, FAILURE, NOW, lines("x"))
    await store.finish_run(run.id, CLAIM, RunState.FAILED, "no luck", NOW + 9)
    await trigger(store, run_id="waiting")
    await store.close()


async def story(url: str) -> dict[str, Any]:
    """All that a store tells, by what it is."""
    store = await open_store(url)
    try:
        tasks = await store.list_tasks(TaskFilter(), 1000)
        runs, total = await store.list_runs("etl", 100, 0)
        assert total == len(runs)
        return {
            "tasks": [(task.version, await store.get_task(task.id)) for task in tasks],
            "texts": [await texts(store, task.log) for task in tasks],
            "sides": [await sides(store, task.log) for task in tasks],
            "runs": [(run.version, run) for run in runs],
            "events": [await events(store, run) for run in runs],
            "run tasks": [await store.run_tasks(run.id, None) for run in runs],
            "dags": await store.list_dags(None),
            "keys": [(key, key.hash) for key in await store.list_keys()],
            "unsealed": await store.unsealed(100),
            "secret": await store.keep_secret("token", b"another"),
        }
    finally:
        await store.close()


async def test_everything_arrives_and_works_go_on(way: tuple[str, str]) -> None:
    source, target = way
    await fill(source)
    before = await story(source)
    summary = await copied(source, target)
    assert await story(target) == before == await story(source)
    assert before["secret"] == SECRET
    left = summary.lines - sum(map(len, before["texts"])) - sum(map(len, before["events"]))
    assert 0 < left < 30  # of the deleted one
    assert summary.records == {
        Kind.KEYS: 2, Kind.SECRETS: 1, Kind.DAGS: 1, Kind.RUNS: 2, Kind.TASKS: 5, Kind.DISCARDED: 1,
    }  # fmt: skip
    assert (await copied(source, target, verify_only=True)) == summary

    store = await open_store(target)
    newest = (await store.list_tasks(TaskFilter(), 1))[0]
    new = await create(store, "new")
    assert new.log > max(newest.log, *(run.log for _, run in before["runs"]))
    assert (await store.append("live", lines("more"), 300, NOW)).cancel_requested
    assert (await store.append("live", lines(*numbered(3, 6)), 3, NOW)).last == 6  # a repeat from before
    assert {task.id for task in await store.expire_leases(NOW + 10 * SECOND)} == {"queued", "live"}
    assert (await claim(store, "another claim of a worker")) is not None
    for task in await store.unsealed(100):
        await store.seal(task.log)
    while await store.sweep():
        pass
    live = await store.get_task("live")
    assert await texts(store, live.log) == [*numbered(0, 300), "more"]
    await store.close()
    with pytest.raises(Differs):
        await copied(source, target, verify_only=True)


async def test_nothing_becomes_nothing(way: tuple[str, str]) -> None:
    source, target = way
    await (await open_store(source)).close()
    summary = await copied(source, target)
    assert (summary.lines, sum(summary.records.values())) == (0, 0)
    store = await open_store(target)
    assert (await create(store)).log == 1
    await store.close()


async def test_there_and_back_is_the_same(way: tuple[str, str], tmp_path: Path) -> None:
    source, target = way
    await fill(source)
    there = await copied(source, target)
    back = f"sqlite:///{tmp_path}/back.db"
    assert await copied(target, back) == there
    assert await copied(source, back, verify_only=True) == there


async def test_a_target_that_holds_something_is_refused_and_left_alone(way: tuple[str, str]) -> None:
    source, target = way
    await fill(source)
    store = await open_store(target)
    await finished(store, "theirs", "a")
    await store.close()
    for options in ({}, {"restart": True}):
        with pytest.raises(CannotCopy, match="not empty"):
            await copied(source, target, **options)
    store = await open_store(target)
    assert [task.id for task in await store.list_tasks(TaskFilter(), 10)] == ["theirs"]
    await store.close()


class Interrupted(Exception):
    """Stops a copy in the middle."""


async def interrupt(source: str, target: str, after: int = 1) -> None:
    """Copy until ``after`` pages of output are there."""
    pages = 0

    def report(what: str, done: Size, whole: Size) -> None:
        nonlocal pages
        pages += done.chunks > 0
        if pages == after or what == "comparing":
            raise Interrupted

    with pytest.raises(Interrupted):
        await copy_database(source, target, report)


async def test_an_interrupted_copy_is_not_served_and_goes_on(
    way: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = way
    for backend in {urlsplit(url).scheme.replace("postgresql", "postgres") for url in way}:
        monkeypatch.setattr(f"taskserver.stores.{backend}.archive.PAGE_ROWS", 7)
    await fill(source)
    for pages in (3, 2):
        await interrupt(source, target, pages)
        with pytest.raises(StoreOpenError, match="a copy into it is not finished"):
            await open_store(target)
        with pytest.raises(CannotCopy, match="itself a copy"):
            await copied(target, source)
    before = await story(source)
    summary = await copied(source, target)
    assert await story(target) == before
    assert await copied(source, target, verify_only=True) == summary


async def test_a_source_that_has_changed_meanwhile_is_noticed(way: tuple[str, str]) -> None:
    source, target = way
    await fill(source)
    await interrupt(source, target)
    store = await open_store(source)
    await store.append("live", lines("more"), None, NOW)
    await store.close()
    with pytest.raises(CannotCopy, match="has changed since"):
        await copied(source, target)
    await copied(source, target, restart=True)
    assert await story(target) == await story(source)


async def test_databases_that_are_in_use_are_refused(way: tuple[str, str]) -> None:
    source, target = way
    await fill(source)
    for url in way:
        store = await open_store(url)
        wakeup = await store.open_wakeup()
        with pytest.raises(StoreInUse):
            await copied(source, target)
        await wakeup.close()
        await store.close()
    with pytest.raises(StoreInUse):
        await copied(source, source)


async def test_a_node_does_not_start_while_its_database_is_copied(postgres: PostgresServer, tmp_path: Path) -> None:
    url = await postgres.database(tmp_path)
    await fill(url)

    from taskserver.stores.postgres.archive import PostgresArchive  # which needs a driver

    copying = await PostgresArchive.open(url, create=False)
    with pytest.raises(StoreOpenError, match="is being copied"):
        await open_store(url)
    await copying.close()
    await (await open_store(url)).close()


async def test_one_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreOpenError, match="there is no such database"):
        await copied(f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db")
    await (await open_store(f"sqlite:///{tmp_path}/a.db")).close()
    with pytest.raises(StoreOpenError, match="there is no such database"):
        await copied(f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db", verify_only=True)
    assert "b.db" not in [entry.name for entry in os.scandir(tmp_path)]


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        ("UPDATE task SET error = 'x' WHERE id = 'failed'", "tasks: not the same under"),
        ("UPDATE task SET version = version + 1 WHERE id = 'live'", "tasks: not the same under"),
        ("DELETE FROM task WHERE id = 'failed'", "tasks: not the same ones"),
        ("UPDATE api_key SET hash = x'00' WHERE name = 'ann'", "keys: not the same under '0123456789abcdef'"),
        ("UPDATE run SET note = 'x' WHERE run_id = 'done'", "runs: not the same under"),
        ("DELETE FROM secret", "secrets: not the same ones"),
        ("UPDATE chunk SET payload = CAST(replace(payload, 'line 4', 'line 5') AS BLOB) WHERE key = {key}", "text"),
        ("UPDATE chunk SET side = x'0000000000000000' WHERE key = {key}", "streams or times"),
        ("DELETE FROM chunk WHERE key = {key}", "lines are missing or repeated"),
        ("DELETE FROM chunk WHERE key = (SELECT max(key) FROM chunk)", "not the same logs"),
        ("UPDATE chunk SET payload = 'x' WHERE key = {key}", "is damaged"),
    ],
)
async def test_whatever_differs_is_found(tmp_path: Path, damage: str, word: str) -> None:
    source, target = f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db"
    await fill(source)
    await copied(source, target)
    with closing(sqlite3.connect(tmp_path / "b.db", isolation_level=None)) as connection:
        log = connection.execute("SELECT log FROM task WHERE id = 'live'").fetchone()[0]
        assert connection.execute(damage.format(key=log << 32 | 3)).rowcount == 1
    with pytest.raises(Differs, match=word):
        await copied(source, target, verify_only=True)


KILLED = """
import asyncio, os, signal, sys
from taskserver.stores import archive, copy_database
archive.PAGE_ROWS = 50  # before any backend is loaded
def report(what, done, whole):
    if what == "copying" and done.chunks >= int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(copy_database(sys.argv[1], sys.argv[2], report))
"""


async def test_a_copy_that_is_killed_again_and_again_goes_on(way: tuple[str, str]) -> None:
    source, target = way
    store = await open_store(source)
    await create(store, "other")
    for first in range(1000):
        await store.append("other", lines(f"line {first}"), first, NOW)
    await store.close()
    for chunks in (0, 100, 500, 900):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, source, target, str(chunks))
        assert await asyncio.wait_for(process.wait(), 60) == -9
        with pytest.raises(StoreOpenError, match="not finished"):
            await open_store(target)
    summary = await copied(source, target)
    assert summary.lines == 1000
    assert await story(target) == await story(source)
