"""What the OpenAPI document says of the room's answers."""

from __future__ import annotations

from marshmallow import fields, validate

from taskserver.api.executions.answers import STATUS
from taskserver.model import TaskState
from taskserver.web.params import one_of
from taskserver.web.rooms import AnswerSchema

STATUSES = sorted(set(STATUS.values()))


class Failure(AnswerSchema):
    """PROTOCOLS.md, C: a failure; of a 422 only ``detail``, which is then a list."""

    detail = fields.Raw(required=True, metadata={"description": "a sentence, or the list of a 422"})
    error_code = fields.String()
    correlation_id = fields.String()
    timestamp = fields.DateTime()


class ErrorInfo(AnswerSchema):
    """Why an execution ended otherwise than completed."""

    message = fields.String(required=True)


class Execution(AnswerSchema):
    """An execution as the answer to its creation tells it."""

    id = fields.UUID(required=True)
    config_id = fields.UUID(required=True)
    status = fields.String(required=True, validate=validate.OneOf(STATUSES))
    started_at = fields.DateTime(required=True)
    completed_at = fields.DateTime(required=True, allow_none=True)
    tag = fields.String(required=True, allow_none=True)


class WholeExecution(Execution):
    """An execution."""

    metadata = fields.Dict(required=True, allow_none=True)
    error_info = fields.Nested(ErrorInfo, required=True, allow_none=True)


class Statistics(AnswerSchema):
    """An execution's tasks counted by state."""

    execution_id = fields.UUID(required=True)
    total_messages = fields.Integer(required=True)
    completed_messages = fields.Integer(required=True)
    failed_messages = fields.Integer(required=True)
    in_progress_messages = fields.Integer(required=True)
    success_rate = fields.Float(required=True, validate=validate.Range(0, 1))


class WaitResult(AnswerSchema):
    """How a wait ended."""

    completed = fields.Boolean(required=True)
    execution_id = fields.UUID(required=True)
    status = fields.String(required=True, validate=validate.OneOf(STATUSES))
    duration_ms = fields.Integer(required=True)
    message = fields.String(required=True)
    stats = fields.Nested(Statistics, required=True)


class LineageEntry(AnswerSchema):
    """One task of an execution."""

    id = fields.String(required=True, metadata={"description": "the task's id under /v1/tasks"})
    try_number = fields.Integer(required=True)
    execution_id = fields.UUID(required=True)
    task_id = fields.String(required=True)
    map_index = fields.Integer(required=True)
    status = fields.String(required=True, validate=one_of(TaskState))
    started_at = fields.DateTime(required=True, allow_none=True)
    completed_at = fields.DateTime(required=True, allow_none=True)
    duration_ms = fields.Integer(required=True, allow_none=True)
    error = fields.String(required=True)


class Lineage(AnswerSchema):
    """An execution's tasks."""

    execution_id = fields.UUID(required=True)
    entries = fields.List(fields.Nested(LineageEntry), required=True)
    total = fields.Integer(required=True)
