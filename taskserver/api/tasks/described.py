"""What the OpenAPI document says of the room's answers, and of the request headers that it heeds."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, validate

from taskserver.config import MAX_NAME_LENGTH
from taskserver.model import Scope, TaskState
from taskserver.web.params import one_of
from taskserver.web.rooms import AnswerSchema


def _nullable(kind: type[fields.Field[Any]]) -> fields.Field[Any]:
    return kind(required=True, allow_none=True)


def _state() -> fields.String:
    return fields.String(required=True, validate=one_of(TaskState))


class ResultHeaders(Schema):
    """``GET /runs/{id}/result``"""

    prefer = fields.String(
        data_key="Prefer",
        metadata={"description": "RFC 7240; counts where `wait` is absent.", "examples": ["wait=10"]},
    )


class OutputHeaders(ResultHeaders):
    """``GET /tasks/{id}/output``"""

    last_event_id = fields.String(
        data_key="Last-Event-ID",
        metadata={"description": "The `id` of the last event seen; for `text/event-stream` only.", "examples": ["23"]},
    )


class TriggerHeaders(Schema):
    """``POST /dags/{dag_id}/runs``"""

    idempotency_key = fields.String(
        data_key="Idempotency-Key",
        validate=validate.Length(1, MAX_NAME_LENGTH),
        metadata={"description": "A dag has one run for each: a repeat is answered with that run."},
    )


class ChangesHeaders(Schema):
    """``GET /changes``"""

    last_event_id = fields.String(
        data_key="Last-Event-ID",
        metadata={"description": "The `id` of the last event seen.", "examples": ["a1b2c3d4-7"]},
    )


class CallHeaders(TriggerHeaders, ResultHeaders):
    """``POST /dags/{dag_id}/run``"""


class Failure(AnswerSchema):
    """PROTOCOLS.md, A2."""

    code = fields.Integer(
        required=True, metadata={"description": "Posit Connect's number, or one of ours from 1000 on"}
    )
    error = fields.String(required=True)
    payload = fields.Dict(required=True, allow_none=True)


# --- tasks ---------------------------------------------------------------------


class Place(AnswerSchema):
    """Where a task stands in a run."""

    id = fields.UUID(required=True)
    task_id = fields.String(required=True)
    map_index = fields.Integer(required=True)
    try_number = fields.Integer(required=True)


class TaskSummary(AnswerSchema):
    """A task in a list."""

    id = fields.String(required=True)
    name = fields.String(required=True)
    state = _state()
    finished = fields.Boolean(required=True)
    code = fields.Integer(required=True)
    error = fields.String(required=True)
    last = fields.Integer(required=True, metadata={"description": "the number of lines so far"})
    labels = fields.Dict(keys=fields.String(), values=fields.String(), required=True)
    created_at = fields.DateTime(required=True)
    started_at = _nullable(fields.DateTime)
    finished_at = _nullable(fields.DateTime)
    lease = _nullable(fields.Float)
    cancel_requested = fields.Boolean(required=True)
    run = fields.Nested(Place, required=True, allow_none=True)


class Result(AnswerSchema):
    """What a producer left at the end."""

    type = fields.String(required=True)
    data = fields.Raw(required=True, allow_none=True)


class Task(TaskSummary):
    """A task with its output."""

    result = fields.Nested(Result, required=True, allow_none=True)
    output = fields.List(fields.String(), required=True)


class TaskList(AnswerSchema):
    """A page of tasks."""

    tasks = fields.List(fields.Nested(TaskSummary), required=True)
    cursor = _nullable(fields.String)


class OutputPage(AnswerSchema):
    """A page of output."""

    first = fields.Integer(required=True)
    last = fields.Integer(required=True, metadata={"description": "where the next page begins"})
    finished = fields.Boolean(required=True)
    output = fields.List(fields.String(), required=True)


class SearchPage(AnswerSchema):
    """What a search found in a part of the output."""

    first = fields.Integer(required=True)
    next = fields.Integer(required=True, metadata={"description": "where the next search goes on"})
    last = fields.Integer(required=True, metadata={"description": "the number of lines so far"})
    finished = fields.Boolean(required=True)
    count = fields.Integer(required=True, metadata={"description": "the number of lines before `next` that match"})
    lines = fields.List(fields.Integer(), required=True)


class CancelRequested(AnswerSchema):
    """What a producer is told with each sign of life."""

    cancel_requested = fields.Boolean(required=True)


class Appended(CancelRequested):
    """Where lines stand now."""

    first = fields.Integer(required=True)
    last = fields.Integer(required=True)


# --- dags and runs -------------------------------------------------------------


class DagTask(AnswerSchema):
    """One of a dag's tasks."""

    task_id = fields.String(required=True)
    result = fields.Boolean(required=True)
    mapped = fields.Boolean(required=True)


