"""summaries: what an answer tells of a task."""

from __future__ import annotations

import json

from taskserver.encoding import encode_texts
from taskserver.model import Task, TaskState
from taskserver.summaries import TASK_TAIL, task_head, task_summary

TASK = Task(
    id="build",
    log=7,
    owner="ann",
    name="nightly",
    state=TaskState.FAILED,
    created_at=0,
    last=2,
    code=3,
    error='"no"',
    result=b'{"type":"x","data":[1]}',
    labels={"a": "b"},
    finished_at=1,
    lease_us=1_500_000,
)


def test_head_lines_and_tail_are_one_object() -> None:
    answer = json.loads(task_head(TASK) + encode_texts(["a", "b"]) + TASK_TAIL)
    assert answer.pop("output") == ["a", "b"]
    assert answer.pop("result") == {"type": "x", "data": [1]}
    assert answer == task_summary(TASK)
    assert (answer["lease"], answer["labels"], answer["error"]) == (1.5, {"a": "b"}, '"no"')
    assert (answer["started_at"], answer["finished_at"]) == (None, "1970-01-01T00:00:00.000001Z")


def test_without_lines_and_result_too() -> None:
    answer = json.loads(task_head(Task("a", 1, "o", "", TaskState.QUEUED, 0)) + TASK_TAIL)
    assert (answer["output"], answer["result"], answer["finished"]) == ([], None, False)


def test_it_does_not_tell_owner_and_log() -> None:
    assert not {"owner", "log"} & task_summary(TASK).keys()
