"""Escape codes are taken out, the same ones as in the browser (tests/browser/test_modules.py)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from taskserver.escapes import strip_escapes

CASES = json.loads((Path(__file__).parents[1] / "escapes.json").read_text(encoding="utf-8"))["cases"]


@pytest.mark.parametrize(("text", "plain"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_escape_codes_are_taken_out(text: str, plain: str) -> None:
    assert strip_escapes(text) == plain


def test_the_time_is_linear_in_hostile_text() -> None:
    # Quadratic, these would take minutes.
    for hostile in ("\x1b]" * 500_000, "\x1b[" + "1;" * 500_000, "\x1b]" + "a" * 1_000_000, "\x1b " * 500_000):
        assert len(strip_escapes(hostile)) <= len(hostile)


def test_lines_stay_apart() -> None:
    assert strip_escapes("\x1b]0;a\nb\x1b[1\nc") == "0;a\nb\nc"
