"""PostgreSQL: two nodes on one database, and what may happen to them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pytest

from taskserver.config import PARTIAL_BYTES
from taskserver.dagmodel import Run, RunState
from taskserver.errors import (
    AppendConflict,
    StoreOpenError,
    StoreUnavailable,
    TaskExists,
    TaskFinished,
    TaskNotFound,
    TaskServerError,
)
from taskserver.model import Outcome, TaskState
from taskserver.partial import Partial, Unfinished
from taskserver.store import Appended, Store
from taskserver.stores import open_store
from taskserver.wakeup import Wakeup
from tests.contract.helpers import NOW, SECOND, SUCCESS, Recorder, chunks, create, finished, lines, numbered, texts
from tests.contract.run_helpers import add_task, claim, events, register, trigger
from tests.eventually import LIMIT, eventually
from tests.postgres import PostgresServer

pytest.importorskip("asyncpg")

LONG = 20.0  # seconds; a wake-up that comes ends the wait long before

T = TypeVar("T")
Wakeups = tuple[Wakeup, Wakeup]


@dataclass
class Nodes:
    """Two nodes, and the database as an operator reaches it."""

    a: Store
    b: Store
    url: str
    execute: Callable[..., Awaitable[list[Any]]]

    async def cut(self, what: str = "true") -> None:
        """Terminate the nodes' connections for which a condition on pg_stat_activity holds."""
        condition = f"application_name LIKE 'taskserver%' AND {what}"
        await self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {condition}")


@pytest.fixture
async def url(postgres: PostgresServer, tmp_path: Path) -> str:
    """An empty database."""
    return await postgres.database(tmp_path)


@pytest.fixture
async def nodes(url: str) -> AsyncIterator[Nodes]:
    import asyncpg

    operator = await asyncpg.connect(url)
    a, b = await open_store(url), await open_store(url)
    yield Nodes(a, b, url, operator.fetch)
    await a.close()
    await b.close()
    await operator.close()


@pytest.fixture
async def wakeups(nodes: Nodes) -> AsyncIterator[Wakeups]:
    """The nodes' wake-ups, which hear each other."""
    a, b = await nodes.a.open_wakeup(), await nodes.b.open_wakeup()
    yield a, b
    await a.close()
    await b.close()


async def insisting(call: Callable[[], Awaitable[T]]) -> T:
    """What a client does: it repeats what was answered with 503."""
    limit = asyncio.get_running_loop().time() + LIMIT
    while True:
        try:
            return await call()
        except StoreUnavailable:
            assert asyncio.get_running_loop().time() < limit, "the store did not recover"
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def tasks_locked(nodes: Nodes, which: str = "true") -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """An operator holds the tasks for which a condition holds; what is given waits until so many connections wait."""
    import asyncpg

    operator = await asyncpg.connect(nodes.url)
    block = operator.transaction()
    await block.start()
    await operator.execute(f"SELECT 1 FROM task WHERE {which} FOR UPDATE")

    async def waiting(count: int) -> None:
        sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        limit = asyncio.get_running_loop().time() + LIMIT
        while (await nodes.execute(sql))[0][0] < count:
            assert asyncio.get_running_loop().time() < limit, f"{count} connections do not wait"
            await asyncio.sleep(0.01)

    try:
        yield waiting
    finally:
        await block.rollback()
        await operator.close()


