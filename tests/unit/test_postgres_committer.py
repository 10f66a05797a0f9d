"""The PostgreSQL store's committer: which operations go together, in which order, and what happens when one fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from taskserver.errors import StoreUnavailable, TaskNotFound
from tests.eventually import eventually

asyncpg = pytest.importorskip("asyncpg")

from taskserver.stores.postgres import failures  # noqa: E402
from taskserver.stores.postgres.committer import ATTEMPTS, GroupCommitter, Job, NotAlone  # noqa: E402


@dataclass(frozen=True)
class Step:
    """An operation of the tests."""

    name: str
    tasks: Sequence[str] = ()
    alone: bool = False
    size: int = 0


class Database:
    """Takes groups; each waits until it is let go, and may fail."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.alone: list[bool] = []
        self.reports: list[str] = []
        self.held: asyncio.Event | None = None
        self.fail: Callable[[list[str], bool], None] = lambda names, alone: None
        self.tried: list[list[str]] = []
        self.changed: set[str] = set()  # what cannot be done directly
        self.break_down: Exception | None = None
        self.committer = self.new_committer(min_beside=1)

    def new_committer(self, **options: Any) -> GroupCommitter:
        return GroupCommitter(self.transact, self.reports.extend, self.attempt, **options)

    async def attempt(self, jobs: Sequence[Job]) -> tuple[list[Any], list[Job]]:
        names = [job.operation.name for job in jobs]
        self.tried.append(names)
        if self.held is not None:
            await self.held.wait()
        if self.break_down is not None:
            raise self.break_down
        for job in jobs:
            job.result = f"did {job.operation.name} directly"
        left = [job for job in jobs if job.operation.name in self.changed]
        return [name for name in names if name not in self.changed], left

    async def transact(self, jobs: Sequence[Job], alone: bool) -> list[Any]:
        names = [job.operation.name for job in jobs]
        self.groups.append(names)
        self.alone.append(alone)
        if self.held is not None:
            await self.held.wait()
        self.fail(names, alone)
        for job in jobs:
            job.result = f"did {job.operation.name}"
        return names

    def hold(self) -> asyncio.Event:
        self.held = asyncio.Event()
        return self.held

    def submit(self, name: str, *tasks: str, alone: bool = False) -> asyncio.Future[Any]:
        return self.committer.submit(Step(name, tasks, alone))

    def submit_direct(self, name: str, *tasks: str) -> asyncio.Future[Any]:
        return self.committer.submit(Step(name, tasks), direct=True)


@pytest.fixture
async def database() -> Database:
    return Database()


async def test_what_comes_at_once_goes_together(database: Database) -> None:
    calls = [database.submit(name, name) for name in "abc"]
    assert await asyncio.gather(*calls) == ["did a", "did b", "did c"]
    assert database.groups == [["a", "b", "c"]]
    assert database.reports == ["a", "b", "c"]


async def test_a_task_is_in_one_group_at_a_time(database: Database) -> None:
    go = database.hold()
    calls = [database.submit("a1", "a")]
    await eventually(lambda: len(database.groups) == 1)
    calls += [database.submit("a2", "a"), database.submit("b1", "b"), database.submit("a3", "a")]
    await eventually(lambda: len(database.groups) == 2)
    assert database.groups == [["a1"], ["b1"]]
    go.set()
    await asyncio.gather(*calls)
    assert database.groups == [["a1"], ["b1"], ["a2", "a3"]]
    assert database.reports.index("a1") < database.reports.index("a2")


async def test_what_works_on_two_tasks_waits_for_both_and_holds_up_what_follows(database: Database) -> None:
    go = database.hold()
    calls = [database.submit("a1", "a")]
    await eventually(lambda: len(database.groups) == 1)
    calls += [database.submit("ab", "a", "b"), database.submit("b1", "b"), database.submit("c1", "c")]
    await eventually(lambda: len(database.groups) == 2)
    assert database.groups == [["a1"], ["c1"]]
    go.set()
    await asyncio.gather(*calls)
    assert database.groups[2:] == [["ab", "b1"]]


async def test_what_must_be_alone_waits_for_all_before_it_and_is_followed_by_the_rest(database: Database) -> None:
    go = database.hold()
    calls = [database.submit("a1", "a")]
    await eventually(lambda: len(database.groups) == 1)
    calls += [database.submit("b1", "b"), database.submit("all", alone=True), database.submit("b2", "b")]
    await eventually(lambda: len(database.groups) == 2)
    go.set()
    await asyncio.gather(*calls)
    assert database.groups == [["a1"], ["b1"], ["all", "b2"]]
    assert database.alone == [False, False, True]


