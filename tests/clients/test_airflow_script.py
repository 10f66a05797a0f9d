"""The script in Airflow's documentation of synchronous dag execution, as it stands there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.clients.airflow import DAG, TASK
from tests.conftest import every_way_to_serve
from tests.e2e.commands import Commands
from tests.e2e.workers import DAGS, working
from tests.server import Server

LIMIT = 60  # seconds for the script
SCRIPT = Path(__file__).with_name("synchronous_dag_execution.txt")


@every_way_to_serve
def test_it_runs_with_no_more_than_its_host_and_credentials_changed(server: Server, tmp_path: Path) -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    for published, ours in (
        ('_USERNAME = "admin"', '_USERNAME = "admin"'),
        ('_PASSWORD = "admin"', f'_PASSWORD = "{server.key}"'),
        ('_HOST = "http://localhost:8080/"', f'_HOST = "{server.url}/"'),
        ('_DAG_ID = "my_dag"', f'_DAG_ID = "{DAG}"'),
        ('_TASK_ID = "my_task"', f'_TASK_ID = "{TASK}"'),
    ):
        assert text.count(published) == 1
        text = text.replace(published, ours)
    script = tmp_path / "script.py"
    script.write_text(text, encoding="utf-8")

    with working(Commands(server, tmp_path), str(DAGS / "documented.py")):
        done = subprocess.run(
            [sys.executable, script], capture_output=True, text=True, timeout=LIMIT, check=True, env=os.environ
        )

    first, *states, last, results = done.stdout.splitlines()
    assert first == "Status Code: 200"
    assert states[0] in ("Status: queued", "Status: running")
    assert states[-1] == "Status: success"
    assert len(states) >= 2, "the run takes longer than the script's interval of a second"
    assert set(states[:-1]) <= {"Status: queued", "Status: running"}
    assert last == "Last status update:  {'state': 'success', 'results': {'my_task': 'Hello World!'}}"
    assert results == "XCom results:  {'my_task': 'Hello World!'}"
