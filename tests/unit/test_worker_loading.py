"""Where the modules with dags are found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from taskserver.worker.loading import load_dags

DAG = """
from taskserver.worker import dag, task

@dag
def {name}():
    task(lambda: 1, task_id="one")()
"""


def test_a_module_is_found_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "reports_of_this_test"
    package.mkdir()
    (package / "daily.py").write_text(DAG.format(name="daily"))
    monkeypatch.chdir(tmp_path)
    # As the installed command finds it: its own folder, and not the current one.
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(Path.cwd()))])
    assert list(load_dags(["reports_of_this_test.daily"])) == ["daily"]
