"""Store: dags, and runs as they are queued, found and listed."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from taskserver.dagmodel import DagTask, NewRun, RunState, uuid7
from taskserver.errors import DagExists, DagNotFound, RunExists, RunNotFound
from taskserver.store import RunChange, Store
from tests.contract.helpers import NOW, SECOND, Opener, Recorder
from tests.contract.run_helpers import TASKS, queued, register, trigger

NOBODY = uuid.UUID(int=7)


class TestDags:
    async def test_a_dag_is_kept_as_it_was_registered(self, store: Store) -> None:
        dag = await register(store, retries=3)
        assert (dag.dag_id, dag.owner, dag.display_name, dag.retries, dag.tasks) == ("etl", "ann", "ETL", 3, TASKS)
        assert (dag.created_at, dag.updated_at) == (NOW, NOW)
        assert await store.get_dag("etl") == await store.find_dag(dag.config_id) == dag

    async def test_registering_again_replaces_all_but_its_identity(self, store: Store) -> None:
        before = await register(store, retries=3)
        after = await register(store, retries=0, tasks=(DagTask("other"),), now=NOW + 5)
        assert after == replace(before, retries=0, tasks=(DagTask("other"),), updated_at=NOW + 5)
        assert await store.get_dag("etl") == after

    async def test_another_owners_id_is_taken(self, store: Store) -> None:
        dag = await register(store)
        with pytest.raises(DagExists):
            await register(store, owner="bob", retries=9)
        assert await store.get_dag("etl") == dag

    async def test_every_dag_has_a_config_id_of_its_own(self, store: Store) -> None:
        assert len({(await register(store, name)).config_id for name in ("a", "b", "c")}) == 3

    async def test_unknown_ones_are_not_found(self, store: Store) -> None:
        with pytest.raises(DagNotFound):
            await store.get_dag("etl")
        with pytest.raises(DagNotFound):
            await store.find_dag(NOBODY)

    async def test_they_are_listed_in_order_of_their_ids(self, store: Store) -> None:
        assert await store.list_dags(None) == []
        for name, owner in (("c", "ann"), ("a", "bob"), ("b", "ann")):
            await register(store, name, owner=owner)
        assert [dag.dag_id for dag in await store.list_dags(None)] == ["a", "b", "c"]
        assert [dag.dag_id for dag in await store.list_dags("ann")] == ["b", "c"]
        assert await store.list_dags("eve") == []

    async def test_they_survive_a_restart(self, opener: Opener[Store], tmp_path: Path) -> None:
        store = await opener(tmp_path)
        dag = await register(store, retries=2)
        await store.close()
        store = await opener(tmp_path)
        assert await store.get_dag("etl") == dag
        await store.close()


class TestQueueing:
    async def test_a_run_is_queued_as_it_was_asked_for(self, store: Store, changes: Recorder) -> None:
        await register(store, retries=2)
        new = NewRun(
            id=uuid7(NOW),
            run_id="manual__1",
            triggered_by="cron",
            dag_id="etl",
            conf=b'{"day":1}',
            metadata=b'{"a":[null]}',
            tag="nightly",
            note="a note",
            partition_key="p1",
            logical_date=NOW + 1,
            data_interval_start=NOW + 2,
            data_interval_end=NOW + 3,
            run_after=NOW + 4,
        )
        run = await store.create_run(new, NOW)
        for name in NewRun.__dataclass_fields__:
            assert getattr(run, name) == getattr(new, name)
        assert (run.state, run.finished, run.last, run.attempt, run.claim) == (RunState.QUEUED, False, 0, 0, None)
        assert (run.owner, run.retries, run.tasks, run.display_name, run.queued_at) == ("ann", 2, TASKS, "ETL", NOW)
        assert await store.get_run(run.id) == await store.find_run("etl", "manual__1") == run
        assert changes.take_runs() == [RunChange(run)]

    async def test_it_is_due_at_once_unless_it_says_otherwise(self, store: Store) -> None:
        assert (await queued(store)).run_after == NOW

    async def test_it_keeps_the_tasks_that_the_dag_had(self, store: Store) -> None:
        run = await queued(store, retries=1)
        await register(store, retries=5, tasks=(DagTask("other"),))
        assert await store.get_run(run.id) == run
        assert (await trigger(store)).tasks == (DagTask("other"),)

    async def test_it_belongs_to_the_dags_owner(self, store: Store) -> None:
        await register(store, owner="bob")
        assert (await trigger(store)).owner == "bob"

    async def test_without_a_dag_there_is_no_run(self, store: Store) -> None:
        with pytest.raises(DagNotFound):
            await trigger(store, "nothing")

    async def test_a_run_id_stands_once_in_its_dag(self, store: Store, changes: Recorder) -> None:
        await register(store)
        await register(store, "other")
        run = await trigger(store, "etl", "daily")
        changes.take_runs()
        with pytest.raises(RunExists):
            await trigger(store, "etl", "daily", conf=b'{"other":1}')
        assert changes.take_runs() == []
        assert await store.find_run("etl", "daily") == run
        assert (await trigger(store, "other", "daily")).id != run.id

    async def test_a_logical_date_stands_once_in_its_dag(self, store: Store) -> None:
        await register(store)
        await register(store, "other")
        await trigger(store, logical_date=NOW)
        with pytest.raises(RunExists):
            await trigger(store, logical_date=NOW)
        await trigger(store, logical_date=NOW + 1)
        await trigger(store, "other", logical_date=NOW)
        await trigger(store)
        await trigger(store)
        assert (await store.list_runs("etl", 10, 0))[1] == 4

    async def test_runs_survive_a_restart(self, opener: Opener[Store], tmp_path: Path) -> None:
        store = await opener(tmp_path)
        run = await queued(store)
        await store.close()
        store = await opener(tmp_path)
        assert await store.get_run(run.id) == run
        await store.close()


class TestFinding:
    async def test_unknown_ones_are_not_found_and_named(self, store: Store) -> None:
        await queued(store)
        with pytest.raises(RunNotFound, match=str(NOBODY)):
            await store.get_run(NOBODY)
        with pytest.raises(RunNotFound, match="'daily'"):
            await store.find_run("etl", "daily")
        with pytest.raises(RunNotFound, match="'nightly'"):
            await store.find_tagged_run("nightly", "ann")

    async def test_a_run_id_is_looked_for_in_its_dag(self, store: Store) -> None:
        await register(store)
        await register(store, "other")
        await trigger(store, "etl", "daily")
        with pytest.raises(RunNotFound):
            await store.find_run("other", "daily")

    async def test_of_runs_with_one_tag_the_newest_is_found(self, store: Store) -> None:
        await register(store)
        await register(store, "bobs", owner="bob")
        await trigger(store, tag="nightly", now=NOW + SECOND)
        mine = await trigger(store, tag="nightly", now=NOW)
        his = await trigger(store, "bobs", tag="nightly")
        await trigger(store, tag="weekly")
        assert await store.find_tagged_run("nightly", "ann") == mine
        assert await store.find_tagged_run("nightly", "bob") == await store.find_tagged_run("nightly", None) == his
        with pytest.raises(RunNotFound):
            await store.find_tagged_run("nightly", "eve")

    async def test_they_are_listed_in_the_order_in_which_they_were_queued(self, store: Store) -> None:
        await register(store)
        await register(store, "other")
        assert await store.list_runs("etl", 10, 0) == ([], 0)
        runs = [await trigger(store, run_id=name, run_after=NOW - number) for number, name in enumerate("cab")]
        await trigger(store, "other")
        assert await store.list_runs("etl", 10, 0) == (runs, 3)
        assert await store.list_runs("etl", 2, 1) == (runs[1:], 3)
        assert await store.list_runs("etl", 1, 0) == (runs[:1], 3)
        assert await store.list_runs("etl", 10, 3) == ([], 3)


class TestSecrets:
    async def test_the_first_secret_is_kept(self, opener: Opener[Store], tmp_path: Path) -> None:
        store = await opener(tmp_path)
        assert await store.keep_secret("signing", b"one\x00\xff") == b"one\x00\xff"
        assert await store.keep_secret("signing", b"two") == b"one\x00\xff"
        assert await store.keep_secret("other", b"three") == b"three"
        await store.close()
        store = await opener(tmp_path)
        assert await store.keep_secret("signing", b"four") == b"one\x00\xff"
        await store.close()