class TestStart:
    async def test_nodes_that_start_at_once_make_one_schema(self, url: str) -> None:
        stores = await asyncio.gather(*(open_store(url) for _ in range(5)))
        await create(stores[0])
        assert [(await store.get_task("build")).id for store in stores] == ["build"] * 5
        for store in stores:
            await store.close()

    async def test_a_newer_schema_is_refused(self, nodes: Nodes) -> None:
        await nodes.execute("UPDATE schema_version SET version = 999")
        with pytest.raises(StoreOpenError, match=r"its schema is version 999 .* use a newer taskserver"):
            await open_store(nodes.url)
        assert await nodes.execute("SELECT version FROM schema_version") == [(999,)]

    @pytest.mark.parametrize("columns", ["version text", "application text, version integer"])
    async def test_anothers_schema_is_refused_and_left_alone(self, nodes: Nodes, columns: str) -> None:
        await nodes.execute("ALTER TABLE schema_version RENAME TO ours")
        await nodes.execute(f"CREATE TABLE schema_version ({columns})")
        with pytest.raises(StoreOpenError, match="was not made by taskserver"):
            await open_store(nodes.url)
        assert await nodes.execute("SELECT * FROM schema_version") == []

    async def test_what_cannot_be_reached_is_refused_without_showing_the_password(self) -> None:
        with pytest.raises(StoreOpenError) as refused:
            await open_store("postgresql://ann:secret@127.0.0.1:1/tasks")
        assert "127.0.0.1:1/tasks" in refused.value.message
        assert "secret" not in refused.value.message

    async def test_a_pooler_that_knows_no_prepared_statements_will_do(self, nodes: Nodes) -> None:
        store = await open_store(f"{nodes.url}&statement_cache_size=0")
        task = await finished(store, "build", "a", "b")
        assert await texts(nodes.a, task.log) == ["a", "b"]
        await store.close()


