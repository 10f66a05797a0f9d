"""Unfinished lines: what of them is shown, what is kept in memory, and how each format tells it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from httpx import Response
from httpx_sse import EventSource
from hypothesis import given
from hypothesis import strategies as st

from taskserver import livepartials as module
from taskserver.config import PARTIAL_BYTES
from taskserver.livepartials import LivePartials, partial_topic
from taskserver.model import Task, TaskState
from taskserver.partial import WINDOW, Partial, Unfinished, unfinished_text
from taskserver.store import Change, Store
from taskserver.streams import NDJSON, SSE, WITH_PARTIALS
from taskserver.wakeup import LocalWakeup

TASK = Task("build", 7, "ann", "", TaskState.RUNNING, 0, last=3)
BAR = Partial(7, 3, Unfinished("", "50%"))


@pytest.mark.parametrize(
    ("rest", "shown"),
    [
        (b"", ""),
        (b"begun", "begun"),
        (b" kept as it is ", " kept as it is "),
        (b"10%\r50%", "50%"),
        (b"10%\r50%\r", "50%"),
        (b"\r10%\r50%\r\r", "50%"),
        (b"10%\r\x1b[32m50%\x1b[0m", "\x1b[32m50%\x1b[0m"),
        (b"\x1b[32m\r10%\r20%", "\x1b[32m20%"),
        (b"\x1b[1m\x1b[32m10%\x1b[0m\x1b[31m\r20%", "\x1b[31m20%"),
        (b"\x1b[32m\x1b[31m" * 10 + b"\r20%", "20%"),
        (b"\r", ""),
        (b"50%\r   \r", ""),
        (b"50%\r\x1b[2K", ""),
        (b"a\0b", "ab"),
        (b"\xff!", "\ufffd!"),
        ("half of an é".encode()[:-1], "half of an "),
        (b"50%\r" + b"x" * 10, "x" * 10),
        (b"10%\r20%\r" + b"x" * WINDOW, "x" * PARTIAL_BYTES),
        (b"abc" + b"\r" * 2 * WINDOW, "abc"),
        (b"x" * (WINDOW + 1), "x" * PARTIAL_BYTES),
        (b"begin " + b"x" * WINDOW, "begin " + "x" * (PARTIAL_BYTES - 6)),
        (b"x" * WINDOW + b"\rbar", "bar"),
    ],
)
def test_what_stands_of_a_line(rest: bytes, shown: str) -> None:
    assert unfinished_text(rest) == shown
    assert unfinished_text(bytearray(rest)) == shown


@given(
    st.lists(
        st.sampled_from([b"a", b"\r", b"\x1b[32m", b"\x1b[0m", b"\xff", "é".encode(), "𝄞".encode(), b"\0", b"x" * 2000])
    ).map(b"".join)
)
def test_it_is_short_and_holds_nothing_that_does_not_get_through(rest: bytes) -> None:
    shown = unfinished_text(rest)
    assert len(shown.encode()) <= PARTIAL_BYTES
    assert not set("\0\n\r") & set(shown)
    assert unfinished_text(shown.encode()) == shown, "who is told it may tell it again"


def test_it_stands_behind_the_line_that_it_was_told_behind_and_no_other() -> None:
    assert BAR.stands_in(TASK)
    assert not BAR.stands_in(replace(TASK, last=4))
    assert not BAR.stands_in(replace(TASK, log=8)), "another task with the same id"
    assert not BAR.stands_in(replace(TASK, state=TaskState.FAILED))


@pytest.fixture
def wakeup() -> LocalWakeup:
    return LocalWakeup()


@pytest.fixture
def partials(store: Store, wakeup: LocalWakeup) -> LivePartials:
    found = LivePartials(store, wakeup)
    store.listen(found.committed)
    return found


async def test_the_one_told_last_is_found_and_its_followers_are_woken(
    partials: LivePartials, wakeup: LocalWakeup
) -> None:
    with wakeup.subscribe(partial_topic(TASK.log)) as follower, wakeup.subscribe(partial_topic(8)) as other:
        partials.tell(TASK.log, 3, Unfinished("10%", ""))
        partials.tell(TASK.log, 3, Unfinished("20%", "so far"))
        assert follower.clear() is not None
        assert other.clear() is None
    assert partials.find(TASK) == Partial(7, 3, Unfinished("20%", "so far"))
    assert partials.find(replace(TASK, last=4)) is None


async def test_what_is_told_late_changes_nothing(partials: LivePartials, wakeup: LocalWakeup) -> None:
    partials.tell(TASK.log, 3, Unfinished("20%"))
    with wakeup.subscribe(partial_topic(TASK.log)) as follower:
        for late in ("10%", ""):
            partials.tell(TASK.log, 2, Unfinished(late))
        assert follower.clear() is None
    assert partials.find(TASK) == Partial(7, 3, Unfinished("20%"))


async def test_that_nothing_stands_any_more_is_told_by_whoever_hears_it(store: Store, wakeup: LocalWakeup) -> None:
    forgetful, other = LivePartials(store, wakeup), LivePartials(store, wakeup)
    store.listen(other.committed)
    other.tell(TASK.log, 3, Unfinished("20%"))
    forgetful.tell(TASK.log, 3, Unfinished())
    assert other.find(TASK) is None


async def test_what_stands_no_more_is_forgotten_when_it_is_asked_for(partials: LivePartials) -> None:
    for later in (replace(TASK, last=4), replace(TASK, state=TaskState.FAILED)):
        partials.tell(TASK.log, 3, Unfinished("20%"))
        behind = replace(TASK, last=2)
        assert (partials.find(behind), partials.ahead_of(behind), partials.ahead_of(TASK)) == (None, True, False)
        assert partials.find(TASK) is not None
        assert partials.find(later) is None
        assert partials.find(TASK) is None


async def test_what_has_ended_is_forgotten(partials: LivePartials) -> None:
    for gone in (Change(replace(TASK, state=TaskState.SUCCESS)), Change(TASK, deleted=True)):
        partials.tell(TASK.log, 3, Unfinished("10%", ""))
        partials.committed([Change(TASK)])
        assert partials.find(TASK) is not None
        partials.committed([gone])
        assert partials.find(TASK) is None


async def test_memory_is_bounded(partials: LivePartials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOTAL_BYTES", 10 * (module.ENTRY_COST + module.CHARACTER * 100))
    tasks = [replace(TASK, log=number) for number in range(20)]
    for task in tasks:
        partials.tell(task.log, 3, Unfinished("x" * 100))
    partials.tell(10, 3, Unfinished("y" * 100))  # moves, and so stays
    partials.tell(0, 3, Unfinished("x" * 100))
    assert [task.log for task in tasks if partials.find(task)] == [0, 10, *range(12, 20)]


def test_each_format_tells_it_as_it_tells_other_things() -> None:
    odd = Partial(7, 3, Unfinished('say "hi" \u2028', "\x1b[31m50%"))
    for partial, told in [
        (odd, {"stdout": odd.unfinished.stdout, "stderr": odd.unfinished.stderr}),
        (None, {"stdout": "", "stderr": ""}),
    ]:
        ndjson, sse = WITH_PARTIALS[NDJSON].partial, WITH_PARTIALS[SSE].partial
        assert ndjson is not None
        assert sse is not None
        assert ndjson(partial).count(b"\n") == 1
        assert json.loads(ndjson(partial)) == {"partial": told}
        (event,) = EventSource(
            Response(200, content=sse(partial), headers={"Content-Type": "text/event-stream"})
        ).iter_sse()
        assert (event.event, event.id, json.loads(event.data)) == ("partial", "", told)
