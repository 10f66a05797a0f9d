"""GroupCommitter: what is submitted together is committed together, and fails alone."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from taskserver.errors import Conflict, StoreFull, StoreUnavailable
from taskserver.meters import Meters
from taskserver.stores.sqlite import committer as committer_module
from taskserver.stores.sqlite.committer import GroupCommitter


class Notes:
    """A transaction that writes numbers into a table, and its changes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.changes: list[int] = []
        self.pending: list[int] = []

    def write(self, number: int) -> int:
        """Write a number with the flush."""
        self.pending.append(number)
        self.changes.append(number)
        return number

    def flush(self) -> None:
        self.connection.executemany("INSERT INTO note VALUES (?)", [(number,) for number in self.pending])

    def committed(self) -> list[int]:
        return self.changes


class Scene:
    """A committer on a file, and what it did."""

    def __init__(self, path: Path) -> None:
        self.path = path
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE note (number INTEGER CHECK (number < 1000))")
        self.groups: list[Sequence[int]] = []
        self.begun = 0
        self.meters = Meters()
        self.committer = GroupCommitter(connection, self._begin, self.report, self.meters)

    def _begin(self, connection: sqlite3.Connection) -> Notes:
        self.begun += 1
        return Notes(connection)

    def report(self, changes: Sequence[int]) -> None:
        self.groups.append(list(changes))

    def stored(self) -> list[int]:
        """What stands in the file, as another process sees it."""
        connection = sqlite3.connect(self.path)
        rows = connection.execute("SELECT number FROM note ORDER BY rowid").fetchall()
        connection.close()
        return [number for (number,) in rows]

    def submit(self, number: int) -> asyncio.Future[int]:
        return self.committer.submit(lambda notes: notes.write(number))

    def hold(self) -> Callable[[], None]:
        """Keep the thread busy, so that what is submitted next gathers; call the answer to let it go."""
        release = threading.Event()
        self.committer.submit(lambda notes: release.wait(20))
        return release.set


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    opened = Scene(tmp_path / "notes.db")
    yield opened
    await opened.committer.close()


async def test_an_answer_means_that_it_is_durable(scene: Scene) -> None:
    for number in range(5):
        assert await scene.submit(number) == number
        assert scene.stored()[-1] == number
        assert scene.groups[-1] == [number]


async def test_what_waits_is_committed_together_and_in_order(scene: Scene) -> None:
    release = scene.hold()
    futures = [scene.submit(number) for number in range(100)]
    release()
    assert await asyncio.gather(*futures) == list(range(100))
    assert scene.stored() == list(range(100))
    # The one that held the thread, and one or two groups behind it.
    assert scene.begun <= 3
    assert sum(scene.meters.groups.counts()) == sum(scene.meters.commits.counts()) == scene.begun
    assert scene.meters.groups.sum() == 101
    assert [number for group in scene.groups for number in group] == list(range(100))


async def test_a_group_is_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer_module, "MAX_GROUP", 10)
    release = scene.hold()
    futures = [scene.submit(number) for number in range(35)]
    release()
    await asyncio.gather(*futures)
    assert max(map(len, scene.groups)) <= 10
    assert scene.stored() == list(range(35))


async def test_changes_are_reported_before_the_answers_and_on_the_loop(scene: Scene) -> None:
    order: list[int | str] = []
    threads: set[threading.Thread] = set()

    def report(changes: Sequence[int]) -> None:
        threads.add(threading.current_thread())
        order.extend(f"report {number}" for number in changes)

    scene.committer._report = report
    release = scene.hold()
    futures = [scene.submit(number) for number in range(3)]
    for future in futures:
        future.add_done_callback(lambda future: order.append(future.result()))
    release()
    await asyncio.gather(*futures)
    await asyncio.sleep(0)
    for number in range(3):
        assert order.index(f"report {number}") < order.index(number)
    assert threads == {threading.main_thread()}


async def test_nothing_is_reported_where_nothing_changed(scene: Scene) -> None:
    assert await scene.committer.submit(lambda notes: "looked") == "looked"
    assert scene.groups == []