class TestTwoNodes:
    async def test_what_one_acknowledged_the_other_reads(self, nodes: Nodes) -> None:
        task = await create(nodes.a)
        for number in range(20):
            writer, reader = (nodes.a, nodes.b) if number % 2 else (nodes.b, nodes.a)
            await writer.append("build", lines(f"line {number}"), number, NOW)
            assert (await reader.get_task("build")).last == number + 1
            assert await texts(reader, task.log) == numbered(0, number + 1)
        ended = await nodes.b.finish("build", SUCCESS, NOW)
        assert await nodes.a.get_task("build") == ended
        with pytest.raises(TaskFinished):
            await nodes.a.append("build", lines("x"), None, NOW)

    async def test_what_changed_through_another_node_counts_for_the_next_append(self, nodes: Nodes) -> None:
        for name in ("asked", "ended", "gone"):
            await create(nodes.a, name, lease=30)
            await nodes.a.append(name, lines("a"), 0, NOW)
            assert await nodes.a.append(name, lines("b"), 1, NOW + SECOND) == Appended(1, 2)
        assert (await nodes.b.get_task("asked")).lease_expires_at == NOW + 31 * SECOND
        await nodes.b.request_cancel("asked", NOW)
        assert await nodes.a.append("asked", lines("c"), 2, NOW) == Appended(2, 3, cancel_requested=True)
        for name in ("ended", "gone"):
            await nodes.b.finish(name, SUCCESS, NOW)
        with pytest.raises(TaskFinished):
            await nodes.a.append("ended", lines("c"), 2, NOW)
        await nodes.b.delete_task("gone")
        with pytest.raises(TaskNotFound):
            await nodes.a.append("gone", lines("c"), None, NOW)

    async def test_a_node_that_remembers_a_task_appends_without_a_transaction(
        self, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pooled = await open_store(f"{nodes.url}&statement_cache_size=0")
        task, other = await create(nodes.a), await create(pooled, "other")
        await nodes.a.append("build", lines("line 0"), None, NOW)
        await pooled.append("other", lines("line 0"), None, NOW)

        def refuse(pool: object) -> NoReturn:
            raise AssertionError("a transaction")

        monkeypatch.setattr("taskserver.stores.postgres.store.transaction", refuse)
        await asyncio.gather(*(nodes.a.append("build", lines(f"line {n}"), None, NOW) for n in range(1, 4)))
        assert await texts(nodes.b, task.log) == numbered(0, 4)
        with pytest.raises(StoreUnavailable):  # who has not appended to it before
            await nodes.b.append("build", lines("x"), None, NOW)
        with pytest.raises(StoreUnavailable):  # whose pooler might give each statement to another connection
            await pooled.append("other", lines("x"), None, NOW)
        assert await texts(pooled, other.log) == numbered(0, 1)
        await pooled.close()

    async def test_appends_that_do_not_fit_keep_their_order(self, nodes: Nodes) -> None:
        task = await create(nodes.a)
        await nodes.a.append("build", lines("line 0"), 0, NOW)
        calls = [nodes.a.append("build", lines("line 1"), 1, NOW)]
        calls += [nodes.a.append("build", lines("line 1"), 1, NOW)]  # a repeat, which must be looked up
        calls += [nodes.a.append("build", lines(f"line {number}"), None, NOW) for number in (2, 3)]
        answers = await asyncio.gather(*calls)
        assert [answer.first for answer in answers] == [1, 1, 2, 3]
        assert await texts(nodes.b, task.log) == numbered(0, 4)

    async def test_lines_that_are_more_than_a_chunk_are_split(self, nodes: Nodes) -> None:
        task = await create(nodes.a)
        batch = [f"{line:06d} ".ljust(200, ".") for line in range(2000)]
        for first in range(0, 6000, 2000):
            await nodes.a.append("build", lines(*batch), first, NOW)
        assert await texts(nodes.b, task.log) == batch * 3
        assert len(await chunks(nodes.b, task.log)) > 9

    async def test_producers_on_both_get_dense_numbers(self, nodes: Nodes) -> None:
        task = await create(nodes.a)
        recorders = [Recorder(), Recorder()]
        for store, recorder in zip((nodes.a, nodes.b), recorders, strict=True):
            store.listen(recorder)

        async def produce(store: Store, name: str) -> dict[int, str]:
            said: dict[int, str] = {}
            for number in range(15):
                answer = await store.append("build", lines(f"{name}.{number}"), None, NOW)
                said[answer.first] = f"{name}.{number}"
            return said

        stores = [nodes.a, nodes.b] * 8
        parts = await asyncio.gather(*(produce(store, str(number)) for number, store in enumerate(stores)))
        together = {number: text for part in parts for number, text in part.items()}
        assert await texts(nodes.a, task.log) == [together[number] for number in range(16 * 15)]
        for recorder in recorders:
            told = [change.chunk.first for change in recorder.of("build") if change.chunk is not None]
            assert told == sorted(told)
            versions = [change.task.version for change in recorder.of("build")]
            assert versions == sorted(versions)

    async def test_what_both_do_to_the_same_tasks_at_random_adds_up(self, nodes: Nodes) -> None:
        rng = random.Random(5)
        tasks = [await create(nodes.a, f"t{number}", lease=30 if number % 2 else None) for number in range(6)]
        for task in tasks:
            await nodes.a.heartbeat(task.id, NOW)  # so that a cancellation does not end it
        said: dict[str, dict[int, str]] = {task.id: {} for task in tasks}
        told: list[Recorder] = [Recorder(), Recorder()]
        for store, recorder in zip((nodes.a, nodes.b), told, strict=True):
            store.listen(recorder)

        async def step(name: str) -> None:
            store, task_id, what = rng.choice([nodes.a, nodes.b]), rng.choice(tasks).id, rng.random()
            if what < 0.1:
                await store.heartbeat(task_id, NOW)
            elif what < 0.15:
                await store.request_cancel(task_id, NOW)
            else:
                batch = [f"{name}.{line}" for line in range(rng.choice([1, 1, 1, 20]))]
                first = (await store.get_task(task_id)).last if what < 0.4 else None
                answer = await store.append(task_id, lines(*batch), first, NOW)
                said[task_id].update(zip(range(answer.first, answer.last), batch, strict=True))

        async def produce(name: str) -> None:
            for number in range(60):
                with contextlib.suppress(AppendConflict):
                    await step(f"{name}.{number}")

        await asyncio.wait_for(asyncio.gather(*(produce(str(number)) for number in range(24))), LIMIT)
        for task in tasks:
            last = (await nodes.b.get_task(task.id)).last
            assert await texts(nodes.a, task.log) == [said[task.id][number] for number in range(last)]
            assert len(said[task.id]) == last
            for recorder in told:
                versions = [change.task.version for change in recorder.of(task.id)]
                assert versions == sorted(set(versions))

    async def test_one_of_two_with_the_same_id_or_cursor_wins(self, nodes: Nodes) -> None:
        for number in range(15):
            name = f"t{number}"
            calls = [create(store, name, owner=owner) for store, owner in ((nodes.a, "ann"), (nodes.b, "bob"))]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert sorted(type(answer).__name__ for answer in answers) == ["Task", "TaskExists"]
            appends = [store.append(name, lines(text), 0, NOW) for store, text in ((nodes.a, "a"), (nodes.b, "b"))]
            places = await asyncio.gather(*appends, return_exceptions=True)
            assert sorted(type(place).__name__ for place in places) == ["AppendConflict", "Appended"]

    async def test_groups_that_cross_do_not_block_each_other(self, nodes: Nodes) -> None:
        """Each node appends to the same tasks, all at once, one from the first to the last, the other backwards."""
        names = [f"t{number:02}" for number in range(12)]
        for name in names:
            await create(nodes.a, name)

        async def produce(store: Store, order: list[str]) -> None:
            for _ in range(20):
                await asyncio.gather(*(store.append(name, lines("x"), None, NOW) for name in order))

        work = asyncio.gather(produce(nodes.a, names), produce(nodes.b, names[::-1]))
        await asyncio.wait_for(work, LIMIT)
        for name in names:
            assert (await nodes.b.get_task(name)).last == 40

    async def test_no_two_claims_get_the_same_run(self, nodes: Nodes) -> None:
        await register(nodes.a)
        runs = {(await trigger(nodes.a)).id for _ in range(30)}
        stores = [nodes.a, nodes.b] * 20
        answers = await asyncio.gather(*(claim(store, f"claim-{number}") for number, store in enumerate(stores)))
        assert Counter(run.id for run in answers if run is not None) == Counter(runs)

    async def test_one_claim_on_both_nodes_gets_one_run(self, nodes: Nodes) -> None:
        await register(nodes.a)
        for _ in range(10):
            await trigger(nodes.a)
        for number in range(5):
            answers = await asyncio.gather(*(claim(store, f"c{number}") for store in (nodes.a, nodes.b) * 3))
            assert len({run.id for run in answers if run is not None}) == 1

    async def test_runs_that_both_work_on_keep_their_events_dense(self, nodes: Nodes) -> None:
        await register(nodes.a)
        runs = [await trigger(nodes.a) for _ in range(4)]

        async def live(store: Store, run: Run, number: int) -> None:
            task = await add_task(store, run, "split", map_index=number, secret=None)
            other = nodes.b if store is nodes.a else nodes.a
            await other.append(task.id, lines("a"), None, NOW)
            await store.finish(task.id, Outcome(), NOW)

        calls = [
            live(store, run, 2 * n + k) for n in range(6) for run in runs for k, store in enumerate((nodes.a, nodes.b))
        ]
        await asyncio.wait_for(asyncio.gather(*calls), LIMIT)
        for run in runs:
            told = await events(nodes.b, run)
            assert len(told) == 36
            for number in range(12):
                mine = [event["status"] for event in told if event["map_index"] == number]
                assert mine == ["queued", "running", "success"]

    async def test_cancelling_deleting_and_working_on_the_same_runs_ends_well(self, nodes: Nodes) -> None:
        await register(nodes.a)
        for _ in range(4):
            runs = [await trigger(nodes.a) for _ in range(3)]
            tasks = [await add_task(nodes.a, run, f"t{n}", secret=None, lease=1) for run in runs for n in range(6)]
            calls: list[Awaitable[Any]] = []
            for number, task in enumerate(tasks):
                store = nodes.b if number % 2 else nodes.a
                calls += [store.append(task.id, lines("x"), None, NOW), store.finish(task.id, SUCCESS, NOW)]
            calls += [nodes.a.cancel_run(runs[0].id, NOW), nodes.b.delete_run(runs[1].id)]
            calls += [nodes.b.finish_run(runs[2].id, None, RunState.SUCCESS, "", NOW)]
            calls += [store.expire_leases(NOW + 5 * SECOND) for store in (nodes.a, nodes.b)]
            answers = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), LIMIT)
            for answer in answers:
                assert not isinstance(answer, BaseException) or isinstance(answer, TaskServerError), answer
                assert not isinstance(answer, StoreUnavailable), answer
            assert await nodes.a.run_tasks(runs[1].id) == []
            assert {task.finished for task in await nodes.b.run_tasks(runs[0].id)} == {True}

    async def test_each_overdue_task_and_run_is_dealt_with_by_one(self, nodes: Nodes) -> None:
        await register(nodes.a)
        for number in range(20):
            await create(nodes.a, f"t{number}", lease=1)
        await trigger(nodes.a)
        assert await claim(nodes.a, lease=1) is not None
        later = NOW + 9 * SECOND
        tasks = await asyncio.gather(*(store.expire_leases(later) for store in (nodes.a, nodes.b) * 3))
        assert Counter(task.id for found in tasks for task in found) == Counter(f"t{number}" for number in range(20))
        runs = await asyncio.gather(*(store.expire_runs(later) for store in (nodes.a, nodes.b) * 3))
        assert sum(map(len, runs)) == 1

    async def test_an_overdue_run_is_deleted_while_the_reaper_waits_for_it(self, nodes: Nodes) -> None:
        await register(nodes.a)
        await trigger(nodes.a)
        run = await claim(nodes.a, lease=1)
        assert run is not None
        await add_task(nodes.a, run, "split")
        async with tasks_locked(nodes) as waiting:
            deleting = asyncio.ensure_future(nodes.a.delete_run(run.id))
            await waiting(1)
            expiring = asyncio.ensure_future(nodes.b.expire_runs(NOW + 9 * SECOND))
            await waiting(2)
        await deleting
        assert await expiring == []

    async def test_no_two_prune_the_same(self, nodes: Nodes) -> None:
        live = await create(nodes.a, "live")
        for number in range(80):
            await finished(nodes.a, f"old-{number}", *numbered(0, 5))
        told = Recorder()
        nodes.a.listen(told)
        nodes.b.listen(told)

        async def prune(node: Store) -> int:
            removed = 0
            while ended := await node.prune(NOW + SECOND, 7):
                await node.sweep()
                removed += ended.tasks
            return removed

        async def produce() -> None:
            for number in range(50):
                await nodes.b.append("live", lines(f"{number}"), number, NOW)

        removed = await asyncio.gather(prune(nodes.a), prune(nodes.b), produce())
        assert removed[0] + removed[1] == 80
        assert Counter(change.task.id for change in told.changes if change.deleted) == Counter(
            f"old-{number}" for number in range(80)
        )
        assert await texts(nodes.a, live.log) == [f"{number}" for number in range(50)]
        while await nodes.a.sweep():
            pass
        assert await nodes.execute("SELECT DISTINCT log FROM chunk") == [(live.log,)]
        assert await nodes.execute("SELECT 1 FROM discarded") == []

    async def test_what_is_being_sealed_or_swept_is_pruned_all_the_same(self, nodes: Nodes) -> None:
        for name in ("a", "b"):
            await finished(nodes.a, name)
        async with tasks_locked(nodes) as waiting:  # as the sealer does for a moment
            pruning = [asyncio.ensure_future(node.prune(NOW + SECOND, 7)) for node in (nodes.a, nodes.b)]
            await waiting(2)  # one for the tasks, one for its turn
        assert sum([(await ended).tasks for ended in pruning]) == 2
        assert not await nodes.a.prune(NOW + SECOND, 7)

    async def test_both_may_seal_at_once_and_one_may_delete(self, nodes: Nodes) -> None:
        for number in range(4):
            task = await create(nodes.a, f"t{number}")
            for first in range(0, 30_000, 5000):
                batch = [f"{line:06d} ".ljust(200, ".") for line in range(first, first + 5000)]
                await nodes.a.append(task.id, lines(*batch), first, NOW)
            await nodes.a.finish(task.id, SUCCESS, NOW)
            sealing = asyncio.gather(*(store.seal(task.log) for store in (nodes.a, nodes.b, nodes.b)))
            if number == 3:
                await nodes.b.delete_task(task.id)
                await sealing
                while await nodes.a.sweep():
                    pass
                assert await nodes.execute("SELECT 1 FROM chunk WHERE log = $1", task.log) == []
            else:
                await sealing
                assert sum(chunk.count for chunk in await chunks(nodes.b, task.log)) == 30_000
                plain = "SELECT 1 FROM chunk WHERE log = $1 AND codec = 0"
                assert await nodes.execute(plain, task.log) == []
        assert await nodes.a.unsealed(9) == []


