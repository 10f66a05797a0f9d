"""Dags as Python functions, and the process that runs them.

    from taskserver.worker import dag, result, task

    @dag
    def my_dag(n=42):
        @task
        def fetch_data(n):
            return {"answer": n}

        @result
        @task
        def compute(data):
            return data["answer"] * 2

        compute(fetch_data(n))

    my_dag()

``taskserver worker my_dag.py`` registers it and works on its runs;
``my_dag.test({"n": 1})`` runs it here and now.
"""

from taskserver.worker.context import Context, context
from taskserver.worker.dag import Dag, dag
from taskserver.worker.errors import BadValue, DagError, TaskStopped
from taskserver.worker.local import Tested
from taskserver.worker.task import TaskFunction, result, task

__all__ = [
    "BadValue",
    "Context",
    "Dag",
    "DagError",
    "TaskFunction",
    "TaskStopped",
    "Tested",
    "context",
    "dag",
    "result",
    "task",
]
