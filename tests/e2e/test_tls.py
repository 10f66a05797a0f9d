"""``serve --tls-cert``: real clients, a new certificate while streams are open, files that cannot be used."""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme

from tests.e2e.commands import Commands
from tests.server import CALL_LIMIT, EVENT_LIMIT, Server, running, until

CANNOT_START = 3
EXIT_GOAL = 10.0  # seconds; a stop takes two at most, on a machine that has nothing else to do


class Files:
    """A certificate and its key for ``localhost``, and who signed it."""

    def __init__(self, folder: Path) -> None:
        self.cert, self.key, self.authority = folder / "cert.pem", folder / "key.pem", folder / "ca.pem"
        self.ca = trustme.CA()
        self.ca.cert_pem.write_to_path(str(self.authority))
        self.serial = self.renew()

    def renew(self) -> int:
        """Put another certificate there; its serial number."""
        issued = self.ca.issue_cert("localhost", "127.0.0.1")
        issued.private_key_pem.write_to_path(str(self.key))
        for number, pem in enumerate(issued.cert_chain_pems):
            pem.write_to_path(str(self.cert), append=number > 0)
        return ssl_serial(ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode()))

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("--tls-cert", str(self.cert), "--tls-key", str(self.key))

    @property
    def trust(self) -> ssl.SSLContext:
        """What a client believes."""
        return ssl.create_default_context(cafile=str(self.authority))


def ssl_serial(der: bytes) -> int:
    from cryptography import x509

    return x509.load_der_x509_certificate(der).serial_number


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture(params=[1, 2], ids=["alone", "workers"])
def secure(request: pytest.FixtureRequest, tmp_path: Path, files: Files) -> Iterator[Server]:
    """A server that speaks TLS."""
    yield from running(tmp_path, *files.arguments, "--workers", str(request.param))


def connect(server: Server, files: Files) -> httpx.Client:
    return httpx.Client(
        base_url=f"https://localhost:{server.port}", verify=files.trust, headers=server.headers, timeout=CALL_LIMIT
    )


def shown_serial(server: Server, files: Files) -> int:
    """Of the certificate that a new connection is shown."""
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=CALL_LIMIT) as plain,
        files.trust.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        der = connection.getpeercert(binary_form=True)
        assert der is not None
        assert connection.version() in ("TLSv1.2", "TLSv1.3")
        return ssl_serial(der)


def test_a_task_from_its_creation_to_its_end(secure: Server, files: Files) -> None:
    with connect(secure, files) as client:
        made = client.post("/v1/tasks", json={"id": "build"})
        assert (made.status_code, made.headers["Location"]) == (201, "/v1/tasks/build")
        for number in range(20):
            assert client.post("/v1/tasks/build/output", content=f"line {number}\n").json()["last"] == number + 1
        assert client.get("/v1/tasks/build/output?first=18").json()["output"] == ["line 18", "line 19"]
        big = "x" * 1000 + "\n"
        assert client.post("/v1/tasks/build/output", content=big * 5000).json()["last"] == 5020
        assert client.post("/v1/tasks/build/finish", json={}).json()["state"] == "success"
        assert client.get("/v1/tasks/build/output?format=text&first=20").text == big * 5000


def test_the_commands_over_tls(secure: Server, files: Files, tmp_path: Path) -> None:
    taskserver = Commands(secure, tmp_path)
    taskserver.environment["TASKSERVER_URL"] = f"https://localhost:{secure.port}"
    stranger = taskserver("list")
    assert stranger.code != 0
    assert "certificate" in stranger.err.lower()
    taskserver.environment["SSL_CERT_FILE"] = str(files.authority)
    done = taskserver("run", "--id", "build", "--", "sh", "-c", "echo one; exit 3")
    assert (done.code, done.out) == (3, b"one\n")
    tail = taskserver("tail", "build")
    assert (tail.code, tail.out) == (3, b"one\n")