class TestWakeups:
    async def test_one_node_wakes_the_others_waiters(self, wakeups: Wakeups) -> None:
        a, b = wakeups
        with b.subscribe("output:build", "key:x") as waiter, b.subscribe("other") as other:
            waiter.clear()
            other.clear()
            a.publish(["output:build", "end:build"])
            assert await waiter.wait(LONG) is True
            assert await other.wait(0.05) is False

    async def test_thousands_of_topics_are_told(self, wakeups: Wakeups) -> None:
        a, b = wakeups
        topics = [f"output:{'long' * 16}{number}" for number in range(3000)]
        with b.subscribe(topics[0]) as first, b.subscribe(topics[-1]) as last:
            first.clear()
            last.clear()
            a.publish(topics)
            assert await first.wait(LONG) is True
            assert await last.wait(LONG) is True

    async def test_what_was_published_before_the_close_is_told(self, wakeups: Wakeups) -> None:
        a, b = wakeups
        with b.subscribe("x") as waiter:
            waiter.clear()
            for _ in range(3):
                a.publish(["x"])
            await a.close()
            assert await waiter.wait(LONG) is True

    async def test_a_listening_connection_that_was_cut_comes_back(self, nodes: Nodes, wakeups: Wakeups) -> None:
        a, b = wakeups
        with b.subscribe("x") as waiter:
            waiter.clear()
            await nodes.cut("application_name LIKE '% listening'")
            assert await waiter.wait(LONG) is True  # it is told to look when the new connection listens
            waiter.clear()
            a.publish(["x"])
            assert await waiter.wait(LONG) is True

    async def test_what_could_not_be_told_is_told_later(self, nodes: Nodes, wakeups: Wakeups) -> None:
        a, b = wakeups
        with b.subscribe("x") as waiter:
            await nodes.cut("application_name NOT LIKE '% listening'")
            waiter.clear()
            a.publish(["x"])
            assert await waiter.wait(LONG) is True


