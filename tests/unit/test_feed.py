"""Feed: which changes are news, to whom, and how much of it is remembered."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import pytest

from taskserver import feed as module
from taskserver.feed import Feed, Watched
from taskserver.model import Chunk, Place, Task, TaskState
from taskserver.store import Change, Store
from taskserver.wakeup import LocalWakeup
from tests.eventually import eventually

ANN, BOB, EVERYBODY = Watched("ann"), Watched("bob"), Watched(None)
LINES = Chunk(0, 1, b'"x"')


@pytest.fixture
def wakeup() -> LocalWakeup:
    return LocalWakeup()


@pytest.fixture
def feed(store: Store, wakeup: LocalWakeup) -> Feed:
    return Feed(store, wakeup, pause=0.0)


def task(task_id: str = "a", state: TaskState = TaskState.RUNNING, owner: str = "ann", **more: Any) -> Task:
    return Task(task_id, ord(task_id), owner, "", state, 0, **more)


def ids(feed: Feed, number: int, watched: Watched = EVERYBODY) -> list[str | None] | None:
    found = feed.since(number, watched)
    return None if found is None else [touched.task_id for touched in found]


async def test_a_task_is_news_when_its_state_changes_and_not_when_it_prints(feed: Feed) -> None:
    with feed.watching():
        feed.committed([Change(task(state=TaskState.QUEUED))])
        start = feed.last
        feed.committed([Change(task(), LINES)])
        assert feed.last == start + 1
        for _ in range(5):
            feed.committed([Change(task(), LINES)])
        assert feed.last == start + 1
        feed.committed([Change(task(cancel_requested=True))])
        feed.committed([Change(task(state=TaskState.CANCELLED), LINES)])
        feed.committed([Change(task(state=TaskState.CANCELLED), deleted=True)])
        assert feed.last == start + 4
        assert ids(feed, start) == ["a"], "each task once"
        assert ids(feed, feed.last) == []


async def test_each_sees_what_is_its_own(feed: Feed) -> None:
    run = uuid.uuid4()
    placed = replace(task("c"), place=Place(run, "build"))
    with feed.watching():
        start = feed.last
        feed.committed([Change(task("a")), Change(task("b", owner="bob")), Change(placed)])
        assert ids(feed, start) == ["a", "b", "c"]
        assert ids(feed, start, ANN) == ["a", "c"]
        assert ids(feed, start, BOB) == ["b"]
        assert ids(feed, start, Watched("ann", run)) == ["c"]
        assert ids(feed, start, Watched(None, run)) == ["c"]
        assert ids(feed, start, Watched("bob", run)) == []


async def test_who_is_concerned_is_woken(feed: Feed, wakeup: LocalWakeup) -> None:
    with feed.watching(), wakeup.subscribe(ANN.topic) as ann, wakeup.subscribe(BOB.topic) as bob:
        feed.committed([Change(task())])
        assert await ann.wait(0)
        assert not await bob.wait(0)


async def test_many_changes_are_one_wakeup(store: Store, wakeup: LocalWakeup) -> None:
    feed = Feed(store, wakeup, pause=0.5)
    with feed.watching(), wakeup.subscribe(ANN.topic) as ann:
        feed.committed([Change(task("a"))])
        assert await ann.wait(0)
        ann.clear()
        for name in "bcd":
            feed.committed([Change(task(name))])
        assert not await ann.wait(0), "the pause is not over"
        assert await ann.wait(20)
    feed.close()


async def test_what_nobody_watched_is_not_known(feed: Feed) -> None:
    with feed.watching():
        feed.committed([Change(task("a"))])
        epoch, number = feed.epoch, feed.last
    with feed.watching():
        assert (feed.epoch, ids(feed, number - 1)) == (epoch, ["a"]), "nothing happened in between"
    feed.committed([Change(task("b"))])
    with feed.watching():
        assert feed.epoch != epoch


async def test_only_so_much_is_remembered(store: Store, wakeup: LocalWakeup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 3)
    monkeypatch.setattr(module, "KNOWN", 2)
    feed = Feed(store, wakeup, pause=0.0)
    with feed.watching():
        start = feed.last
        for name in "abcd":
            feed.committed([Change(task(name))])
        assert ids(feed, start) is None
        assert ids(feed, start + 1) == ["b", "c", "d"]
        assert ids(feed, feed.last + 1) is None
        feed.committed([Change(task("d"), LINES)])
        assert feed.last == start + 4
        feed.committed([Change(task("a"), LINES)])
        assert feed.last == start + 5, "forgotten, so told once more"


async def test_a_feed_that_closes_wakes_nobody(store: Store, wakeup: LocalWakeup) -> None:
    feed = Feed(store, wakeup, pause=60)
    with feed.watching(), wakeup.subscribe(ANN.topic) as ann:
        feed.committed([Change(task("a"))])
        feed.committed([Change(task("b"))])
        await eventually(lambda: wakeup.subscribers(ANN.topic) == 1)
        feed.close()
        ann.clear()
        assert not await ann.wait(0.01)