async def test_a_refusal_is_its_callers_alone(scene: Scene) -> None:
    def refuse(notes: Notes) -> None:
        raise Conflict("no")

    release = scene.hold()
    futures: list[asyncio.Future[Any]] = [scene.submit(1), scene.committer.submit(refuse), scene.submit(2)]
    release()
    answers = await asyncio.gather(*futures, return_exceptions=True)
    assert (answers[0], type(answers[1]), answers[2]) == (1, Conflict, 2)
    assert scene.stored() == [1, 2]
    assert scene.begun <= 3  # no group was run again for it


async def test_a_bug_in_one_operation_does_not_spoil_its_group(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    def broken(notes: Notes) -> None:
        notes.write(666)
        raise ZeroDivisionError("a bug")

    release = scene.hold()
    futures: list[asyncio.Future[Any]] = [scene.submit(1), scene.committer.submit(broken), scene.submit(2)]
    release()
    answers = await asyncio.gather(*futures, return_exceptions=True)
    assert (answers[0], type(answers[1]), answers[2]) == (1, StoreUnavailable, 2)
    assert scene.stored() == [1, 2]
    assert [number for group in scene.groups for number in group] == [1, 2]
    assert "ZeroDivisionError" in caplog.text
    assert scene.meters.store_retries.value() == 1
    assert scene.meters.store_errors.value() == 1


async def test_a_failure_while_flushing_does_not_spoil_the_group(scene: Scene) -> None:
    release = scene.hold()
    futures = [scene.submit(1), scene.submit(1000), scene.submit(2)]
    release()
    answers = await asyncio.gather(*futures, return_exceptions=True)
    assert (answers[0], type(answers[1]), answers[2]) == (1, StoreUnavailable, 2)
    assert scene.stored() == [1, 2]
    assert await scene.submit(3) == 3


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (sqlite3.OperationalError("database or disk is full"), StoreFull),
        (sqlite3.OperationalError("disk I/O error"), StoreUnavailable),
        (sqlite3.OperationalError("database is locked"), StoreUnavailable),
    ],
)
async def test_a_failing_database_fails_the_group_once_and_then_recovers(
    scene: Scene, error: sqlite3.Error, kind: type[Exception]
) -> None:
    attempts = 0

    def fail(notes: Notes) -> None:
        nonlocal attempts
        attempts += 1
        raise error

    release = scene.hold()
    futures: list[asyncio.Future[Any]] = [scene.submit(1), scene.committer.submit(fail), scene.submit(2)]
    release()
    answers = await asyncio.gather(*futures, return_exceptions=True)
    failed = [answer for answer in answers if isinstance(answer, Exception)]
    assert type(answers[1]) is kind
    assert {type(answer) for answer in failed} == {kind}
    assert attempts == 1
    assert scene.stored() == [answer for answer in answers if not isinstance(answer, BaseException)]
    assert await scene.submit(3) == 3


async def test_giving_up_does_not_take_it_back_and_disturbs_nobody(scene: Scene) -> None:
    release = scene.hold()
    futures = [scene.submit(number) for number in range(4)]
    futures[1].cancel()
    release()
    assert [await future for future in (futures[0], *futures[2:])] == [0, 2, 3]
    assert scene.stored() == [0, 1, 2, 3]


async def test_the_loop_goes_on_while_a_commit_takes_its_time(scene: Scene) -> None:
    release = scene.hold()
    future = scene.submit(1)
    for _ in range(100):
        await asyncio.sleep(0)
    assert not future.done()
    release()
    assert await future == 1


async def test_closing_commits_what_waits_and_refuses_what_comes(scene: Scene) -> None:
    release = scene.hold()
    futures = [scene.submit(number) for number in range(10)]
    closing = asyncio.ensure_future(scene.committer.close())
    await asyncio.sleep(0)
    late = scene.submit(99)
    release()
    await closing
    assert await asyncio.gather(*futures) == list(range(10))
    with pytest.raises(StoreUnavailable):
        await late
    assert scene.stored() == list(range(10))
    await scene.committer.close()


async def test_a_listener_that_fails_does_not_keep_callers_waiting(scene: Scene) -> None:
    def broken(changes: Sequence[int]) -> None:
        raise RuntimeError("a bug of the listener's")

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    scene.committer._report = broken
    done, _ = await asyncio.wait([scene.submit(1)], timeout=20)
    assert len(done) == 1
