"""A disk that is full: refused with a true status, nothing acknowledged is lost, and it goes on when there is room."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.raw import Raw
from tests.server import Answer, Server, until

MIB = 1024 * 1024
DISK = 16 * MIB
BALLAST = 10 * MIB  # removed when room is wanted; what it leaves is more than SQLite's log grows to before a checkpoint
FILE_LIMIT = 5 * MIB
BLOCK = ("x" * 99 + "\n") * 1000
MOST_BLOCKS = 200  # more than fit, so that the loop ends

FULL = (507, 1023)
FAILED = (503, 1022)  # what SQLite makes of a file size limit (and of a quota) is no more than "disk I/O error"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="uses Linux' tmpfs and prlimit")


class Cramped:
    """A server whose database soon cannot grow."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.refusal = FULL

    def confine(self) -> None:
        """Leave room for a few blocks only."""

    def fill(self) -> None:
        """Take away what room is left."""

    def relieve(self) -> None:
        """Make room."""


class SmallDisk(Cramped):
    """Its database is on a disk of its own, a small one; its log is not."""

    def __init__(self, server: Server, disk: Path) -> None:
        super().__init__(server)
        self.disk = disk
        server.database = f"sqlite:///{disk}/tasks.db"
        server.key_file = disk / "tasks.db.key"

    def confine(self) -> None:
        (self.disk / "ballast").write_bytes(bytes(BALLAST))

    def fill(self) -> None:
        with (self.disk / "filler").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                return

    def relieve(self) -> None:
        for name in ("ballast", "filler"):
            (self.disk / name).unlink(missing_ok=True)


class FileLimit(Cramped):
    """Its process may not make a file larger than so much."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.refusal = FAILED

    def _limit(self, size: int) -> None:
        assert self.server.process is not None
        resource.prlimit(self.server.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def confine(self) -> None:
        self._limit(FILE_LIMIT)

    def fill(self) -> None:
        self._limit((self.server.folder / "tasks.db-wal").stat().st_size)

    def relieve(self) -> None:
        self._limit(resource.RLIM_INFINITY)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that is a disk of 16 MiB, if we may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "taskserver-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("may not mount a small disk here; the file size limit stands in for it")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(params=["disk", "file"])
def cramped(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cramped]:
    """The server with a small disk, and the one with a file size limit: the latter needs no rights."""
    if request.param == "disk":
        cramped: Cramped = SmallDisk(Server(tmp_path), request.getfixturevalue("small_disk"))
    else:
        cramped = FileLimit(Server(tmp_path))
    with cramped.server:
        yield cramped


def append_until_refused(server: Server, task: str) -> tuple[int, Answer]:
    """How many lines were acknowledged, and the answer to the append that was not."""
    last = 0
    for _ in range(MOST_BLOCKS):
        answer = server.post(f"/v1/tasks/{task}/output?first={last}", BLOCK)
        if answer.status != 200:
            return last, answer
        last = answer.json["last"]
    raise AssertionError("the disk did not become full")


def stands(server: Server, task: str, lines: int) -> None:
    """All of a task's lines can be read."""
    answer = server.get(f"/v1/tasks/{task}")
    assert answer.status == 200, answer
    assert answer.json["last"] == lines
    assert answer.json["output"] == [BLOCK.splitlines()[0]] * lines


def test_a_full_disk_refuses_and_recovers(cramped: Cramped) -> None:
    server = cramped.server
    task = server.new_task()
    cramped.confine()
    last, refusal = append_until_refused(server, task)
    assert last > 0
    assert (refusal.status, refusal.json["code"]) == cramped.refusal
    assert refusal.json.keys() == {"code", "error", "payload"}
    assert refusal.headers["Retry-After"]
    stands(server, task, last)

    cramped.fill()
    for path, body in [
        (f"/v1/tasks/{task}/output?first={last}", BLOCK),
        (f"/v1/tasks/{task}/finish", {"output": BLOCK.splitlines(), "first": last}),
    ]:
        answer = server.post(path, body)
        assert (answer.status, answer.json["code"]) == cramped.refusal, path
    assert server.get("/healthz").status == 200
    stands(server, task, last)

    cramped.relieve()
    answer = server.post(f"/v1/tasks/{task}/output?first={last}", BLOCK)
    assert answer.json == {"first": last, "last": last + 1000, "cancel_requested": False}
    assert server.post(f"/v1/tasks/{task}/finish", {}).status == 200
    stands(server, task, last + 1000)


def test_nothing_is_lost_by_a_crash_on_a_full_disk(cramped: Cramped) -> None:
    server = cramped.server
    task = server.new_task(lease=3600)
    cramped.confine()
    last, _ = append_until_refused(server, task)
    cramped.fill()
    server.kill()
    server.start()  # the disk is still full, and what stands can be read all the same
    stands(server, task, last)
    cramped.relieve()
    assert server.post(f"/v1/tasks/{task}/output?first={last}", BLOCK).json["last"] == last + 1000


def test_a_live_append_says_how_far_it_got(cramped: Cramped) -> None:
    server = cramped.server
    task = server.new_task()
    cramped.confine()
    with Raw(server) as producer:
        producer.ask("POST", f"/v1/tasks/{task}/output?first=0", "Transfer-Encoding: chunked")
        with contextlib.suppress(ConnectionError):  # nobody reads the rest of the body
            for _ in range(MOST_BLOCKS):
                producer.send_chunk(BLOCK.encode())
        refusal = producer.answer()
    assert (refusal.status, refusal.json["code"]) == cramped.refusal
    stands(server, task, refusal.json["payload"]["last"])


def test_readers_do_not_mind(cramped: Cramped) -> None:
    server = cramped.server
    task = server.new_task()
    cramped.confine()
    last, _ = append_until_refused(server, task)
    cramped.fill()
    page = server.get(f"/v1/tasks/{task}/output?first={last}&wait=1")
    assert page.json == {"first": last, "last": last, "finished": False, "output": []}
    assert server.get("/v1/tasks").json["tasks"][0]["last"] == last
    assert server.get("/readyz").status == 200


def test_background_work_goes_on_when_there_is_room(cramped: Cramped) -> None:
    server = cramped.server
    lost, task = server.new_task(lease=2), server.new_task()
    created = time.monotonic()
    cramped.confine()
    append_until_refused(server, task)
    cramped.fill()
    until(lambda: time.monotonic() > created + 2.5, "the lease has run out on a full disk")
    cramped.relieve()
    ended = server.get(f"/v1/tasks/{lost}?wait=20")
    assert ended.json["state"] == "interrupted"
