"""What docs/deploy.md tells operators to use: its files do what it says, with the real programs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from taskserver.config import MAX_OUTPUT_WAIT, Timing
from taskserver.stores import open_store
from tests.e2e.nodes import Nodes
from tests.e2e.raw import Raw
from tests.ports import held_port
from tests.postgres import PostgresServer
from tests.server import Server, until

DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"
SITE = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")

# What distributions have around the files of conf.d, as far as it matters here.
AROUND = """\
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 1000; }}
http {{
    access_log off;
    client_body_temp_path temporary; proxy_temp_path temporary; fastcgi_temp_path temporary;
    uwsgi_temp_path temporary; scgi_temp_path temporary;
    include {site};
}}
"""


def program(name: str) -> str:
    """A program's path. Without it the test is skipped, or in CI fails."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        message = f"NO {name.upper()}, so the configuration for it is not tested: install {name}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.fixture
def balancer(nodes: Nodes, tmp_path: Path) -> Iterator[Server]:
    """nginx with the documented configuration in front of two nodes; only the addresses are others."""
    nginx = program("nginx")
    folder = tmp_path / "nginx"
    (folder / "temporary").mkdir(parents=True)
    holder = held_port()
    port = holder.getsockname()[1]
    site = SITE.replace("listen 80;", f"listen 127.0.0.1:{port};")
    for documented, node in (("10.0.0.11:8080", nodes.a), ("10.0.0.12:8080", nodes.b)):
        assert documented in site
        site = site.replace(documented, f"127.0.0.1:{node.port}")
    (folder / "site.conf").write_text(site)
    (folder / "nginx.conf").write_text(AROUND.format(site=folder / "site.conf"))
    front = Server(tmp_path)  # not a process of ours: it only says where to send requests
    front.port, front.key_file = port, nodes.a.key_file
    process = subprocess.Popen([nginx, "-p", folder, "-c", folder / "nginx.conf"])
    try:
        until(lambda: answers(front), "nginx")
        yield front
    finally:
        process.terminate()
        process.wait(10)
        holder.close()


def answers(server: Server) -> bool:
    try:
        return server.get("/v1/tasks").status == 200
    except OSError:
        return False


class TestNginx:
    def test_streams_are_not_buffered(self, balancer: Server) -> None:
        task = balancer.new_task()
        with Raw(balancer) as reading:
            stream = reading.ask("GET", f"/v1/tasks/{task}/output?format=ndjson&follow=true").head()
            for number in range(5):
                balancer.post(f"/v1/tasks/{task}/output?first={number}", f"line {number}\n")
                assert json.loads(stream.readline())["text"] == f"line {number}"
            balancer.post(f"/v1/tasks/{task}/finish", {})
            assert json.loads(stream.readline())["finished"]

    def test_a_live_body_is_read_while_it_comes(self, balancer: Server) -> None:
        task = balancer.new_task()
        with Raw(balancer) as writing:
            writing.ask("POST", f"/v1/tasks/{task}/output", "Transfer-Encoding: chunked", "Content-Type: text/plain")
            for number in range(5):
                writing.send_chunk(f"line {number}\n".encode())
                page = balancer.get(f"/v1/tasks/{task}/output?first={number}&wait=20").json
                assert page["output"] == [f"line {number}"]
            writing.send_chunk(b"")
            assert writing.answer().json["last"] == 5

    def test_waits_are_not_cut(self, balancer: Server) -> None:
        for name in ("proxy_read_timeout", "proxy_send_timeout"):
            (seconds,) = re.findall(rf"{name} (\d+)s;", SITE)
            assert int(seconds) > max(MAX_OUTPUT_WAIT, Timing().heartbeat) + 10
        task = balancer.new_task()
        with ThreadPoolExecutor(20) as pool:
            waits = [pool.submit(balancer.get, f"/v1/tasks/{task}?wait=20") for _ in range(20)]
            waits += [pool.submit(balancer.get, f"/v1/tasks/{task}/output?first=1&wait=50") for _ in range(5)]
            balancer.post(f"/v1/tasks/{task}/output", "one\n")
            balancer.post(f"/v1/tasks/{task}/finish", {"code": 3})
            assert [wait.result().json["finished"] for wait in waits] == [True] * 25

    def test_a_node_may_die(self, balancer: Server, nodes: Nodes) -> None:
        task = balancer.new_task()

        def append(number: int) -> bool:
            return balancer.post(f"/v1/tasks/{task}/output?first={number}", f"line {number}\n").status == 200

        for number in range(20):
            if number == 10:
                nodes.a.kill()
            # What one node may have taken before it died is not sent to the other one; the producer repeats.
            until(partial(append, number), "an append")
            assert balancer.get(f"/v1/tasks/{task}?first={number}").json["output"] == [f"line {number}"]
        assert balancer.get(f"/v1/tasks/{task}").json["last"] == 20


def test_the_unit_file_is_one(tmp_path: Path) -> None:
    """As far as systemd can tell: the program that it starts is not installed there."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd is not here")
    text = (DEPLOY / "taskserver.service").read_text(encoding="utf-8")
    unit = tmp_path / "taskserver.service"
    assert "/opt/taskserver/bin/taskserver serve " in text
    unit.write_text(text.replace("/opt/taskserver/bin/taskserver", "/bin/true"))
    done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


async def test_chunks_may_lie_in_partitions(postgres: PostgresServer, tmp_path: Path) -> None:
    """The statements of docs/deploy.md, on a database whose tables a node has just made; then a node works there."""
    import asyncpg

    text = (DEPLOY.parent / "deploy.md").read_text(encoding="utf-8")
    (statements,) = [block for block in re.findall(r"```sql\n(.*?)```", text, re.DOTALL) if "PARTITION" in block]
    url = await postgres.database(tmp_path)
    await (await open_store(url)).close()
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statements)
        await connection.execute("SELECT setval('log_number', 999999)")  # the first task's is in the second partition
    finally:
        await connection.close()
    server = Server(tmp_path)
    server.database = url
    server.environment = {"TASKSERVER_BOOTSTRAP_KEY_FILE": str(server.key_file)}
    with server:
        task = server.new_task()
        server.post(f"/v1/tasks/{task}/output", "one\ntwo\n")
        server.post(f"/v1/tasks/{task}/finish", {})
        assert server.get(f"/v1/tasks/{task}?first=1").json["output"] == ["two"]
        assert server.call("DELETE", f"/v1/tasks/{task}").status == 204
