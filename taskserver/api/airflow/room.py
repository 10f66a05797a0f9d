"""The room's routes, under two prefixes: the API, and where its tokens come from."""

from __future__ import annotations

from taskserver import errors
from taskserver.api.airflow import dags, described, logs, runs
from taskserver.api.airflow.answers import FORM, NDJSON, NotAcceptable, refuse, refuse_login
from taskserver.api.airflow.auth import LOGIN, authenticate, create_token
from taskserver.api.airflow.wait import WAIT_QUERY, wait_run
from taskserver.model import Scope
from taskserver.web.failures import Unprocessable
from taskserver.web.rooms import Answer, Room, Route

RUN = described.DagRun()
RUNS_PATH = "/dags/{dag_id}/dagRuns"
RUN_PATH = RUNS_PATH + "/{dag_run_id}"
BAD_QUERY = (Unprocessable,)
BAD_BODY = (Unprocessable, errors.UnsupportedMediaType, errors.TooLarge)

SECURITY = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "`Authorization: Bearer` and the `access_token` of `POST /auth/token`, or an API key.",
    }
}


def airflow_rooms() -> tuple[Room, Room]:
    """The rooms of ``/api/v2`` and of ``/auth``.

    Both are also under paths that begin with two slashes: the script in
    Airflow's documentation makes such URLs, since its host ends with one.
    """
    about = "Dag runs, as clients of Airflow's stable REST API know them."
    api = Room(
        "airflow",
        ("/api/v2", "//api/v2"),
        _routes(),
        authenticate,
        refuse,
        about=about,
        error=described.Failure(),
        security=SECURITY,
        bad_query=BAD_QUERY,
        bad_body=BAD_BODY,
    )
    login = Room(
        "airflow-auth",
        ("/auth", "//auth"),
        (
            Route(
                "POST",
                "/token",
                create_token,
                None,
                body=LOGIN,
                body_types=(FORM,),
                answers=(Answer(201, described.Token()),),
                fails=(errors.BadParameter, errors.BadCredential, errors.TooManySignIns, errors.StoreUnavailable),
            ),
        ),
        authenticate,
        refuse_login,
        about="Tokens for Airflow's API.",
        error=described.Failure(),
        bad_body=BAD_BODY,
    )
    return api, login


def _routes() -> tuple[Route, ...]:
    return (
        Route(
            "GET",
            "/dags",
            dags.list_dags,
            Scope.READ,
            query=dags.DAGS_QUERY,
            answers=(Answer(schema=described.DagList()),),
        ),
        Route(
            "GET",
            "/dags/{dag_id}",
            dags.get_dag,
            Scope.READ,
            answers=(Answer(schema=described.Dag()),),
            fails=(errors.DagNotFound,),
        ),
        Route(
            "POST",
            RUNS_PATH,
            runs.trigger_run,
            Scope.WRITE,
            body=runs.TRIGGER,
            answers=(Answer(schema=RUN),),
            fails=(errors.BadParameter, errors.DagNotFound, errors.RunExists),
        ),
        Route(
            "GET",
            RUNS_PATH,
            runs.list_runs,
            Scope.READ,
            query=runs.RUNS_QUERY,
            answers=(Answer(schema=described.DagRunList()),),
            fails=(errors.DagNotFound,),
        ),
        Route(
            "GET",
            RUN_PATH,
            runs.get_run,
            Scope.READ,
            answers=(Answer(schema=RUN),),
            fails=(errors.RunNotFound,),
        ),
        Route(
            "GET",
            RUN_PATH + "/wait",
            wait_run,
            Scope.READ,
            query=WAIT_QUERY,
            answers=(Answer(about="Newline-delimited JSON; there is no Content-Type."),),
            fails=(errors.RunNotFound, errors.TooManyWaiters, errors.Draining),
        ),
        Route(
            "GET",
            RUN_PATH + "/taskInstances/{task_id}/logs/{try_number}",
            logs.get_log,
            Scope.READ,
            path_fields=logs.LOG_PATH,
            query=logs.LOG_QUERY,
            answers=(
                Answer(
                    schema=described.Log(),
                    types=(NDJSON,),
                    headers={logs.CONTINUATION: "With NDJSON, while the task runs: a token for where the log begins."},
                ),
            ),
            fails=(errors.BadParameter, errors.TaskNotFound, errors.TooManyWaiters, NotAcceptable),
        ),
    )