async def test_a_group_that_turns_out_to_need_more_is_run_again_alone(database: Database) -> None:
    def fail(names: list[str], alone: bool) -> None:
        if "b" in names and not alone:
            raise NotAlone

    database.fail = fail
    go = database.hold()
    calls = [database.submit("a", "a")]
    await eventually(lambda: len(database.groups) == 1)
    calls += [database.submit("b", "b"), database.submit("c", "c")]
    await eventually(lambda: len(database.groups) == 2)
    go.set()
    assert await asyncio.gather(*calls) == ["did a", "did b", "did c"]
    assert (database.groups[-1], database.alone[-1]) == (["b", "c"], True)
    assert sorted(database.reports) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "error", [asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.UniqueViolationError]
)
async def test_what_another_nodes_transaction_undid_is_tried_again(database: Database, error: type[Exception]) -> None:
    once_and_again = iter([error("x"), error("x")])

    def fail(names: list[str], alone: bool) -> None:
        for failure in once_and_again:
            raise failure

    database.fail = fail
    assert await database.submit("a", "a") == "did a"
    assert len(database.groups) == 3
    assert database.reports == ["a"]


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (asyncpg.DeadlockDetectedError("x"), ATTEMPTS),
        (asyncpg.InterfaceError("closed"), 2),
        (ConnectionResetError(), 2),
        (asyncpg.ReadOnlySQLTransactionError("x"), 1),
        (asyncpg.LockNotAvailableError("x"), 1),
        (failures.OutcomeUnknown("x"), 1),  # it may stand: only the producer knows whether it may be repeated
    ],
)
async def test_what_hits_everybody_is_told_to_all_after_so_many_attempts(
    database: Database, error: Exception, attempts: int
) -> None:
    def fail(names: list[str], alone: bool) -> None:
        raise error

    database.fail = fail
    answers = await asyncio.gather(database.submit("a", "a"), database.submit("b", "b"), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable, StoreUnavailable]
    assert database.groups == [["a", "b"]] * attempts
    assert database.reports == []
    database.fail = lambda names, alone: None
    assert await database.submit("a", "a") == "did a"


async def test_what_one_is_to_blame_for_does_not_touch_the_others(database: Database) -> None:
    def fail(names: list[str], alone: bool) -> None:
        if "b" in names:
            raise asyncpg.DataError("no text")

    database.fail = fail
    calls = [database.submit(name, name) for name in "abc"]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(answer).__name__ for answer in answers] == ["str", "StoreUnavailable", "str"]
    assert database.reports == ["a", "c"]


async def test_one_by_one_what_needs_more_goes_again_with_all_behind_it(database: Database) -> None:
    def fail(names: list[str], alone: bool) -> None:
        if names == ["a", "b", "c"] and not alone:
            raise asyncpg.DataError("no text")
        if "b" in names and not alone:
            raise NotAlone

    database.fail = fail
    calls = [database.submit(name, name) for name in "abc"]
    assert await asyncio.gather(*calls) == ["did a", "did b", "did c"]
    assert database.groups == [["a", "b", "c"], ["a"], ["b"], ["b", "c"]]
    assert database.reports == ["a", "b", "c"]


async def test_a_few_wait_for_the_next_group_but_not_for_long(database: Database) -> None:
    committer = database.new_committer(min_beside=3)
    go = database.hold()
    calls = [committer.submit(Step("a", ["a"]))]
    await eventually(lambda: len(database.groups) == 1)
    calls += [committer.submit(Step(name, [name])) for name in "bcd"]
    await eventually(lambda: len(database.groups) == 2)
    assert database.groups[1] == ["b", "c", "d"]
    calls.append(committer.submit(Step("e", ["e"])))
    await eventually(lambda: len(database.groups) == 3, "the group of one that has waited")
    assert database.groups[2] == ["e"]
    go.set()
    await asyncio.gather(*calls)


async def test_what_may_be_done_directly_goes_together_and_no_transaction_is_needed(database: Database) -> None:
    calls = [database.submit_direct("a", "a"), database.submit("b", "b"), database.submit_direct("c", "c")]
    assert await asyncio.gather(*calls) == ["did a directly", "did b", "did c directly"]
    assert database.tried == [["a", "c"]]
    assert database.groups == [["b"]]


async def test_what_was_not_done_directly_is_done_in_a_transaction_before_what_follows(database: Database) -> None:
    database.changed = {"b1"}
    go = database.hold()
    calls = [database.submit_direct("a1", "a"), database.submit_direct("b1", "b")]
    await eventually(lambda: len(database.tried) == 1)
    calls += [database.submit_direct("b2", "b"), database.submit_direct("c1", "c")]
    go.set()
    assert await asyncio.gather(*calls) == ["did a1 directly", "did b1", "did b2 directly", "did c1 directly"]
    assert database.groups == [["b1"]]
    assert database.reports.index("b1") < database.reports.index("b2")


