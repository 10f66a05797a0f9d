"""What requests about dags and runs may say. The bounds' reasons stand in ``config``."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, ValidationError, fields, post_load, validate, validates

from taskserver.api.tasks.schemas import NewTaskBody, OutcomeBody, lease_field
from taskserver.config import (
    DEFAULT_RUN_LEASE,
    MAX_CLAIM_DAGS,
    MAX_DAG_TASKS,
    MAX_ERROR_LENGTH,
    MAX_MAP_INDEX,
    MAX_NAME_LENGTH,
    MAX_OUTPUT_WAIT,
    MAX_RETRIES,
)
from taskserver.dagmodel import KEY, KEY_ERROR, parse_uuid
from taskserver.model import Outcome
from taskserver.web.params import Flag, Integer, QueryInteger, body_text, encodable

MIN_CLAIM_LENGTH = 16


def key_field(**kwargs: Any) -> fields.String:
    """The id of a dag or of one of its tasks."""
    return fields.String(validate=validate.Regexp(KEY, error=KEY_ERROR), **kwargs)


class DagTaskBody(Schema):
    """One of a dag's tasks."""

    task_id = key_field(required=True)
    result = Flag(load_default=False)
    mapped = Flag(load_default=False)


class DagBody(Schema):
    """``PUT /dags/{dag_id}``"""

    display_name = body_text(MAX_NAME_LENGTH, load_default="")
    retries = Integer(0, MAX_RETRIES, load_default=0)
    tasks = fields.List(fields.Nested(DagTaskBody), load_default=list, validate=validate.Length(max=MAX_DAG_TASKS))

    @validates("tasks")
    def _distinct(self, tasks: list[dict[str, Any]], **_: Any) -> None:
        ids = [task["task_id"] for task in tasks if "task_id" in task]  # a task that is not valid is looked at too
        if len(set(ids)) < len(ids):
            raise ValidationError("must not name a task twice")


class TriggerBody(Schema):
    """``POST /dags/{dag_id}/runs``"""

    conf = fields.Dict(keys=fields.String(), load_default=dict, validate=encodable)
    tag = body_text(MAX_NAME_LENGTH, 1, load_default=None, allow_none=True)
    note = body_text(MAX_ERROR_LENGTH, load_default=None, allow_none=True)

    @validates("tag")
    def _asked_for_by_it(self, tag: str | None, **_: Any) -> None:
        if tag is not None and (parse_uuid(tag) is not None or tag in (".", "..")):
            raise ValidationError("must not look like a UUID, and not be . or .., for the run is asked for by it")


class ResultQuery(Schema):
    """``POST /dags/{dag_id}/run`` and ``GET /runs/{id}/result``"""

    wait = QueryInteger(0, MAX_OUTPUT_WAIT, load_default=None)


class ClaimQuery(Schema):
    """``POST /runs/claim``"""

    wait = QueryInteger(0, MAX_OUTPUT_WAIT, load_default=0)


class ClaimBody(Schema):
    """``POST /runs/claim``"""

    dags = fields.List(key_field(), load_default=list, validate=validate.Length(max=MAX_CLAIM_DAGS))
    claim = body_text(MAX_NAME_LENGTH, MIN_CLAIM_LENGTH, load_default=None, allow_none=True)
    lease = lease_field(load_default=DEFAULT_RUN_LEASE)


class RunTaskOutcome(OutcomeBody):
    """The end of a task that is created when it has ended."""

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Outcome:
        return Outcome(data["code"], data["error"], data["result"])


class RunTaskBody(NewTaskBody):
    """``POST /runs/{id}/tasks``"""

    task_id = key_field(required=True)
    map_index = Integer(-1, MAX_MAP_INDEX, load_default=-1)
    try_number = Integer(1, MAX_RETRIES + 1, load_default=1)
    claim = fields.String(load_default=None, allow_none=True)
    finish = fields.Nested(RunTaskOutcome, load_default=None, allow_none=True)


class RunHeartbeatBody(Schema):
    """``POST /runs/{id}/heartbeat`` and ``/release``"""

    claim = fields.String(required=True)


class RunFinishBody(Schema):
    """``POST /runs/{id}/finish``"""

    claim = fields.String(load_default=None, allow_none=True)
    state = fields.String(
        load_default=None,
        allow_none=True,
        validate=validate.OneOf(["success", "failed"], error="must be success or failed"),
    )
    error = body_text(MAX_ERROR_LENGTH, load_default="")
