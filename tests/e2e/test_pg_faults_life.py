"""Nodes that start and stop when their database cannot be reached, and at the same moment."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import pytest

from taskserver.errors import StoreUnavailable
from taskserver.model import NewTask
from taskserver.stores import open_store
from tests.e2e.network import Network
from tests.e2e.nodes import make_nodes
from tests.e2e.pg_world import World
from tests.e2e.private_postgres import PrivatePostgres
from tests.server import Server, until

CANNOT_START = 3
SECOND = 1_000_000  # µs
START_LIMIT = 20.0  # seconds; 5 as a rule (connect.CONNECT_TIMEOUT)
STOP_LIMIT = 30.0  # seconds; 10 at most as a rule (store.CLOSE_TIMEOUT, twice)


def test_nodes_that_start_at_the_same_moment_make_one_schema_and_one_first_key(
    private_postgres: PrivatePostgres, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as stack:
        nodes = []
        for name in "abc":
            folder = tmp_path / name
            folder.mkdir()
            node = Server(folder)
            node.use_database(private_postgres.url)
            stack.push(node)  # whatever happens, its process ends
            nodes.append(node)
        for node in nodes:
            node.launch()
        for node in nodes:
            node.wait_until_it_listens()
        (first,) = [node for node in nodes if node.key_file.exists()]
        for node in nodes:
            assert node.get("/v1/keys", key=first.key).status == 200
            # Nothing is left of the keys that the others made in vain.
            assert [file.name for file in node.folder.glob("*.key*")] == [node.key_file.name] * (node is first)


def test_a_node_that_cannot_reach_its_database_does_not_start(
    private_postgres: PrivatePostgres, tmp_path: Path
) -> None:
    with Network(private_postgres.port) as network:
        (node,) = make_nodes(tmp_path, private_postgres.url_at(network.port))
        network.stall()
        began = time.monotonic()
        refusal = node.start_refused()
        assert refusal.status == CANNOT_START
        assert "cannot open database" in refusal.message
        assert time.monotonic() - began < START_LIMIT
        network.whole()
        with node:
            assert node.get("/readyz").status == 200


def test_a_node_stops_in_time_although_its_database_hangs(world: World) -> None:
    node = world.nodes[0]
    task = node.new_task()
    world.network.stall()
    with contextlib.suppress(ConnectionError):
        assert node.post(f"/v1/tasks/{task}/output?first=0", "a line\n").status == 503
    assert node.stop(STOP_LIMIT) == 0
    world.network.whole()
    assert "Traceback" not in node.log
    assert world.nodes[1].get(f"/v1/tasks/{task}").json["output"] in ([], ["a line"])


async def test_a_store_leaves_no_task_behind_whatever_hung(private_postgres: PrivatePostgres) -> None:
    before = asyncio.all_tasks()
    with Network(private_postgres.port) as network:
        store = await open_store(private_postgres.url_at(network.port))
        wakeup = await store.open_wakeup()
        await store.create_task(NewTask("build", "ann"), 0)
        await asyncio.to_thread(network.stall)
        calls = [store.get_task("build"), store.heartbeat("build", 0), store.ping(), store.expire_leases(1)]
        answers = await asyncio.gather(*calls, store.unsealed(1), return_exceptions=True)
        assert [type(answer) for answer in answers] == [StoreUnavailable] * len(answers)
        await wakeup.close()
        await store.close()
        # What asyncpg has under way itself, such as asking to cancel a statement, ends by its own limits.
        await asyncio.to_thread(network.whole)
        left = asyncio.all_tasks() - before
        if left:
            await asyncio.wait(left, timeout=START_LIMIT)
        assert asyncio.all_tasks() == before
        await asyncio.to_thread(until, lambda: network.connections == 0, "the end of all connections")


async def test_who_waited_for_a_lock_for_too_long_did_not_store_anything(private_postgres: PrivatePostgres) -> None:
    import asyncpg

    store = await open_store(private_postgres.url)
    await store.create_task(NewTask("build", "ann"), 0)
    operator = await asyncpg.connect(private_postgres.url)
    async with operator.transaction():
        await operator.execute("SELECT 1 FROM task FOR UPDATE")
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await store.heartbeat("build", 1)
        assert time.monotonic() - began < START_LIMIT
    assert (await store.get_task("build")).started_at is None
    await store.heartbeat("build", 2)
    assert (await store.get_task("build")).started_at == 2
    await operator.close()
    await store.close()


async def test_a_look_for_lost_producers_that_was_held_up_ends_no_task(private_postgres: PrivatePostgres) -> None:
    import asyncpg

    store = await open_store(private_postgres.url)
    await store.create_task(NewTask("build", "ann", lease_us=SECOND), 0)
    operator = await asyncpg.connect(private_postgres.url)
    async with operator.transaction():
        await operator.execute("SELECT 1 FROM task FOR UPDATE")
        beating = asyncio.ensure_future(store.heartbeat("build", 5 * SECOND))
        await asyncio.sleep(0)  # it is asked first, and will be refused
        looking = asyncio.ensure_future(store.expire_leases(6 * SECOND))
        refusals = await asyncio.gather(beating, looking, return_exceptions=True)
        assert [type(refusal) for refusal in refusals] == [StoreUnavailable] * 2
    # Its producer repeats the heartbeat in time, and only then it is looked again.
    await store.heartbeat("build", 6 * SECOND)
    assert await store.expire_leases(6 * SECOND) == []
    await operator.close()
    await store.close()
