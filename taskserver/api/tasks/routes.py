"""The room's routes, and what the OpenAPI document says of them."""

from __future__ import annotations

from taskserver import errors
from taskserver.api.tasks import changes, dags, described, ingest, keys, output, producing, reading, runs, session
from taskserver.api.tasks.schemas import FORMATS
from taskserver.model import Scope
from taskserver.web.rooms import Answer, Route

TASK, DAG, RUN, KEY = described.Task(), described.Dag(), described.Run(), described.Key()
SESSION = described.Session()
CANCEL_REQUESTED = described.CancelRequested()
OUTPUT = (
    Answer(schema=described.OutputPage(), types=tuple(FORMATS[name] for name in ("text", "ndjson", "sse"))),
    Answer(204, about="To the reconnect of an `EventSource` that has seen the end."),
)
APPENDED = (Answer(schema=described.Appended()),)
LINE_TYPES = (ingest.TEXT, ingest.NDJSON)
READ_FAILS = (errors.TaskNotFound, errors.FirstBeyondOutput, errors.TooManyWaiters)
APPEND_FAILS = (errors.TaskNotFound, errors.TaskFinished, errors.AppendConflict)
CLAIM_FAILS = (errors.RunNotFound, errors.RunFinished, errors.RunClaimed)

ROUTES = (
    Route(
        "GET",
        "/experimental/tasks/{id}",
        reading.get_task,
        Scope.READ,
        query=reading.TASK_QUERY,
        answers=(Answer(schema=TASK),),
        fails=READ_FAILS,
    ),
    Route(
        "GET",
        "/tasks/{id}",
        reading.get_task,
        Scope.READ,
        query=reading.TASK_QUERY,
        answers=(Answer(schema=TASK),),
        fails=READ_FAILS,
    ),
    Route(
        "GET",
        "/tasks/{id}/output",
        output.get_output,
        Scope.READ,
        query=output.OUTPUT_QUERY,
        headers=described.OutputHeaders(),
        answers=OUTPUT,
        fails=READ_FAILS,
    ),
    Route(
        "GET",
        "/tasks",
        reading.list_tasks,
        Scope.READ,
        query=reading.LIST_QUERY,
        answers=(Answer(schema=described.TaskList()),),
    ),
    Route(
        "POST",
        "/tasks",
        producing.create_task,
        Scope.WRITE,
        body=producing.NEW_TASK,
        answers=(Answer(201, TASK, headers={"Location": "the task's path"}),),
        fails=(errors.TaskExists,),
    ),
    Route(
        "POST",
        "/tasks/{id}/output",
        producing.append_output,
        Scope.WRITE,
        query=producing.APPEND_QUERY,
        body=ingest.LINES_BODY,
        body_types=LINE_TYPES,
        answers=APPENDED,
        fails=APPEND_FAILS,
    ),
    Route(
        "PUT",
        "/tasks/{id}/output",
        producing.append_output,
        Scope.WRITE,
        query=producing.APPEND_QUERY,
        body=ingest.LINES_BODY,
        body_types=LINE_TYPES,
        answers=APPENDED,
        fails=APPEND_FAILS,
    ),
    Route(
        "POST",
        "/tasks/{id}/finish",
        producing.finish_task,
        Scope.WRITE,
        body=producing.FINISH,
        answers=(Answer(schema=TASK),),
        fails=APPEND_FAILS,
    ),
    Route(
        "POST",
        "/tasks/{id}/heartbeat",
        producing.heartbeat,
        Scope.WRITE,
        answers=(Answer(schema=CANCEL_REQUESTED),),
        fails=(errors.TaskNotFound, errors.TaskFinished),
    ),
    Route(
        "POST",
        "/tasks/{id}/cancel",
        producing.cancel_task,
        Scope.WRITE,
        answers=(Answer(schema=TASK),),
        fails=(errors.TaskNotFound,),
    ),
    Route(
        "DELETE",
        "/tasks/{id}",
        producing.delete_task,
        Scope.WRITE,
        answers=(Answer(204),),
        fails=(errors.TaskNotFound, errors.TaskNotFinished),
    ),
    Route(
        "GET",
        "/changes",
        changes.get_changes,
        Scope.READ,
        query=changes.CHANGES_QUERY,
        headers=described.ChangesHeaders(),
        answers=(Answer(types=("text/event-stream",)),),
        fails=(errors.RunNotFound, errors.TooManyWaiters),
    ),
    Route("GET", "/dags", dags.list_dags, Scope.READ, answers=(Answer(schema=described.DagList()),)),
    Route(
        "GET", "/dags/{dag_id}", dags.get_dag, Scope.READ, answers=(Answer(schema=DAG),), fails=(errors.DagNotFound,)
    ),
    Route(
        "PUT",
        "/dags/{dag_id}",
        dags.put_dag,
        Scope.WRITE,
        body=dags.DAG,
        answers=(Answer(schema=DAG),),
        fails=(errors.BadParameter, errors.DagExists),
    ),
    Route(
        "POST",
        "/dags/{dag_id}/runs",
        dags.trigger_run,
        Scope.WRITE,
        body=dags.TRIGGER,
        answers=(Answer(201, RUN),),
        fails=(errors.DagNotFound, errors.RunExists),
    ),
    Route(
        "POST",
        "/runs/claim",
        runs.claim_run,
        Scope.WRITE,
        query=runs.CLAIM_QUERY,
        body=runs.CLAIM,
        answers=(Answer(schema=described.ClaimedRun()), Answer(204, about="No run was due in time.")),
        fails=(errors.TooManyWaiters,),
    ),
    Route(
        "GET",
        "/runs/{id}",
        runs.get_run,
        Scope.READ,
        answers=(Answer(schema=described.RunWithTasks()),),
        fails=(errors.RunNotFound,),
    ),
    Route(
        "POST",
        "/runs/{id}/tasks",
        runs.create_task,
        Scope.WRITE,
        body=runs.RUN_TASK,
        answers=(Answer(201, TASK),),
        fails=(*CLAIM_FAILS, errors.TaskExists),
    ),
    Route(
        "POST",
        "/runs/{id}/heartbeat",
        runs.heartbeat,
        Scope.WRITE,
        body=runs.HEARTBEAT,
        answers=(Answer(schema=CANCEL_REQUESTED),),
        fails=CLAIM_FAILS,
    ),
    Route(
        "POST",
        "/runs/{id}/finish",
        runs.finish_run,
        Scope.WRITE,
        body=runs.FINISH,
        answers=(Answer(schema=RUN),),
        fails=(*CLAIM_FAILS, errors.TasksRunning),
    ),
    Route(
        "POST",
        "/runs/{id}/cancel",
        runs.cancel_run,
        Scope.WRITE,
        answers=(Answer(schema=RUN),),
        fails=(errors.RunNotFound,),
    ),
    Route("DELETE", "/runs/{id}", runs.delete_run, Scope.WRITE, answers=(Answer(204),), fails=(errors.RunNotFound,)),
    Route(
        "POST",
        "/session",
        session.create_session,
        None,
        body=session.SESSION,
        answers=(Answer(schema=SESSION, headers={"Set-Cookie": "the session"}),),
        fails=(errors.BadCredential, errors.Forbidden, errors.StoreUnavailable),
    ),
    Route("GET", "/session", session.get_session, Scope.READ, answers=(Answer(schema=SESSION),)),
    Route(
        "DELETE",
        "/session",
        session.delete_session,
        None,
        answers=(Answer(204, headers={"Set-Cookie": "an end of the session"}),),
        fails=(errors.Forbidden,),
    ),
    Route("GET", "/keys", keys.list_keys, Scope.ADMIN, answers=(Answer(schema=described.KeyList()),)),
    Route(
        "POST",
        "/keys",
        keys.create_key,
        Scope.ADMIN,
        body=keys.NEW_KEY,
        answers=(Answer(201, described.NewKey()),),
        fails=(errors.KeyExists,),
    ),
    Route(
        "DELETE",
        "/keys/{id}",
        keys.revoke_key,
        Scope.ADMIN,
        answers=(Answer(schema=KEY),),
        fails=(errors.KeyNotFound,),
    ),
)
