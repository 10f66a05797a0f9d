"""The benchmark's figures about PostgreSQL, on a small scale."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.bench.__main__ import main
from tests.bench.figure import CLIENT_CPU
from tests.bench.figures.postgres import Appends, Bulk, Store, make_tasks
from tests.bench.figures.postgres_nodes import MUTE, Notifications
from tests.bench.load import LoadError, connections
from tests.bench.plain import measure
from tests.bench.postgres import connected, cpu_of_all, first_process, nodes, plainly, server
from tests.bench.runner import watch_others
from tests.bench.servers import Bench
from tests.eventually import eventually
from tests.postgres import PostgresServer

pytest.importorskip("asyncpg")


@pytest.fixture
def bench(postgres: PostgresServer, tmp_path: Path) -> Bench:
    return Bench(tmp_path, 0.2, postgres=postgres)


async def schemas(bench: Bench) -> int:
    assert bench.postgres is not None
    async with connected(bench.postgres.url) as connection:
        return int(await connection.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'test%'"))


class TestFigures:
    @pytest.mark.parametrize("figure", [Appends(), Store(), Notifications()])
    async def test_both_sides_are_measured_and_leave_nothing(
        self, figure: Appends | Store | Notifications, bench: Bench
    ) -> None:
        before = await schemas(bench)
        ours, yardstick = await figure.ours(bench), await figure.yardstick(bench)
        assert set(ours) == set(yardstick) == {"rate", "cpu", CLIENT_CPU}
        assert min(*ours.values(), *yardstick.values()) > 0
        assert await schemas(bench) == before

    @pytest.mark.parametrize("live", [True, False])
    async def test_what_was_ingested_is_copied(self, live: bool, bench: Bench) -> None:
        figure = Bulk("bulk", live, "")
        assert (await figure.ours(bench))["rate"] > 0
        assert (await figure.yardstick(bench))["rate"] > 0

    async def test_silent_nodes_do_not_notify(self, bench: Bench) -> None:
        heard: list[str] = []
        async with nodes(bench, 1, *MUTE) as (node,), connected(node.database) as operator:
            namespace = await operator.fetchval("SELECT to_regclass('schema_version')::oid")
            await operator.add_listener(f"taskserver_{namespace}", lambda *said: heard.append(said[-1]))
            async with connections(node.port, 1) as (client,):
                await make_tasks(node, client, 1)
                await client.ask(node.post("/v1/tasks/bench00/output", b"line\n"))
            await operator.execute("SELECT pg_notify($1, 'probe')", f"taskserver_{namespace}")
            await eventually(lambda: "probe" in heard, "the probe")
        assert heard == ["probe"]


async def test_work_that_others_do_meanwhile_is_counted() -> None:
    async def step(worker: int, turn: int) -> int:
        await asyncio.sleep(0)
        return 1

    alone = await measure(1, step, 0.2)
    together = await measure(20, step, 0.2)
    assert together["rate"] > alone["rate"] / 5  # not a twentieth, as when each forgets what the others did


async def test_the_cpu_of_the_database_is_not_taken_for_that_of_others(bench: Bench) -> None:
    assert bench.postgres is not None
    process = await first_process(bench.postgres)
    assert process is not None
    before = cpu_of_all(process)
    async with connected(bench.postgres.url) as connection:
        await connection.execute("SELECT count(*) FROM generate_series(1, 2000000)")
        assert cpu_of_all(process) > before
    spent = iter((0.0, 1e9))
    assert watch_others(lambda: next(spent))() == 0
    assert cpu_of_all(None) == 0


async def test_a_program_that_fails_is_told(bench: Bench) -> None:
    with pytest.raises(LoadError, match="the program for 'nothing' failed"):
        await plainly("nothing", "postgresql://", 0.1)


def test_the_server_is_that_of_the_url() -> None:
    with server(None) as none:
        assert none is None
    with server("postgresql://db/x") as named:
        assert named is not None
        assert named.url == "postgresql://db/x"


def test_the_command_measures_on_postgres_only_where_it_is_told() -> None:
    listed = CliRunner().invoke(main, ["--list", "--database", "postgres"]).output.split()
    assert {"pg-appends", "pg-bulk-live", "pg-across", "pg-notify", "pg-wake-10000"} <= set(listed)
    assert not set(listed) & set(CliRunner().invoke(main, ["--list"]).output.split())
