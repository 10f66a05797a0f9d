"""What befalls PostgreSQL and the way to it, under a running load on two nodes.

In each case no acknowledged line is lost or repeated, followers end complete,
appends get success or a 503 that asks them to come back, the nodes recover by
themselves, and leak nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import pytest

from taskserver.errors import StoreUnavailable
from taskserver.stores import open_store
from taskserver.stores.postgres import connect
from tests.contract.helpers import NOW, create, lines, texts
from tests.e2e.network import Network
from tests.e2e.nodes import make_nodes
from tests.e2e.pg_world import CONNECTIONS, LISTENING, World, happens
from tests.e2e.private_postgres import PrivatePostgres
from tests.server import Answer, Server, until

ROUNDS = 2
LEASE = 6.0  # seconds; shorter than outages, longer than a machine under load stands still
LONG_LEASE = 30.0  # longer than the time for an answer: while one node hangs, the other one can hear a producer
HEALTH_LIMIT = 8.0  # seconds for a look at a node's health: 2 as a rule (pulse.PATIENCE)


# --- PostgreSQL itself -------------------------------------------------------------


async def test_it_is_restarted(world: World) -> None:
    async with world.load() as load:
        for _ in range(ROUNDS):
            await asyncio.to_thread(world.postgres.restart)
            await load.goes_on()
            await load.check()


async def test_it_is_killed(world: World) -> None:
    async with world.load() as load:
        for _ in range(ROUNDS):
            world.postgres.kill()
            refused = load.figures.refused
            await happens(lambda refused=refused: load.figures.refused > refused, load)  # type: ignore[misc]
            for node in world.nodes:
                answer = await asyncio.to_thread(unready, node)
                assert answer.json["status"] == "store unavailable"
                assert answer.headers["Retry-After"]
            await asyncio.to_thread(world.postgres.start)
            await load.goes_on()
            await load.check()


def unready(node: Server) -> Answer:
    """Its word that it cannot work. A connection may take a moment longer to break than the one that told us."""

    def look() -> Answer | None:
        answer = node.get("/readyz")
        return answer if answer.status == 503 else None

    return until(look, "the word that the node is not ready")


async def test_its_connections_are_ended_one_by_one(world: World) -> None:
    async with world.load() as load:
        ended = set()
        while left := [pid for pid in await asyncio.to_thread(world.connections) if pid not in ended][:1]:
            ended.update(left)
            await asyncio.to_thread(world.terminate, f"pid = {left[0]}")
            await load.goes_on(20)
            if len(ended) > 3 * CONNECTIONS:  # all that were there, and some that came for them
                break
        await load.check()


async def test_the_connections_that_listen_are_ended(world: World) -> None:
    async with world.load() as load:
        for _ in range(ROUNDS):
            await happens(lambda: len(world.connections(LISTENING)) == 2, load)
            assert await asyncio.to_thread(world.terminate, LISTENING) == 2
            await load.goes_on()
        await happens(lambda: len(world.connections(LISTENING)) == 2, load)
        # Wake-ups arrive again: a wait on one node is over long before it would look by itself.
        task = await asyncio.to_thread(world.nodes[0].new_task)
        waiting = asyncio.create_task(asyncio.to_thread(world.nodes[1].get, f"/v1/tasks/{task}?wait=20"))
        began = time.monotonic()
        await asyncio.to_thread(world.nodes[0].post, f"/v1/tasks/{task}/finish", {})
        assert (await waiting).json["finished"]
        assert time.monotonic() - began < 8


async def test_an_outage_is_longer_than_leases(world: World) -> None:
    async with world.load(lease=LEASE) as load:
        lost = await asyncio.to_thread(world.nodes[0].new_task, lease=LEASE)
        await asyncio.to_thread(world.postgres.stop)
        await asyncio.sleep(1.5 * LEASE)  # not to synchronise: the outage itself
        await asyncio.to_thread(world.postgres.start)
        await load.goes_on()
        await load.check()  # no task of the load is interrupted
        # But one whose producer really is lost still ends, a lease after the nodes are back.
        answer = await asyncio.to_thread(world.nodes[1].get, f"/v1/tasks/{lost}?wait=20")
        assert answer.json["state"] == "interrupted"


async def test_the_only_node_is_cut_off_for_longer_than_leases(world: World) -> None:
    assert world.nodes[1].stop() == 0
    del world.nodes[1]
    async with world.load(lease=LEASE) as load:
        lost = await asyncio.to_thread(world.nodes[0].new_task, lease=LEASE)
        world.network.stall()
        await asyncio.sleep(3 * LEASE)  # the outage itself
        world.network.whole()  # and everything that was under way arrives, the reaper's look too
        await load.goes_on()
        await load.check()
        answer = await asyncio.to_thread(world.nodes[0].get, f"/v1/tasks/{lost}?wait=20")
        assert answer.json["state"] == "interrupted"


# --- no connection is to be had, or none gets on -----------------------------------


async def test_the_role_may_have_no_more_connections(private_postgres: PrivatePostgres, tmp_path: Path) -> None:
    postgres = private_postgres
    postgres.fetch("CREATE ROLE tasks LOGIN")
    postgres.fetch("GRANT ALL ON SCHEMA public TO tasks")
    url = postgres.url_at(postgres.port, "tasks")
    first, second = make_nodes(tmp_path, url, url)
    with Network(postgres.port) as network, first, second:
        world = World(postgres, network, [first, second])
        async with world.load() as load:
            for limit in (3, 0):
                await asyncio.to_thread(postgres.fetch, f"ALTER ROLE tasks CONNECTION LIMIT {limit}")
                await asyncio.to_thread(world.terminate)
                refused = load.figures.refused
                await happens(lambda refused=refused: load.figures.refused > refused + 10, load)  # type: ignore[misc]
            await asyncio.to_thread(postgres.fetch, "ALTER ROLE tasks CONNECTION LIMIT -1")
            await load.goes_on()
            await load.check()


async def test_somebody_locks_the_tables(world: World) -> None:
    import asyncpg

    async with world.load() as load:
        operator = await asyncpg.connect(world.postgres.url)
        try:
            await operator.execute("BEGIN")
            await operator.execute("LOCK TABLE task, chunk IN ACCESS EXCLUSIVE MODE")
            # All that commit and all that read are held up. Everybody is told so in time.
            refused = load.figures.refused
            await happens(lambda: load.figures.refused > refused + 6, load)
            began = time.monotonic()
            assert (await asyncio.to_thread(world.nodes[0].get, "/readyz")).status in (200, 503)
            assert time.monotonic() - began < HEALTH_LIMIT
            await operator.execute("ROLLBACK")
        finally:
            await operator.close()
        await load.goes_on()
        await load.check()


# --- nodes and the network -----------------------------------------------------------


async def test_a_node_is_killed(world: World) -> None:
    async with world.load() as load:
        for _ in range(ROUNDS):
            world.nodes[0].kill()
            await load.goes_on()  # on the other one
            await asyncio.to_thread(world.nodes[0].start)
            await load.goes_on()
            await load.check()


@pytest.mark.parametrize(("up", "down"), [(True, True), (True, False), (False, True)], ids=["both-ways", "up", "down"])
async def test_the_network_is_cut(world: World, up: bool, down: bool) -> None:
    async with world.load(lease=LONG_LEASE) as load:
        world.network.stall(up=up, down=down)
        refused = load.figures.refused
        await happens(lambda: load.figures.refused > refused + 10, load)
        began = time.monotonic()
        assert (await asyncio.to_thread(world.nodes[0].get, "/readyz")).status == 503
        assert time.monotonic() - began < HEALTH_LIMIT
        assert (await asyncio.to_thread(world.nodes[1].get, "/readyz")).status == 200
        world.network.reset()
        world.network.whole()
        await load.goes_on()
        await load.check()


async def test_the_network_stands_still_for_a_moment(world: World) -> None:
    async with world.load() as load:
        for _ in range(ROUNDS):
            world.network.stall()
            await load.goes_on(20)  # through the other node
            world.network.whole()
            await load.goes_on()
        await load.check()


async def test_an_append_whose_answer_is_held_back_is_stored_once(
    private_postgres: PrivatePostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("COMMAND_TIMEOUT", "ACQUIRE_TIMEOUT"):
        monkeypatch.setattr(connect, limit, 1.0)
    with Network(private_postgres.port) as network:
        store = await open_store(private_postgres.url_at(network.port))
        await create(store)
        for number in range(3):  # now the node appends to this task without a transaction
            await store.append("build", lines(f"line {number}"), number, NOW)
        network.stall(up=False)
        with pytest.raises(StoreUnavailable, match="it is not known whether this was stored"):
            # Without a cursor, so that nobody would recognise its repeat.
            await store.append("build", lines("once"), None, NOW)
        await asyncio.to_thread(network.whole)
        with contextlib.suppress(StoreUnavailable):  # as above; what is behind it in the task waits until that is over
            await store.append("build", lines("after"), None, NOW)
        task = await store.get_task("build")
        assert (await texts(store, task.log))[:4] == ["line 0", "line 1", "line 2", "once"]
        assert (await texts(store, task.log)).count("once") == 1
        await store.close()


async def test_the_network_breaks(world: World) -> None:
    async with world.load() as load:
        for _ in range(5):
            world.network.reset()
            await load.goes_on(20)
        await load.check()


# --- conflicts -------------------------------------------------------------------------


async def test_transactions_deadlock(world: World) -> None:
    import asyncpg

    async with world.load() as load:
        operator = await asyncpg.connect(world.postgres.url)
        try:
            sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
            before, deadline = await operator.fetchval(sql), time.monotonic() + 20
            while await operator.fetchval(sql) < before + 3:
                assert time.monotonic() < deadline
                # Against the nodes' order, one by one, so that they meet in the middle.
                ids = [row[0] for row in await operator.fetch("SELECT id FROM task ORDER BY log DESC LIMIT 12")]
                with contextlib.suppress(asyncpg.DeadlockDetectedError):
                    async with operator.transaction():
                        for task_id in sorted(ids, reverse=True):
                            await operator.execute("SELECT 1 FROM task WHERE id = $1 FOR UPDATE", task_id)
                            await asyncio.sleep(0.002)  # not to synchronise: the nodes take theirs meanwhile
        finally:
            await operator.close()
        await load.goes_on()
        await load.check()


async def test_transactions_cannot_be_serialized(world: World) -> None:
    async with world.load() as load:
        # What a stricter isolation level would bring: 40001, at a statement or as late as the commit.
        await asyncio.to_thread(world.postgres.fetch, "CREATE SEQUENCE turn")
        await asyncio.to_thread(
            world.postgres.fetch,
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF nextval('turn') % 5 = 0 THEN"
            " RAISE EXCEPTION 'could not serialize access' USING ERRCODE = 'serialization_failure';"
            " END IF; RETURN NULL; END $$",
        )
        await asyncio.to_thread(
            world.postgres.fetch, "CREATE TRIGGER fail AFTER INSERT ON chunk EXECUTE FUNCTION fail()"
        )
        await asyncio.to_thread(
            world.postgres.fetch,
            "CREATE CONSTRAINT TRIGGER fail_late AFTER UPDATE ON task INITIALLY DEFERRED FOR EACH ROW"
            " EXECUTE FUNCTION fail()",
        )
        await load.goes_on(500)
        assert (await asyncio.to_thread(world.postgres.fetch, "SELECT last_value FROM turn"))[0][0] > 20
        await asyncio.to_thread(world.postgres.fetch, "DROP FUNCTION fail CASCADE")
        await load.check()