class Dag(AnswerSchema):
    """A dag."""

    dag_id = fields.String(required=True)
    config_id = fields.UUID(required=True)
    display_name = fields.String(required=True)
    retries = fields.Integer(required=True)
    tasks = fields.List(fields.Nested(DagTask), required=True)
    created_at = fields.DateTime(required=True)
    updated_at = fields.DateTime(required=True)


class DagList(AnswerSchema):
    """The caller's dags."""

    dags = fields.List(fields.Nested(Dag), required=True)


class _RunHead(AnswerSchema):
    """What is told first of a run, wherever it stands."""

    id = fields.UUID(required=True)
    dag_id = fields.String(required=True)
    run_id = fields.String(required=True)
    state = _state()
    finished = fields.Boolean(required=True)
    error = fields.String(required=True)


class Run(_RunHead):
    """A run."""

    conf = fields.Dict(required=True)
    metadata = fields.Raw(required=True, allow_none=True)
    tag = _nullable(fields.String)
    note = _nullable(fields.String)
    attempt = fields.Integer(required=True)
    queued_at = fields.DateTime(required=True)
    run_after = fields.DateTime(required=True)
    started_at = _nullable(fields.DateTime)
    finished_at = _nullable(fields.DateTime)
    cancel_requested = fields.Boolean(required=True)


class ClaimedRun(Run):
    """A run and its claimant's proof."""

    claim = fields.String(required=True)


class RunWithTasks(Run):
    """A run and its tasks."""

    tasks = fields.List(fields.Nested(TaskSummary), required=True)


class RunResult(_RunHead):
    """What came out of a run."""

    results = fields.Dict(required=True, metadata={"description": "by task id; empty while the run goes on"})


# --- keys ----------------------------------------------------------------------


class Session(AnswerSchema):
    """The API key behind a request."""

    id = fields.String(required=True)
    name = fields.String(required=True)
    owner = fields.String(required=True)
    scopes = fields.List(fields.String(validate=one_of(Scope)), required=True)
    expires_at = _nullable(fields.DateTime)


class Key(AnswerSchema):
    """An API key, without its secret."""

    id = fields.String(required=True)
    name = fields.String(required=True)
    owner = fields.String(required=True)
    scopes = fields.List(fields.String(validate=one_of(Scope)), required=True)
    created_at = fields.DateTime(required=True)
    expires_at = _nullable(fields.DateTime)
    revoked_at = _nullable(fields.DateTime)


class NewKey(Key):
    """An API key with its secret."""

    key = fields.String(required=True, metadata={"description": "the secret, shown only here"})


class KeyList(AnswerSchema):
    """All keys."""

    keys = fields.List(fields.Nested(Key), required=True)


# --- retention -----------------------------------------------------------------


class Pruned(AnswerSchema):
    """What was removed, or would be."""

    tasks = fields.Integer(required=True, metadata={"description": "tasks outside of runs"})
    runs = fields.Integer(required=True, metadata={"description": "runs, with all their tasks"})
    more = fields.Boolean(required=True, metadata={"description": "whether to ask again"})