class TestPartials:
    @pytest.mark.usefixtures("wakeups")
    async def test_one_node_tells_the_others_as_long_as_it_may_be(self, nodes: Nodes) -> None:
        told = [Recorder(), Recorder()]
        nodes.a.listen(told[0])
        nodes.b.listen(told[1])
        bars = [
            Partial(7, 3, Unfinished("", "10%")),
            Partial(7, 3, Unfinished("\u2588" * (PARTIAL_BYTES // 3), "\U0001d11e" * (PARTIAL_BYTES // 4))),
            Partial(8, 0, Unfinished()),
        ]
        for bar in bars:
            nodes.a.tell(bar)
            await eventually(lambda bar=bar: told[1].partials[-1:] == [bar], "the bar")  # type: ignore[misc]
        assert told[0].partials == told[1].partials == bars, "each once"

    @pytest.mark.usefixtures("wakeups")
    async def test_of_many_movements_the_last_is_told(self, nodes: Nodes) -> None:
        told = Recorder()
        nodes.b.listen(told)
        for number in range(1000):
            nodes.a.tell(Partial(number % 2, 3, Unfinished("", f"{number}")))
        await eventually(
            lambda: {bar.unfinished.stderr for bar in told.partials[-2:]} == {"998", "999"}, "the last ones"
        )
        assert len(told.partials) < 100

    async def test_what_cannot_be_told_is_lost_and_no_wakeup_with_it(self, nodes: Nodes, wakeups: Wakeups) -> None:
        a, b = wakeups
        told = Recorder()
        nodes.b.listen(told)
        with b.subscribe("x") as waiter:
            waiter.clear()
            nodes.a.tell(Partial(7, 3, Unfinished("", "no text of PostgreSQL's: \0")))
            a.publish(["x"])
            assert await waiter.wait(LONG) is True
        nodes.a.tell(Partial(7, 3, Unfinished("", "20%")))
        await eventually(lambda: told.partials == [Partial(7, 3, Unfinished("", "20%"))], "the next one")

    async def test_without_others_it_is_told_here(self, nodes: Nodes) -> None:
        told = Recorder()
        nodes.a.listen(told)
        nodes.a.tell(Partial(7, 3, Unfinished("", "10%")))
        assert told.partials == [Partial(7, 3, Unfinished("", "10%"))]


class TestFaults:
    async def test_connections_that_are_cut_under_load_cost_no_line(self, nodes: Nodes) -> None:
        names = [f"t{number}" for number in range(8)]
        for name in names:
            await create(nodes.a, name)
        done = 0

        async def produce(store: Store, name: str) -> None:
            nonlocal done
            for number in range(40):
                answer = await insisting(lambda: store.append(name, lines(f"line {number}"), number, NOW))  # noqa: B023
                assert answer == Appended(number, number + 1)
                done += 1

        work = asyncio.gather(*(produce((nodes.a, nodes.b)[number % 2], name) for number, name in enumerate(names)))
        for part in (60, 120, 180, 240):
            await eventually(lambda: done >= part, "the progress")  # noqa: B023
            await nodes.cut()
        await work
        for name in names:
            task = await insisting(lambda: nodes.b.get_task(name))  # noqa: B023
            assert await texts(nodes.b, task.log) == numbered(0, 40)

    async def test_a_lock_that_an_operator_holds_delays_only_what_needs_it(self, nodes: Nodes) -> None:
        await create(nodes.a, "held")
        await create(nodes.a, "free")
        async with tasks_locked(nodes, "id = 'held'") as waiting:
            held = asyncio.ensure_future(nodes.a.append("held", lines("x"), 0, NOW))
            await waiting(1)
            await nodes.a.ping()
            assert await nodes.a.append("free", lines("x"), 0, NOW) == Appended(0, 1)
            assert not held.done()
        assert await held == Appended(0, 1)

    async def test_a_database_that_only_reads_is_not_available(self, nodes: Nodes) -> None:
        await create(nodes.a)
        # As on a standby that a node is still connected to.
        await nodes.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION"
            " 'cannot execute in a read-only transaction' USING ERRCODE = '25006'; END $$"
        )
        await nodes.execute("CREATE TRIGGER refuse BEFORE UPDATE ON task EXECUTE FUNCTION refuse()")
        with pytest.raises(StoreUnavailable):
            await nodes.a.append("build", lines("x"), 0, NOW)
        await nodes.execute("DROP TRIGGER refuse ON task")
        assert await nodes.a.append("build", lines("x"), 0, NOW) == Appended(0, 1)
        assert (await nodes.a.get_task("build")).state is TaskState.RUNNING

    async def test_a_full_disk_is_told_as_such(self, nodes: Nodes) -> None:
        await create(nodes.a)
        await nodes.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION"
            " 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$"
        )
        await nodes.execute("CREATE TRIGGER refuse BEFORE INSERT ON chunk EXECUTE FUNCTION refuse()")
        answers = await asyncio.gather(
            nodes.a.append("build", lines("x"), 0, NOW), nodes.a.heartbeat("build", NOW), return_exceptions=True
        )
        assert "StoreFull" in {type(answer).__name__ for answer in answers}
        assert (await nodes.b.get_task("build")).last == 0
        await nodes.execute("DROP TRIGGER refuse ON chunk")
        assert await nodes.a.append("build", lines("x"), 0, NOW) == Appended(0, 1)

    async def test_a_taken_id_is_told_whoever_was_first(self, nodes: Nodes) -> None:
        await create(nodes.a)
        with pytest.raises(TaskExists):
            await create(nodes.b)
