"""The dag that the script in Airflow's documentation triggers."""

from __future__ import annotations

import time

from taskserver.worker import dag, task


@dag(display_name="My dag")
def my_dag() -> None:
    @task
    def my_task() -> str:
        print("Hello")
        time.sleep(1.5)  # longer than the script's interval
        return "Hello World!"

    my_task()
