"""Echoes: what a command prints, and notices between it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from taskserver.producer.echo import Echo


class Written:
    """A file, and an echo that leads there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self.echo = Echo(self.fd)

    def notice(self, text: bytes = b"notice\n", newline: bytes = b"\n") -> None:
        """Say something."""
        with self.echo.own_line(newline):
            os.write(self.fd, text)

    @property
    def text(self) -> bytes:
        """What stands there."""
        return self.path.read_bytes()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Written]:
    written = Written(tmp_path / "written")
    yield written
    with suppress(OSError):
        os.close(written.fd)


def test_a_notice_at_the_beginning_or_behind_a_line_needs_no_newline(file: Written) -> None:
    file.notice()
    file.echo.write(b"one\n")
    file.notice()
    assert file.text == b"notice\none\nnotice\n"


def test_a_notice_stands_on_a_line_of_its_own(file: Written) -> None:
    file.echo.write(b"one\nha")
    file.notice()
    file.notice()
    file.echo.write(b"lf\n")
    file.notice()
    assert file.text == b"one\nha\nnotice\nnotice\nlf\nnotice\n"


@pytest.mark.parametrize("bar", [b"10 %\r", b"\r10 %"])
def test_a_bar_stays_above_it(file: Written, bar: bytes) -> None:
    file.echo.write(bar)
    file.notice(newline=b"\r\n")
    assert file.text == bar + b"\r\nnotice\n"


def test_what_another_stream_left_unfinished_counts_if_it_goes_to_the_same_place(file: Written) -> None:
    elsewhere, same = Echo(file.fd), Echo(file.fd, file.echo.line)
    elsewhere.write(b"1")
    file.notice()
    same.write(b"2")
    file.notice()
    assert file.text == b"1notice\n2\nnotice\n"


def test_a_descriptor_that_is_gone_stops_no_notice(file: Written) -> None:
    file.echo.write(b"ha")
    os.close(file.fd)
    told = False
    with file.echo.own_line(b"\n"):
        told = True
    assert told
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.echo.write(b"lf\n")