def test_a_wait_and_a_stream_outlive_a_new_certificate(secure: Server, files: Files) -> None:
    assert secure.process is not None
    first = files.serial
    with connect(secure, files) as client, connect(secure, files) as follower:
        client.post("/v1/tasks", json={"id": "build"})
        client.post("/v1/tasks/build/output", content="one\n")
        with follower.stream("GET", "/v1/tasks/build/output?format=text&follow=true") as stream:
            lines = stream.iter_lines()
            assert next(lines) == "one"
            assert {shown_serial(secure, files) for _ in range(4)} == {first}
            second = files.renew()
            secure.process.send_signal(signal.SIGHUP)
            until(lambda: {shown_serial(secure, files) for _ in range(4)} == {second}, "the new certificate")
            client.post("/v1/tasks/build/output", content="two\n")
            assert next(lines) == "two"

            files.cert.write_text("no certificate at all")
            secure.process.send_signal(signal.SIGHUP)
            until(lambda: "going on with the certificate" in secure.log, "the refusal in the log")
            assert {shown_serial(secure, files) for _ in range(4)} == {second}
            client.post("/v1/tasks/build/finish", json={})
            assert list(lines) == []
    assert secure.stop() == 0


def test_who_does_not_speak_tls_disturbs_nobody(secure: Server, files: Files) -> None:
    with contextlib.ExitStack() as stack:
        for data in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01", b"", bytes(1000)):
            stranger = stack.enter_context(socket.create_connection(("127.0.0.1", secure.port), timeout=CALL_LIMIT))
            stranger.sendall(data)
        with connect(secure, files) as client:
            assert client.get("/readyz").status_code == 200
        # Two of them are still in the midst of their handshake.
        began = time.monotonic()
        assert secure.stop(EVENT_LIMIT) == 0
        assert time.monotonic() - began < EXIT_GOAL
    assert "Traceback" not in secure.log


def test_waits_are_answered_at_a_stop(secure: Server, files: Files) -> None:
    with connect(secure, files) as client, connect(secure, files) as other:
        client.post("/v1/tasks", json={"id": "build"})
        with other.stream("GET", "/v1/tasks/build/output?format=sse") as stream:
            assert secure.process is not None
            secure.process.send_signal(signal.SIGTERM)
            assert all("error" not in line for line in stream.iter_lines())
    assert secure.process is not None
    assert secure.process.wait(EXIT_GOAL) == 0


def test_one_file_with_both(tmp_path: Path, files: Files) -> None:
    files.cert.write_text(files.key.read_text() + files.cert.read_text())
    with Server(tmp_path, "--tls-cert", str(files.cert)) as server:
        assert shown_serial(server, files) == files.serial


def test_old_versions_of_tls_are_not_spoken(tmp_path: Path, files: Files) -> None:
    with Server(tmp_path, *files.arguments) as server:
        old = files.trust
        old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        with pytest.warns(DeprecationWarning, match="TLS"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("DEFAULT:@SECLEVEL=0")  # or the client would not even ask
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=CALL_LIMIT) as plain,
            pytest.raises(OSError, match=r"(?i)version|alert|protocol"),
        ):
            old.wrap_socket(plain, server_hostname="localhost")


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("spoil", ["missing", "garbage", "another", "encrypted"])
def test_files_that_cannot_be_used_keep_the_server_from_starting(
    tmp_path: Path, files: Files, spoil: str, workers: str
) -> None:
    if spoil == "missing":
        files.key.unlink()
    elif spoil == "garbage":
        files.cert.write_text("no certificate at all")
    elif spoil == "another":
        trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(str(files.key))
    else:
        from cryptography.hazmat.primitives import serialization as s

        key = s.load_pem_private_key(files.key.read_bytes(), None)
        locked = s.BestAvailableEncryption(b"secret")
        files.key.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, locked))
    refusal = Server(tmp_path, *files.arguments, "--workers", workers).start_refused()
    assert refusal.status == CANNOT_START
    assert refusal.message.startswith("taskserver: cannot use the TLS certificate and key in ")
    assert refusal.message.count("\n") == 1
    assert not (tmp_path / "tasks.db").exists()
