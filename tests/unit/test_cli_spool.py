"""The spool between the pumps and the sender (``producer.spool``)."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskserver.producer.spool import Batch, Spool

LIMIT = 1000
SECONDS = 20.0  # for what another thread does


class Watched:
    """A spool, and what it told."""

    def __init__(self, folder: Path) -> None:
        self.warnings: list[str] = []
        self.warned = threading.Event()
        self.notified = 0
        self.spool = Spool(folder, LIMIT, self._notify, self._warn)

    def _notify(self) -> None:
        self.notified += 1

    def _warn(self, message: str) -> None:
        self.warnings.append(message)
        self.warned.set()

    def write_in_a_thread(self, data: bytes, lines: int) -> threading.Thread:
        """Begin to write where waiting hurts nobody."""
        thread = threading.Thread(target=self.spool.write, args=(data, lines))
        thread.start()
        return thread


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """A spool that is removed in the end."""
    watched = Watched(tmp_path)
    yield watched
    watched.spool.remove()


def test_batches_are_bounded_by_lines_and_bytes_but_never_empty(watched: Watched) -> None:
    spool = watched.spool
    assert spool.peek(100, 10) == Batch(0, b"")
    spool.write(b"one\ntwo\n", 2)
    spool.write(b"three\n", 1)

    assert spool.peek(100, 10) == Batch(3, b"one\ntwo\nthree\n")
    assert spool.peek(100, 2) == Batch(2, b"one\ntwo\n")
    assert spool.peek(10, 10) == Batch(2, b"one\ntwo\n")
    assert spool.peek(2, 10) == Batch(1, b"one\n")
    assert watched.notified == 2


def test_what_was_taken_is_not_seen_again(watched: Watched) -> None:
    spool = watched.spool
    spool.write(b"one\ntwo\nthree\n", 3)
    spool.take(spool.peek(100, 2))

    assert (spool.unsent_lines, spool.unsent_bytes) == (1, 6)
    assert spool.peek(100, 10) == Batch(1, b"three\n")
    spool.take(spool.peek(100, 10))
    assert (spool.unsent_lines, spool.peek(100, 10)) == (0, Batch(0, b""))


def test_a_spool_that_is_caught_up_with_takes_no_disk(watched: Watched) -> None:
    spool = watched.spool
    for _ in range(3):
        spool.write(b"line\n", 1)
        assert spool.path.stat().st_size == 5
        spool.take(spool.peek(100, 10))
        assert spool.path.stat().st_size == 0


def test_the_file_is_for_its_owner_only(watched: Watched) -> None:
    assert watched.spool.path.stat().st_mode & 0o777 == 0o600


def test_at_its_limit_writers_wait_until_the_sender_has_caught_up(watched: Watched) -> None:
    spool = watched.spool
    spool.write(b"x" * 899 + b"\n", 1)
    writer = watched.write_in_a_thread(b"y" * 199 + b"\n", 1)
    assert watched.warned.wait(SECONDS)
    assert spool.unsent_lines == 1
    spool.take(spool.peek(10_000, 10))
    writer.join(SECONDS)

    assert spool.peek(10_000, 10) == Batch(1, b"y" * 199 + b"\n")
    assert watched.warnings == [
        f"the spool file {spool.path} has reached its limit of 1000 bytes;"
        " the command is held up until the server has taken some lines"
    ]


def test_when_the_limit_is_lifted_nobody_waits_any_more(watched: Watched) -> None:
    watched.spool.write(b"x" * 999 + b"\n", 1)
    writer = watched.write_in_a_thread(b"y\n", 1)
    assert watched.warned.wait(SECONDS)
    watched.spool.lift_limit()
    writer.join(SECONDS)
    watched.spool.write(b"z\n", 1)

    assert watched.spool.unsent_lines == 3


def test_a_record_longer_than_the_limit_passes(watched: Watched) -> None:
    watched.spool.write(b"x" * 5000 + b"\n", 1)
    assert watched.spool.peek(100, 10) == Batch(1, b"x" * 5000 + b"\n")


def test_a_disk_that_is_full_holds_writers_up_until_there_is_room(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, full = os.pwrite, threading.Event()
    full.set()

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        if full.is_set():
            real(fd, data[:2], offset)  # as much as there was room for
            raise OSError(28, "No space left on device")
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    writer = watched.write_in_a_thread(b"line\n", 1)
    assert watched.warned.wait(SECONDS)
    assert watched.spool.peek(100, 10) == Batch(0, b"")
    full.clear()
    writer.join(SECONDS)

    assert watched.spool.peek(100, 10) == Batch(1, b"line\n")
    assert "No space left on device" in watched.warnings[0]


def test_what_nobody_will_take_holds_nobody_up(watched: Watched) -> None:
    spool = watched.spool
    spool.write(b"x" * 999 + b"\n", 1)
    writer = watched.write_in_a_thread(b"y\n", 1)
    assert watched.warned.wait(SECONDS)
    spool.discard()
    writer.join(SECONDS)
    spool.write(b"z\n", 1)

    assert not writer.is_alive()
    assert (spool.unsent_lines, spool.path.stat().st_size) == (0, 0)


def test_a_kept_file_holds_exactly_what_was_not_taken(tmp_path: Path) -> None:
    spool = Watched(tmp_path).spool
    spool.write(b"one\ntwo\nthree\n", 3)
    spool.take(spool.peek(100, 1))
    spool.keep()

    assert spool.path.read_bytes() == b"two\nthree\n"


def test_the_end_is_told(watched: Watched) -> None:
    before = watched.spool.complete
    watched.spool.end()
    assert (before, watched.spool.complete, watched.notified) == (False, True, 1)
