"""Yardsticks that are servers of their own: nginx with the nchan module, and @durable-streams/server.

Neither is needed: ``scripts/bench`` is told where they are. Each is started as
a private process on a free port with its files in a scratch folder.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.load import LoadError
from tests.bench.servers import NO_KEY, REPOSITORY, STOP_LIMIT, Bench, Target, announced
from tests.bench.wire import build_request

EVENT_STREAM = "text/event-stream"  # which nchan wants to be asked for
NCHAN = "ngx_nchan_module.so"
START_LIMIT = 10.0  # seconds
LOOK = 0.02
FILES = 19_000  # connections of the worker
NGINX_VERSION = re.compile(r"nginx version: nginx/(\S+)")

# One worker, as ours is one process. Subscribers wait for the next message: none is kept for those who come later
# but the last, which "newest" passes over.
CONFIG = """\
{load_module}
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections {files}; }}
http {{
    access_log off;
    client_body_temp_path temporary; proxy_temp_path temporary; fastcgi_temp_path temporary;
    uwsgi_temp_path temporary; scgi_temp_path temporary;
    keepalive_timeout 600s;
    keepalive_requests 1000000;
    nchan_message_buffer_length 1;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /get {{ return 200 "{{}}"; }}
        location ~ ^/publish/(\\w+)$ {{ nchan_publisher; nchan_channel_id $1; }}
        location ~ ^/poll/(\\w+)$ {{
            nchan_subscriber longpoll; nchan_channel_id $1; nchan_subscriber_first_message newest;
        }}
        location ~ ^/events/(\\w+)$ {{
            nchan_subscriber eventsource; nchan_channel_id $1; nchan_subscriber_first_message newest;
        }}
    }}
}}
"""


def nginx_version(program: Path) -> str:
    """The version of an nginx. Raises LoadError if that cannot be run, or has no nchan."""
    built = _nginx_build(program)
    if _nchan(built) is None and "nchan" not in built:
        raise LoadError(f"{program} has no nchan module (on Debian: apt-get install libnginx-mod-nchan)")
    found = NGINX_VERSION.search(built)
    return found[1] if found else "unknown"


@contextlib.contextmanager
def nchan(bench: Bench) -> Iterator[Target]:
    """nginx with nchan: ``/publish/X`` wakes ``/poll/X`` and ``/events/X``. The target's process is its worker."""
    assert bench.nginx is not None
    module = _nchan(_nginx_build(bench.nginx))
    with bench.scratch() as folder:
        port = _free_port()
        load = f"load_module {module};" if module else ""
        (folder / "nginx.conf").write_text(CONFIG.format(load_module=load, files=FILES, port=port))
        (folder / "temporary").mkdir()
        with (folder / "error.log").open("w") as log:
            process = subprocess.Popen([bench.nginx, "-p", folder, "-c", folder / "nginx.conf"], stderr=log)
        try:
            yield Target(port, _worker(process, folder / "error.log"), NO_KEY)
        finally:
            process.terminate()  # and it ends its worker: SIGKILL would leave that alone in the world
            process.wait(STOP_LIMIT)


def publish_event(target: Target, path: str, data: bytes, event: str = "output") -> bytes:
    """A request that publishes a named server-sent event by nchan."""
    headers = {**target.headers("application/json"), "X-EventSource-Event": event}
    return build_request("POST", path, headers, data)


@contextlib.contextmanager
def durable_streams(bench: Bench) -> Iterator[Target]:
    """The reference server of Durable Streams on its file store, which syncs each append."""
    assert bench.durable_streams is not None
    node = shutil.which("node")
    if node is None:
        raise LoadError("there is no node to run @durable-streams/server with")
    script = REPOSITORY / "tests" / "bench" / "durable_streams.mjs"
    with bench.scratch() as folder:
        command = [node, str(script), str(bench.durable_streams), str(folder / "streams")]
        with announced(command, "@durable-streams/server") as target:
            yield target


def durable_streams_version(folder: Path) -> str:
    """The version that npm has installed. Raises LoadError if it is not there."""
    file = folder / "node_modules" / "@durable-streams" / "server" / "package.json"
    if not file.exists():
        raise LoadError(f"it is not in {folder} (npm install --prefix {folder} @durable-streams/server)")
    found = re.search(r'"version":\s*"([^"]+)"', file.read_text())
    return found[1] if found else "unknown"


def _nginx_build(program: Path) -> str:
    """What ``nginx -V`` tells of itself."""
    try:
        return subprocess.run([program, "-V"], capture_output=True, text=True, timeout=START_LIMIT, check=True).stderr
    except (OSError, subprocess.SubprocessError) as error:
        raise LoadError(f"cannot run {program}: {error}") from None


def _nchan(built: str) -> Path | None:
    """The module's file, if it is a file of its own beside nginx' others."""
    found = re.search(r"--modules-path=(\S+)", built)
    module = Path(found[1]) / NCHAN if found else None
    return module if module is not None and module.exists() else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _worker(master: subprocess.Popen[bytes], log: Path) -> int:
    """The worker's process, as soon as it is there; connections queue up at its master's socket before."""
    children = Path(f"/proc/{master.pid}/task/{master.pid}/children")
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline and master.poll() is None:
        if found := children.read_text().split():
            return int(found[0])
        time.sleep(LOOK)
    raise LoadError(f"nginx did not start: {log.read_text().strip()[-500:]}")
