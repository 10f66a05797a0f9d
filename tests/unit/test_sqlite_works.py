"""SqliteTransaction: what a group of operations reads and writes, and what is remembered from one group to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from taskserver.config import MAX_LINE_NUMBER
from taskserver.encoding import encode_lines
from taskserver.errors import TaskNotFound
from taskserver.model import NewTask, Outcome, Task, TaskState
from taskserver.store import AnyChange, Appended, Change
from taskserver.stores.sqlite.file import DatabaseFile
from taskserver.stores.sqlite.rows import TASK_COLUMNS, sealed_row, task_from_row
from taskserver.stores.sqlite.transaction import SqliteTransaction
from taskserver.stores.sqlite.works import Heads

NOW = 1_800_000_000_000_000
LEASE = 5_000_000

T = TypeVar("T")


class Scene:
    """A database, its heads, and the statements that were run on it."""

    def __init__(self, folder: Path) -> None:
        self.file = DatabaseFile(str(folder / "tasks.db"), "full")
        self.connection = self.file.open()
        self.heads = Heads()
        self.statements: list[str] = []
        self.connection.set_trace_callback(self.statements.append)

    def group(self, work: Callable[[SqliteTransaction], T], *, fails: bool = False) -> T:
        """Do something in a transaction of its own, which is undone if it ``fails`` at its end."""
        self.statements.clear()
        self.connection.execute("BEGIN IMMEDIATE")
        transaction = SqliteTransaction(self.connection, self.heads)
        answer = work(transaction)
        transaction.flush()
        self.connection.execute("ROLLBACK" if fails else "COMMIT")
        if not fails:
            self.changes = list(transaction.committed())
        return answer

    def create(self, task_id: str, lease: int | None = None) -> Task:
        return self.group(lambda tx: tx.tasks.create(NewTask(task_id, "ann", lease_us=lease), NOW))

    def append(self, task_id: str, *texts: str, **options: Any) -> Appended:
        return self.group(
            lambda tx: tx.tasks.append(task_id, encode_lines(texts, NOW), None, NOW, MAX_LINE_NUMBER, None), **options
        )

    def run(self, begin: str) -> list[str]:
        """The statements of the last group that begin so."""
        return [statement for statement in self.statements if statement.startswith(begin)]

    def stored(self, task_id: str) -> Task:
        """The task as a reader of the database sees it."""
        row = self.connection.execute(f"SELECT {TASK_COLUMNS}, result FROM task WHERE id = ?", (task_id,)).fetchone()
        return task_from_row(row)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    opened = Scene(tmp_path)
    yield opened
    opened.connection.close()
    opened.file.unlock()


def test_an_append_to_a_running_task_reads_nothing_and_writes_one_row(scene: Scene) -> None:
    scene.create("a")
    scene.append("a", "x")
    assert scene.append("a", "y", "z") == Appended(1, 3)
    assert [statement.split()[0] for statement in scene.statements] == ["BEGIN", "INSERT", "COMMIT"]
    (change,) = scene.changes
    assert isinstance(change, Change)
    assert change.task == scene.stored("a")
    assert (change.task.state, change.task.last) == (TaskState.RUNNING, 3)


def test_each_line_makes_the_head_newer_also_when_it_is_read_again(scene: Scene) -> None:
    versions = [scene.create("a").version]
    for texts in (["x"], ["y", "z"], ["w"]):
        scene.append("a", *texts)
        assert scene.stored("a").version == task_of(scene.changes).version
        versions.append(scene.stored("a").version)
    scene.heads.clear()
    scene.group(lambda tx: tx.tasks.finish("a", Outcome(), NOW, None, None, MAX_LINE_NUMBER))
    versions.append(scene.stored("a").version)
    assert versions == sorted(set(versions))


def test_appends_to_one_task_become_one_row_and_its_own_row_is_written_once(scene: Scene) -> None:
    scene.create("a", LEASE)

    def work(tx: SqliteTransaction) -> list[Appended]:
        return [
            tx.tasks.append("a", encode_lines([text], NOW), None, NOW + number, MAX_LINE_NUMBER, None)
            for number, text in enumerate("xyz")
        ]

    assert scene.group(work) == [Appended(0, 1), Appended(1, 2), Appended(2, 3)]
    assert len(scene.run("INSERT INTO chunk")) == len(scene.run("UPDATE task")) == len(scene.changes) == 1
    assert scene.stored("a").lease_expires_at == NOW + 2 + LEASE


def test_a_renewed_lease_stands_in_the_row(scene: Scene) -> None:
    scene.create("a", LEASE)
    scene.append("a", "x")
    scene.group(lambda tx: tx.tasks.heartbeat("a", NOW + 7))
    assert scene.run("SELECT") == []
    assert scene.stored("a").lease_expires_at == NOW + 7 + LEASE
    assert scene.stored("a") == task_of(scene.changes)


def test_what_was_undone_is_not_remembered(scene: Scene) -> None:
    scene.create("a")
    scene.append("a", "x")
    scene.append("a", "lost", fails=True)
    assert scene.append("a", "y") == Appended(1, 2)
    assert scene.stored("a").last == 2
    scene.group(lambda tx: tx.tasks.create(NewTask("b", "ann"), NOW), fails=True)
    with pytest.raises(TaskNotFound):
        scene.append("b", "x")
    scene.connection.execute("ROLLBACK")


def test_a_task_that_is_gone_is_not_remembered(scene: Scene) -> None:
    first = scene.create("a")
    scene.append("a", "x")
    scene.group(lambda tx: tx.tasks.finish("a", Outcome(), NOW, None, None, MAX_LINE_NUMBER))
    scene.group(lambda tx: tx.tasks.delete("a"))
    again = scene.create("a")
    assert again.log > first.log
    assert scene.append("a", "y") == Appended(0, 1)


def test_what_is_sealed_and_swept_at_once_leaves_nothing(scene: Scene) -> None:
    log = scene.create("build").log
    scene.append("build", "a", "b")
    scene.group(lambda tx: tx.tasks.finish("build", Outcome(), NOW, None, None, MAX_LINE_NUMBER))
    chunks = scene.group(lambda tx: tx.read_chunks(log, 0, 2))
    scene.group(lambda tx: tx.tasks.delete("build"))

    def seal_and_sweep(tx: SqliteTransaction) -> None:
        assert tx.tasks.replace_chunks(log, chunks, [sealed_row(log, chunk) for chunk in chunks])
        assert tx.retention.sweep() is False

    scene.group(seal_and_sweep)
    for table in ("chunk", "discarded"):
        assert scene.connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_only_so_many_are_remembered_the_most_lately_written_ones(scene: Scene) -> None:
    scene.heads = Heads(2)
    for task_id in "abc":
        scene.create(task_id)
    for task_id, reads in (("b", 0), ("a", 1), ("b", 0), ("c", 1), ("a", 1)):
        scene.append(task_id, "x")
        assert len(scene.run("SELECT")) == reads, task_id
    assert [scene.stored(task_id).last for task_id in "abc"] == [2, 2, 1]


def task_of(changes: Sequence[AnyChange]) -> Task:
    """The task of the only change."""
    (change,) = changes
    assert isinstance(change, Change)
    return change.task
