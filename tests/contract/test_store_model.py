"""Store: any sequence of calls gives what the plain model gives."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from taskserver.errors import TaskServerError
from taskserver.model import NewTask, Outcome, TaskFilter
from taskserver.store import Change, Store
from tests.contract.helpers import NOW, SECOND, Opener, Recorder, lines, texts
from tests.contract.model import PlainStore

T = TypeVar("T")

IDS = st.sampled_from(["a", "b", "c"])
TEXTS = st.lists(st.sampled_from(["x", "y", "", '",\n"'.replace("\n", "\\n"), "z" * 5000]), max_size=4).map(tuple)
OUTCOMES = st.sampled_from([Outcome(), Outcome(1, "e"), Outcome(2, "e"), Outcome(0, "", b"{}")])
# Where an append wants to begin, seen from the end of the output; None: anywhere.
PLACES = st.sampled_from([None, 0, 0, 0, -1, -2, -3, -5, 1, 2])
STEPS = st.sampled_from([0, 1, SECOND, 3 * SECOND, 60 * SECOND])


class StoreMachine(RuleBasedStateMachine):
    """A store and the model beside it."""

    opener: Opener[Store]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="taskserver-model-"))
        self.model = PlainStore()
        self.now = NOW
        self.recorder = Recorder()
        self.appends: list[tuple[str, tuple[str, ...], int]] = []

    @initialize()
    def open(self) -> None:
        self.store = self.run(self.opener(self.folder))
        self.store.listen(self.recorder)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        shutil.rmtree(self.folder)

    def run(self, call: Awaitable[T]) -> T:
        async def running() -> T:
            return await call

        return self.loop.run_until_complete(running())

    def agree(self, expected: Callable[[], Any], call: Awaitable[Any]) -> tuple[Any, Any]:
        """Ask both; they must succeed or fail alike. Returns the two answers."""
        wanted = told(expected)

        async def asking() -> Any:
            return await call

        found = told(lambda: self.loop.run_until_complete(asking()))
        assert isinstance(found, TaskServerError) == isinstance(wanted, TaskServerError), (wanted, found)
        if isinstance(wanted, TaskServerError):
            assert type(found) is type(wanted)
            assert wanted.payload is None or found.payload == wanted.payload
            return None, None
        return wanted, found

    def place(self, task_id: str, place: int | None) -> int | None:
        task = self.model.tasks.get(task_id)
        return None if place is None else max(0, (len(task.lines) if task else 0) + place)

    # --- producing -----------------------------------------------------------------

    @rule(task_id=IDS, lease=st.sampled_from([None, 2 * SECOND]))
    def create(self, task_id: str, lease: int | None) -> None:
        self.agree(
            lambda: self.model.create(task_id, lease, self.now),
            self.store.create_task(NewTask(task_id, "ann", lease_us=lease), self.now),
        )

    @rule(task_id=IDS, batch=TEXTS, place=PLACES)
    def append(self, task_id: str, batch: tuple[str, ...], place: int | None) -> None:
        first = self.place(task_id, place)
        wanted, found = self.agree(
            lambda: self.model.append(task_id, batch, first, self.now),
            self.store.append(task_id, lines(*batch), first, self.now),
        )
        assert found == wanted
        if found is not None and first is not None:
            self.appends.append((task_id, batch, first))

    @precondition(lambda self: self.appends)
    @rule(data=st.data())
    def repeat_an_append(self, data: st.DataObject) -> None:
        task_id, batch, first = data.draw(st.sampled_from(self.appends))
        wanted, found = self.agree(
            lambda: self.model.append(task_id, batch, first, self.now),
            self.store.append(task_id, lines(*batch), first, self.now),
        )
        assert found == wanted

    @rule(task_id=IDS, batches=st.lists(TEXTS, min_size=2, max_size=6), count_first=st.booleans())
    def append_at_once(self, task_id: str, batches: list[tuple[str, ...]], count_first: bool) -> None:
        first = self.place(task_id, 0) if count_first else None
        expected = [told(lambda: self.model.append(task_id, batch, first, self.now)) for batch in batches]  # noqa: B023

        async def together() -> list[Any]:
            calls = [self.store.append(task_id, lines(*batch), first, self.now) for batch in batches]
            return await asyncio.gather(*calls, return_exceptions=True)

        for wanted, found in zip(expected, self.run(together()), strict=True):
            if isinstance(wanted, TaskServerError):
                assert type(found) is type(wanted)
            else:
                assert found == wanted

    @rule(task_id=IDS, outcome=OUTCOMES, batch=TEXTS, place=PLACES)
    def finish(self, task_id: str, outcome: Outcome, batch: tuple[str, ...], place: int | None) -> None:
        first = self.place(task_id, place)
        self.agree(
            lambda: self.model.finish(task_id, outcome, batch, first),
            self.store.finish(task_id, outcome, self.now, lines(*batch), first),
        )

    @rule(task_id=IDS)
    def heartbeat(self, task_id: str) -> None:
        self.agree(lambda: self.model.heartbeat(task_id, self.now), self.store.heartbeat(task_id, self.now))

    @rule(task_id=IDS)
    def cancel(self, task_id: str) -> None:
        self.agree(lambda: self.model.cancel(task_id), self.store.request_cancel(task_id, self.now))

    @rule(task_id=IDS)
    def delete(self, task_id: str) -> None:
        self.agree(lambda: self.model.delete(task_id), self.store.delete_task(task_id))

    # --- time and background ---------------------------------------------------------

    @rule(step=STEPS, heard_for=STEPS)
    def expire(self, step: int, heard_for: int) -> None:
        self.now += step + 1  # no lease ends at this very moment
        since = self.now - heard_for
        wanted, found = self.agree(
            lambda: self.model.expire(self.now, since), self.store.expire_leases(self.now, since)
        )
        assert {task.id for task in found} == wanted

    @rule(count=st.integers(1, 4))
    def seal(self, count: int) -> None:
        for task in self.run(self.store.unsealed(count)):
            assert self.model.tasks[task.id].finished
            self.run(self.store.seal(task.log))

    @rule()
    def restart(self) -> None:
        self.run(self.store.close())
        self.open()

    # --- reading -----------------------------------------------------------------------

    @rule(task_id=IDS, first=st.integers(0, 12), count=st.integers(0, 12), max_bytes=st.sampled_from([1, 100, 9000]))
    def read(self, task_id: str, first: int, count: int, max_bytes: int) -> None:
        if task_id in self.model.tasks:
            log = self.run(self.store.get_task(task_id)).log
            found = self.run(texts(self.store, log, first, first + count, max_bytes))
            assert found == self.model.tasks[task_id].lines[first : first + count]

    @invariant()
    def tasks_are_alike(self) -> None:
        found = self.run(self.store.list_tasks(TaskFilter(), 10))
        assert [task.id for task in found] == list(reversed(self.model.tasks))
        for task in found:
            plain = self.model.tasks[task.id]
            assert (task.state, task.last, task.cancel_requested) == (
                plain.state,
                len(plain.lines),
                plain.cancel_requested,
            )
            assert (task.lease_us, task.lease_expires_at) == (plain.lease_us, plain.lease_expires_at)
            if plain.outcome is not None:
                assert (task.code, task.error) == (plain.outcome.code, plain.outcome.error)

    @invariant()
    def what_was_told_is_what_stands(self) -> None:
        newest: dict[str, Change] = {change.task.id: change for change in self.recorder.changes}
        for task_id, change in newest.items():
            plain = self.model.tasks.get(task_id)
            assert change.deleted == (plain is None)
            if plain is not None:
                assert (change.task.state, change.task.last) == (plain.state, len(plain.lines))


def told(call: Callable[[], Any]) -> Any:
    """A call's answer, or its error."""
    try:
        return call()
    except TaskServerError as error:
        return error


def test_any_sequence_of_calls_agrees_with_the_model(opener: Opener[Store]) -> None:
    machine = type("Machine", (StoreMachine,), {"opener": staticmethod(opener)})
    run_state_machine_as_test(machine, settings=settings(max_examples=40, stateful_step_count=40, deadline=None))
