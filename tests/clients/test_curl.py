"""The recipe of Posit Connect's documentation with the real curl and jq: `first` and `wait` until finished."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.clients.conftest import EARLY, LINES, Produce, requests_for
from tests.conftest import every_way_to_serve
from tests.server import Server, until

LIMIT = 60  # seconds for a script

# "… request that has a JSON response with the `last` field having a value of `23`. Here is a URL that requests output
# past that point … Continue with this pattern until the JSON response indicates that the task has finished."
FOLLOW = """
set -euo pipefail
first=0 finished=false
while [ "$finished" = false ]; do
    answer=$(curl --silent --show-error --fail-with-body --header "Authorization: Key $KEY" \\
        "$URL/__api__/v1/experimental/tasks/$ID?wait=${WAIT:-20}&first=$first")
    jq --raw-output '.output[]' <<< "$answer"
    first=$(jq .last <<< "$answer")
    finished=$(jq .finished <<< "$answer")
done
jq --raw-output '.error' <<< "$answer" >&2
exit "$(jq .code <<< "$answer")"
"""


@pytest.fixture(autouse=True)
def curl_and_jq() -> None:
    missing = [tool for tool in ("bash", "curl", "jq") if shutil.which(tool) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"{', '.join(missing)} must be installed where CI=true")
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")


def environment(server: Server, key: str, task: str) -> dict[str, str]:
    return {**os.environ, "URL": server.url, "KEY": key, "ID": task}


def follow(server: Server, key: str, task: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", FOLLOW],
        env={**environment(server, key, task), **more},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


@every_way_to_serve
def test_the_loop_follows_a_running_task_to_its_end(server: Server, key: str, produce: Produce) -> None:
    task = produce()
    done = follow(server, key, task)
    assert (done.stdout.splitlines(), done.stderr, done.returncode) == (LINES, "\n", 0)
    assert requests_for(server, task) == 1


def test_the_loop_brings_every_line_once(server: Server, key: str, produce: Produce) -> None:
    task = produce()
    began = time.monotonic()
    done = follow(server, key, task, WAIT="1")
    took = time.monotonic() - began
    assert (done.stdout.splitlines(), done.stderr, done.returncode) == (LINES, "\n", 0)
    assert requests_for(server, task) <= 1 + int(took + EARLY)  # one a second, which brings what came meanwhile


def test_the_loop_ends_with_the_code_of_a_failed_task(server: Server, key: str, produce: Produce) -> None:
    done = follow(server, key, produce(LINES[:3], code=7, error="the build broke"))
    assert (done.stdout.splitlines(), done.stderr, done.returncode) == (LINES[:3], "the build broke\n", 7)


def test_the_loop_stops_at_an_error(server: Server, key: str) -> None:
    done = follow(server, key, "CmsfmnfDDyRUrsAc")
    assert done.returncode == 22  # curl's word for an HTTP status of 400 and above
    assert "404" in done.stderr


@pytest.fixture
def upload(server: Server) -> Iterator[subprocess.Popen[bytes]]:
    """A live upload, ``… | curl -T -``, to the task "build": what is written to its stdin becomes lines."""
    server.new_task(id="build")
    command = ["curl", "--silent", "--show-error", "--fail-with-body", "--no-buffer", "--upload-file", "-"]
    with subprocess.Popen(
        [*command, "--header", f"Authorization: Key {server.key}", f"{server.url}/v1/tasks/build/output"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        yield process
        process.kill()


@pytest.fixture
def reader(server: Server, key: str, upload: object) -> Iterator[subprocess.Popen[str]]:
    """A live download of the same task."""
    with subprocess.Popen(
        [
            *["curl", "--silent", "--show-error", "--fail", "--no-buffer", "--header", f"Authorization: Key {key}"],
            f"{server.url}/v1/tasks/build/output?format=text&follow=true",
        ],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


@every_way_to_serve
def test_a_live_upload_can_be_followed(
    server: Server, upload: subprocess.Popen[bytes], reader: subprocess.Popen[str]
) -> None:
    assert upload.stdin is not None
    assert upload.stdout is not None
    assert reader.stdout is not None
    for line in ("compiling\n", "linking\n"):
        upload.stdin.write(line.encode())
        upload.stdin.flush()
        assert reader.stdout.readline() == line  # while the upload goes on
    assert upload.poll() is None
    upload.stdin.write(b"done, without a newline")
    upload.stdin.close()
    assert upload.wait(LIMIT) == 0
    assert b'"first":0,"last":3' in upload.stdout.read()
    server.post("/v1/tasks/build/finish", {"output": ["the end"]})
    assert reader.stdout.read() == "done, without a newline\nthe end\n"
    assert reader.wait(LIMIT) == 0


def test_an_upload_that_is_cut_off_leaves_its_whole_lines(server: Server, upload: subprocess.Popen[bytes]) -> None:
    assert upload.stdin is not None
    upload.stdin.write(b"whole\nhal")
    upload.stdin.flush()
    until(lambda: server.get("/v1/tasks/build").json["last"] == 1, "the whole line can be read")
    upload.kill()
    upload.wait(LIMIT)
    answer = server.post("/v1/tasks/build/output?first=1", "from another producer\n")
    assert answer.status == 200, answer
    task = server.post("/v1/tasks/build/finish", {}).json
    assert task["last"] == 2
    assert server.get("/v1/tasks/build").json["output"] == ["whole", "from another producer"]
