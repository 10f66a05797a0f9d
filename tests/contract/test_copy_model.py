"""Copying in the middle of any sequence of calls: the store goes on as if nothing had happened."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from taskserver.encoding import encode_records
from taskserver.model import ID_PATTERN, ApiKey, Lines, NewTask, Outcome, Scope, Stream
from taskserver.stores import copy_database, open_store
from taskserver.stores.archive import Size
from tests.contract.helpers import NOW
from tests.contract.test_copy import story
from tests.contract.test_store_model import StoreMachine
from tests.postgres import PostgresServer

# What the API takes: no NUL in what is kept as text, no lone surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
LINE = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
RECORDS = st.lists(st.tuples(LINE, st.integers(0, 2**62), st.sampled_from(Stream)), max_size=20).map(encode_records)


def quiet(what: str, done: Size, whole: Size) -> None:
    assert done.bytes <= whole.bytes


class MovingMachine(StoreMachine):
    """A store that moves from one database to another, and the model that knows nothing of it."""

    server: PostgresServer

    @initialize()
    def open(self) -> None:
        self.moves = itertools.count()
        self.url = f"sqlite:///{self.folder}/first.db"
        self._open()

    @rule()
    def restart(self) -> None:
        self.run(self.store.close())
        self._open()

    @rule()
    def move(self) -> None:
        self.run(self.store.close())
        name = f"{next(self.moves)}"
        if self.url.startswith("sqlite"):
            target = self.run(self.server.database(self.folder / name))
        else:
            target = f"sqlite:///{self.folder}/{name}.db"
        self.run(copy_database(self.url, target, quiet))
        self.url = target
        self._open()

    @rule()
    def sweep(self) -> None:
        self.run(self.store.sweep())

    def _open(self) -> None:
        self.store = self.run(open_store(self.url))
        self.store.listen(self.recorder)


def test_any_sequence_of_calls_with_moves_in_between_agrees_with_the_model(postgres: PostgresServer) -> None:
    machine = type("Machine", (MovingMachine,), {"server": postgres})
    run_state_machine_as_test(machine, settings=settings(max_examples=15, stateful_step_count=25, deadline=None))


SomeTask = tuple[str, str, dict[str, str], list[Lines], Outcome | None, bool]
TASKS = st.lists(
    st.tuples(
        st.from_regex(ID_PATTERN, fullmatch=True),
        TEXT,
        st.dictionaries(TEXT, TEXT, max_size=3),
        st.lists(RECORDS, max_size=3),
        st.none() | st.builds(Outcome, st.integers(-(2**31), 2**31 - 1), TEXT, st.none() | st.just(b'{"a":1}')),
        st.booleans(),
    ),
    max_size=4,
    unique_by=lambda task: task[0],
)
KEYS = st.lists(st.builds(
    ApiKey, st.from_regex(r"[0-9a-f]{16}", fullmatch=True), TEXT, TEXT, st.frozensets(st.sampled_from(Scope)),
    st.binary(min_size=32, max_size=32), st.integers(0, NOW), st.none() | st.integers(0, NOW),
), max_size=3, unique_by=(lambda key: key.id, lambda key: key.name))  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(tasks=TASKS, keys=KEYS)
def test_any_content_is_the_same_there_and_back(
    postgres: PostgresServer,
    tasks: list[tuple[str, str, dict[str, str], list[Lines], Outcome | None, bool]],
    keys: list[ApiKey],
) -> None:
    async def conversation(folder: Path) -> None:
        first, there, back = f"sqlite:///{folder}/a.db", await postgres.database(folder), f"sqlite:///{folder}/b.db"
        store = await open_store(first)
        for task_id, name, labels, appends, outcome, sealed in tasks:
            task = await store.create_task(NewTask(task_id, "ann", name, None, labels), NOW)
            for lines in appends:
                await store.append(task_id, lines, None, NOW)
            if outcome is not None:
                await store.finish(task_id, outcome, NOW)
                if sealed:
                    await store.seal(task.log)
        for key in keys:
            await store.add_key(key)
        await store.close()
        before = await story(first)
        summary = await copy_database(first, there, quiet)
        assert await story(there) == before
        assert await copy_database(there, back, quiet) == summary
        assert await story(back) == before

    with tempfile.TemporaryDirectory(prefix="taskserver-copy-") as folder:
        asyncio.run(conversation(Path(folder)))
