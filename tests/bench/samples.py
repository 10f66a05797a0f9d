"""Lines as builds print them, some 80 bytes each."""

from __future__ import annotations

MODULES = ("core", "net", "storage", "parser", "scheduler", "render", "index")


def line(number: int) -> str:
    """A line of a build's output."""
    module = MODULES[number % len(MODULES)]
    return f"[{number:6d}] Compiling {module}/unit_{number * 7919 % 10007:05d}.cc -O2 -g -Wall -> {module}.o (ok)"


def text(first: int, count: int) -> bytes:
    """Lines as ``text/plain``."""
    return "".join(line(number) + "\n" for number in range(first, first + count)).encode()