async def test_what_must_wait_for_its_task_does_not_hold_up_what_may_be_done_directly(database: Database) -> None:
    go = database.hold()
    calls = [database.submit("a1", "a")]
    await eventually(lambda: len(database.groups) == 1)
    calls += [database.submit("a2", "a"), database.submit_direct("b", "b")]
    await eventually(lambda: database.tried == [["b"]], "the direct one beside the group that hangs")
    go.set()
    await asyncio.gather(*calls)
    assert database.groups == [["a1"], ["a2"]]


async def test_what_is_alone_takes_what_may_be_done_directly_along(database: Database) -> None:
    go = database.hold()
    calls = [database.submit("a1", "a")]
    await eventually(lambda: len(database.groups) == 1)
    calls += [database.submit("all", alone=True), database.submit_direct("a2", "a")]
    go.set()
    await asyncio.gather(*calls)
    assert database.groups == [["a1"], ["all", "a2"]]
    assert database.tried == []


async def test_when_the_direct_way_fails_the_transaction_tells_whose_fault_it_is(database: Database) -> None:
    def fail(names: list[str], alone: bool) -> None:
        if "b" in names:
            raise TaskNotFound("b") if len(names) == 1 else asyncpg.DataError("b")

    database.fail, database.break_down = fail, asyncpg.DataError("one of them")
    calls = [database.submit_direct(name, name) for name in "abc"]
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert [done[0], type(done[1]), done[2]] == ["did a", TaskNotFound, "did c"]


async def test_what_may_have_been_done_directly_is_not_repeated(database: Database) -> None:
    database.break_down = failures.OutcomeUnknown("cut")
    calls = [database.submit_direct(name, name) for name in "ab"]
    assert [type(done) for done in await asyncio.gather(*calls, return_exceptions=True)] == [StoreUnavailable] * 2
    assert database.groups == []


async def test_a_large_group_is_split_by_its_bytes(database: Database) -> None:
    calls = [database.committer.submit(Step(name, [name], size=10 * 1024 * 1024)) for name in "abcd"]
    await asyncio.gather(*calls)
    assert database.groups == [["a", "b"], ["c", "d"]]


async def test_a_listener_that_fails_does_not_keep_the_answers(database: Database) -> None:
    def report(changes: Sequence[Any]) -> None:
        raise ValueError("a bug")

    committer = GroupCommitter(database.transact, report, database.attempt)
    assert await committer.submit(Step("a")) == "did a"


async def test_closing_finishes_what_waits_and_refuses_what_comes(database: Database) -> None:
    go = database.hold()
    calls = [database.submit(f"a{number}", "a") for number in range(3)]
    await eventually(lambda: len(database.groups) == 1)
    calls.append(database.submit("last", alone=True))
    closing = asyncio.ensure_future(database.committer.close())
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable):
        await database.submit("late")
    go.set()
    await closing
    assert [call.result() for call in calls] == ["did a0", "did a1", "did a2", "did last"]
    await database.committer.close()


async def test_one_who_leaves_does_not_disturb_the_group(database: Database) -> None:
    def fail(names: list[str], alone: bool) -> None:
        raise TaskNotFound("x")

    go = database.hold()
    calls = [database.submit(name, name) for name in "ab"]
    await eventually(lambda: len(database.groups) == 1)
    calls[0].cancel()
    go.set()
    assert await calls[1] == "did b"
    database.fail = fail
    with pytest.raises(TaskNotFound):
        await database.submit("c", "c")


async def test_who_waits_too_long_is_told_so_and_what_has_not_begun_is_dropped(database: Database) -> None:
    committer = GroupCommitter(database.transact, database.reports.extend, database.attempt, patience=0.5)
    go = database.hold()
    begun = committer.submit(Step("begun", ["a"]))
    await eventually(lambda: len(database.groups) == 1)
    queued = [committer.submit(Step("queued", ["a"])) for _ in range(2)]
    with pytest.raises(StoreUnavailable, match="it is not known whether this was stored"):
        await begun
    for call in queued:
        with pytest.raises(StoreUnavailable, match="nothing was stored"):
            await call
    after = committer.submit(Step("after", ["a"]))
    go.set()
    assert await after == "did after"
    assert database.groups == [["begun"], ["after"]]
    assert database.reports == ["begun", "after"]  # what was stored all the same is told to those who follow
    await committer.close()


async def test_a_transaction_that_is_tried_again_costs_the_same_patience(database: Database) -> None:
    def fail(names: list[str], alone: bool) -> None:
        raise asyncpg.DeadlockDetectedError("deadlock")

    database.fail = fail
    committer = GroupCommitter(database.transact, database.reports.extend, database.attempt, patience=0.02)
    began = asyncio.get_running_loop().time()
    with pytest.raises(StoreUnavailable):
        await committer.submit(Step("a", ["a"]))
    assert asyncio.get_running_loop().time() - began < 5
    await committer.close()
