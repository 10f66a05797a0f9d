"""wire: everything that processes say to each other arrives as it was, in whatever pieces."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from taskserver import errors
from taskserver.dagmodel import DagTask, NewDag, NewRun, Run, RunState
from taskserver.errors import TaskServerError
from taskserver.model import ApiKey, Chunk, Lines, NewTask, Outcome, Place, Scope, Task, TaskState
from taskserver.store import AnyChange, Appended, Change, KeyChange, RunChange
from taskserver.stores.sqlite.tasks import TaskWrites
from taskserver.stores.sqlite.transaction import Operation
from taskserver.stores.sqlite.wire import CommitCount, FrameReader, answers_frame, calls_frame, changes_frame

NOW = 1_800_000_000_000_000
RUN = uuid.UUID(int=7)
TASK = Task(
    "build", 3, "ann", "x", TaskState.FAILED, NOW, 5, 1, "no", b"{}", {"a": "b"}, version=9, place=Place(RUN, "t")
)
A_RUN = Run(
    *(RUN, 4, "ann", "etl", "r1", RunState.RUNNING, (DagTask("a"),), b"{}", 1, NOW, NOW), note="ü", last=3, version=4
)
CHUNK = Chunk(4, 1, b'"x"', b"side")


def kinds(base: type[TaskServerError]) -> Iterator[type[TaskServerError]]:
    """An error and all that are derived from it."""
    yield base
    for kind in base.__subclasses__():
        yield from kinds(kind)


ERRORS = [kind for kind in kinds(TaskServerError) if kind.__module__ == errors.__name__]


def received(frame: bytes) -> Any:
    """What a frame says."""
    (value,) = FrameReader().feed(frame)
    return value


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("payload", [None, {"last": 23, "more": ["x", None]}], ids=["bare", "payload"])
def test_an_error_stays_what_it_is(kind: type[TaskServerError], payload: dict[str, Any] | None) -> None:
    _, ((number, error, result),) = received(answers_frame([(5, kind("it is ünusable", payload), None)]))
    assert (number, type(error), error.message, error.payload, str(error), result) == (
        *(5, kind, "it is ünusable", payload),
        *("it is ünusable", None),
    )


@pytest.mark.parametrize(
    "change",
    [
        Change(TASK, CHUNK),
        Change(TASK, deleted=True),
        RunChange(A_RUN, CHUNK),
        KeyChange(ApiKey("id", "ci", "ann", frozenset(Scope), b"\0\xff", NOW, None, NOW)),
    ],
    ids=lambda change: type(change).__name__,
)
def test_a_change_stays_what_it_is(change: AnyChange) -> None:
    count, (told,) = received(changes_frame(12, [change]))
    assert (count, told) == (12, change)
    if isinstance(change, Change):  # a version is no part of equality
        assert told.task.version == change.task.version
    if isinstance(change, RunChange):
        assert told.run.version == change.run.version


@pytest.mark.parametrize(
    "value",
    [
        None,
        [TASK],
        Appended(1, 2, True),
        Lines(1, b'"x"', b"s"),
        Outcome(3, "x", b"{}"),
        NewTask("a", "ann", labels={"a": "b"}, place=Place(RUN, "t", 3, 2), claim="c"),
        NewDag("etl", "ann", "ETL", 3, (DagTask("a", True, True),)),
        NewRun(RUN, "r", "ann", "etl", conf=b"{}"),
        RunState.FAILED,
        frozenset({Scope.READ}),
    ],
    ids=repr,
)
def test_arguments_and_results_stay_what_they_are(value: Any) -> None:
    operation = Operation("tasks", TaskWrites.append, ("build", value), {"first": value})
    ((number, told),) = received(calls_frame([(7, operation)]))
    assert (number, told) == (7, operation)
    assert received(answers_frame([(7, None, value)])) == (None, [(7, None, value)])


@pytest.mark.parametrize("size", [1, 3, 7, 1000, 1_000_000])
def test_frames_come_in_any_pieces(size: int) -> None:
    answers = [[(number, None, b"x" * 10**number)] for number in range(5)]
    sent = b"".join(map(answers_frame, answers)) + changes_frame(1, ())
    reader = FrameReader()
    told = [frame for start in range(0, len(sent), size) for frame in reader.feed(sent[start : start + size])]
    assert told == [*((None, answer) for answer in answers), (1, ())]


def test_the_count_is_seen_by_all_who_share_it() -> None:
    count = CommitCount()
    other = CommitCount(count.descriptor)
    assert other.value == 0
    for value in (1, 2, 2**40):
        count.value = value
        assert other.value == value
    other.close()
    other.close()
    count.value = 3
    assert count.value == 3
    count.close()
