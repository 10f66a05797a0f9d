"""What the OpenAPI document says of the room's answers; ``shapes`` makes them."""

from __future__ import annotations

from typing import Any

from marshmallow import fields, validate

from taskserver.web.rooms import AnswerSchema

STATES = ("queued", "running", "success", "failed")


def _nullable(kind: type[fields.Field[Any]]) -> fields.Field[Any]:
    return kind(required=True, allow_none=True)


class Failure(AnswerSchema):
    """``detail`` is a text; for invalid values a list of what is wrong, for a conflict an object."""

    detail = fields.Raw(required=True)


class Token(AnswerSchema):
    """PROTOCOLS.md, B1."""

    access_token = fields.String(required=True, metadata={"description": "a JSON Web Token"})


class DagRun(AnswerSchema):
    """PROTOCOLS.md, B2."""

    dag_run_id = fields.String(required=True)
    dag_id = fields.String(required=True)
    logical_date = _nullable(fields.DateTime)
    queued_at = _nullable(fields.DateTime)
    start_date = _nullable(fields.DateTime)
    end_date = _nullable(fields.DateTime)
    duration = _nullable(fields.Float)
    data_interval_start = _nullable(fields.DateTime)
    data_interval_end = _nullable(fields.DateTime)
    run_after = fields.DateTime(required=True)
    last_scheduling_decision = _nullable(fields.DateTime)
    run_type = fields.String(required=True)
    state = fields.String(required=True, validate=validate.OneOf(STATES))
    triggered_by = _nullable(fields.String)
    triggering_user_name = _nullable(fields.String)
    conf = fields.Dict(required=True, allow_none=True)
    note = _nullable(fields.String)
    dag_versions = fields.List(fields.Dict(), required=True)
    bundle_version = _nullable(fields.String)
    dag_display_name = fields.String(required=True)
    partition_key = _nullable(fields.String)
    partition_date = _nullable(fields.DateTime)


class DagRunList(AnswerSchema):
    """A page of runs."""

    dag_runs = fields.List(fields.Nested(DagRun), required=True)
    total_entries = fields.Integer(required=True)


class Dag(AnswerSchema):
    """A dag. Most of Airflow's fields have nothing to say here."""

    dag_id = fields.String(required=True)
    dag_display_name = fields.String(required=True)
    is_paused = fields.Boolean(required=True)
    is_stale = fields.Boolean(required=True)
    last_parsed_time = _nullable(fields.DateTime)
    last_parse_duration = _nullable(fields.Float)
    last_expired = _nullable(fields.DateTime)
    bundle_name = _nullable(fields.String)
    bundle_version = _nullable(fields.String)
    relative_fileloc = _nullable(fields.String)
    fileloc = fields.String(required=True)
    file_token = fields.String(required=True)
    description = _nullable(fields.String)
    timetable_summary = _nullable(fields.String)
    timetable_description = _nullable(fields.String)
    timetable_partitioned = fields.Boolean(required=True)
    timetable_periodic = fields.Boolean(required=True)
    tags = fields.List(fields.Dict(), required=True)
    max_active_tasks = fields.Integer(required=True)
    max_active_runs = _nullable(fields.Integer)
    max_consecutive_failed_dag_runs = fields.Integer(required=True)
    has_task_concurrency_limits = fields.Boolean(required=True)
    has_import_errors = fields.Boolean(required=True)
    is_backfillable = fields.Boolean(required=True)
    allowed_run_types = fields.List(fields.String(), required=True, allow_none=True)
    next_dagrun_logical_date = _nullable(fields.DateTime)
    next_dagrun_data_interval_start = _nullable(fields.DateTime)
    next_dagrun_data_interval_end = _nullable(fields.DateTime)
    next_dagrun_run_after = _nullable(fields.DateTime)
    owners = fields.List(fields.String(), required=True)


class DagList(AnswerSchema):
    """A page of dags."""

    dags = fields.List(fields.Nested(Dag), required=True)
    total_entries = fields.Integer(required=True)


class LogEvent(AnswerSchema):
    """A line of a log."""

    event = fields.String(required=True)
    timestamp = fields.DateTime(required=True)
    stream = fields.String(required=True, validate=validate.OneOf(("stdout", "stderr")))


class Log(AnswerSchema):
    """PROTOCOLS.md, B4."""

    content = fields.List(fields.Nested(LogEvent), required=True)
    continuation_token = _nullable(fields.String)
