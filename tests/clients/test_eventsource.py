"""An execution's events with the npm package `eventsource`: what a browser would do, without being told anything."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.worker import IDS, NAMES, Worker
from tests.conftest import every_way_to_serve
from tests.server import Server

PACKAGE = "eventsource@4.1.1"  # the last major for Node 20
SCRIPT = Path(__file__).parent / "eventsource.mjs"
INSTALL_LIMIT = 300.0  # seconds
LIMIT = 60.0  # seconds for one thing to happen; a reconnect takes up to 3


@pytest.fixture(scope="session")
def packages(request: pytest.FixtureRequest) -> Path:
    """A folder with the package, filled once by npm."""
    missing = [tool for tool in ("node", "npm") if shutil.which(tool) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"{', '.join(missing)} must be installed where CI=true")
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    cache = getattr(request.config, "cache", None)  # there is none with -p no:cacheprovider
    folder = cache.mkdir(PACKAGE) if cache else _temporary(request)
    if not (folder / "node_modules" / "eventsource").exists():
        command = ["npm", "install", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund", PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_LIMIT, check=False)
        assert done.returncode == 0, done.stderr
    return folder


def _temporary(request: pytest.FixtureRequest) -> Path:
    factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
    return factory.mktemp("packages")


@pytest.fixture
def worker(server: Server) -> Worker:
    return Worker(server)


class Page:
    """A Node process with an ``EventSource``, and what it says."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.asked: list[str | None] = []
        self.errors: list[dict[str, Any]] = []
        self._said: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def event(self) -> tuple[str, str, Any]:
        """The next event: name, id, data. Requests and errors before it are noted."""
        while True:
            said = self._next()
            assert said is not None, "the EventSource has given up"
            if "event" in said:
                return said["event"], said["id"], said["data"]

    def gone(self) -> None:
        """Return when nothing more can happen: the source is closed and the process has ended."""
        while (said := self._next()) is not None:
            assert "event" not in said, said
        assert self.process.wait(LIMIT) == 0

    def close(self) -> None:
        self.process.kill()
        self.process.wait(LIMIT)
        self._reader.join(LIMIT)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _next(self) -> dict[str, Any] | None:
        line = self._said.get(timeout=LIMIT)
        said: dict[str, Any] | None = json.loads(line) if line else None
        if said is not None and "asks" in said:
            self.asked.append(said["asks"])
        if said is not None and "error" in said:
            self.errors.append(said)
        return said

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._said.put(line)
        self._said.put("")


Open = Callable[[str], Page]


@pytest.fixture
def open_page(server: Server, key: str, packages: Path) -> Iterator[Open]:
    """``open_page(execution id)`` begins to follow it."""
    pages: list[Page] = []

    def begin(execution_id: str) -> Page:
        url = f"{server.url}/api/v1/executions/{execution_id}/events"
        environment = {**os.environ, "PACKAGES": str(packages), "URL": url, "KEY": key}
        process = subprocess.Popen(["node", str(SCRIPT)], env=environment, stdout=subprocess.PIPE, text=True)
        pages.append(Page(process))
        return pages[-1]

    yield begin
    for page in pages:
        page.close()


@every_way_to_serve
def test_it_follows_a_run_to_its_end_and_then_stays_away(open_page: Open, worker: Worker) -> None:
    page = open_page(worker.create_execution())
    worker.do_all()
    events = [page.event() for _ in NAMES]
    assert [name for name, _, _ in events] == NAMES
    assert [event_id for _, event_id, _ in events] == IDS
    assert events[-1][2]["status"] == "completed"
    page.gone()
    # The stream's end looks like any lost connection; only the 204 tells that there is nothing more.
    assert page.asked == [None, "15-end"]
    assert page.errors[-1] == {"error": 204, "closed": True}
    assert not any(error["closed"] for error in page.errors[:-1])


@pytest.mark.parametrize("end", [Server.kill, Server.stop])
def test_it_comes_back_to_a_server_that_was_restarted_and_loses_nothing(
    server: Server, open_page: Open, worker: Worker, end: Callable[[Server], int]
) -> None:
    page = open_page(worker.create_execution())
    worker.claim_run()
    worker.do("load", 0)
    worker.do("load", 1)
    events = [page.event() for _ in range(6)]
    end(server)
    server.start()
    worker.do("load", 2)
    events += [page.event() for _ in range(3)]
    end(server)
    server.start()
    worker.do("load", 3)
    worker.finish()
    events += [page.event() for _ in range(4)]
    page.gone()
    assert [event_id for _, event_id, _ in events] == [*map(str, range(1, 13)), "12-end"]
    assert [name for name, _, _ in events] == ["initiated", "processing", "completed"] * 4 + ["end"]
    assert [data["map_index"] for _, _, data in events[:12]] == [index for index in range(4) for _ in range(3)]
    # While the server was away it may have asked in vain, each time for the same.
    assert list(dict.fromkeys(page.asked)) == [None, "6", "9", "12-end"]


def test_it_gives_up_when_the_execution_is_deleted(server: Server, open_page: Open, worker: Worker) -> None:
    execution_id = worker.create_execution()
    page = open_page(execution_id)
    worker.claim_run()
    worker.do("extract")
    assert [page.event()[1] for _ in range(3)] == ["1", "2", "3"]
    assert server.call("DELETE", f"/v1/runs/{execution_id}").status == 204
    page.gone()
    assert page.asked == [None, "3"]
    assert page.errors[-1] == {"error": 404, "closed": True}
