"""How dags, runs and log lines look to Airflow's callers: pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson

from taskserver.dagmodel import Dag, Run, RunState
from taskserver.encoding import SEPARATOR, decode_side, quoted
from taskserver.jsontext import dumps, isotime
from taskserver.model import MICROSECONDS, Chunk, Stream

RUN_TYPE = "manual"
TRIGGERED_BY = "rest_api"

# Airflow has no word for a run that was cancelled or whose claimant was lost: it has failed.
_STATES = {
    RunState.QUEUED: "queued",
    RunState.RUNNING: "running",
    RunState.SUCCESS: "success",
    RunState.FAILED: "failed",
    RunState.CANCELLED: "failed",
    RunState.INTERRUPTED: "failed",
}


def run_shape(run: Run) -> dict[str, Any]:
    """A dag run: Airflow's 22 keys (PROTOCOLS.md, B2)."""
    duration = None
    if run.started_at is not None and run.finished_at is not None:
        duration = (run.finished_at - run.started_at) / MICROSECONDS
    return {
        "dag_run_id": run.run_id,
        "dag_id": run.dag_id,
        "logical_date": isotime(run.logical_date),
        "queued_at": isotime(run.queued_at),
        "start_date": isotime(run.started_at),
        "end_date": isotime(run.finished_at),
        "duration": duration,
        "data_interval_start": isotime(run.data_interval_start),
        "data_interval_end": isotime(run.data_interval_end),
        "run_after": isotime(run.run_after),
        "last_scheduling_decision": None,
        "run_type": RUN_TYPE,
        "state": _STATES[run.state],
        "triggered_by": TRIGGERED_BY,
        "triggering_user_name": run.triggered_by or None,
        "conf": orjson.Fragment(run.conf),  # JSON already; parsed, it could be nested too deeply for the encoder
        "note": run.note,
        "dag_versions": [],
        "bundle_version": None,
        "dag_display_name": run.display_name or run.dag_id,
        "partition_key": run.partition_key,
        "partition_date": None,
    }


def dag_shape(dag: Dag) -> dict[str, Any]:
    """A dag, with an honest word in each of Airflow's fields: there is no file, no schedule and no limit."""
    return {
        "dag_id": dag.dag_id,
        "dag_display_name": dag.display_name or dag.dag_id,
        "is_paused": False,
        "is_stale": False,
        "last_parsed_time": isotime(dag.updated_at),
        "last_parse_duration": None,
        "last_expired": None,
        "bundle_name": None,
        "bundle_version": None,
        "relative_fileloc": None,
        "fileloc": "",
        "file_token": "",
        "description": None,
        "timetable_summary": None,
        "timetable_description": None,
        "timetable_partitioned": False,
        "timetable_periodic": False,
        "tags": [],
        "max_active_tasks": 0,
        "max_active_runs": None,
        "max_consecutive_failed_dag_runs": 0,
        "has_task_concurrency_limits": False,
        "has_import_errors": False,
        "is_backfillable": False,
        "allowed_run_types": [RUN_TYPE],
        "next_dagrun_logical_date": None,
        "next_dagrun_data_interval_start": None,
        "next_dagrun_data_interval_end": None,
        "next_dagrun_run_after": None,
        "owners": [dag.owner],
    }


# --- waiting -------------------------------------------------------------------


@lru_cache(maxsize=len(RunState))
def state_line(state: RunState) -> bytes:
    """A line of a wait: ``{"state": "running"}``."""
    return dumps({"state": _STATES[state]}) + b"\n"


def last_line(run: Run, results: Mapping[str, Any]) -> bytes:
    """The line that ends a wait, with the results if there are any."""
    if not results:
        return state_line(run.state)
    # Each value by itself: it may be nested as deeply as the encoder goes.
    values = {task_id: orjson.Fragment(dumps(value)) for task_id, value in results.items()}
    return dumps({"state": _STATES[run.state], "results": values}) + b"\n"


# --- logs ----------------------------------------------------------------------


def log_events(chunks: Sequence[Chunk]) -> Iterator[bytes]:
    """``{"event", "timestamp", "stream"}`` for each line."""
    for chunk in chunks:
        sides = decode_side(chunk.side, chunk.count)
        for text, (time_us, stream) in zip(quoted(chunk).split(SEPARATOR), sides, strict=True):
            yield b'{"event":' + text + _event_tail(time_us, stream)


@lru_cache(maxsize=1024)  # lines that came in one request have the same time
def _event_tail(time_us: int, stream: Stream) -> bytes:
    return f',"timestamp":"{isotime(time_us)}","stream":"{stream.name.lower()}"}}'.encode()
