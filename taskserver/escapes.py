"""Escape codes in output: what a terminal would obey and not show.

The dashboard's viewer (``api/static/dashboard/output/ansi.js``) takes the same
sequences out; ``tests/escapes.json`` holds both to it.
"""

from __future__ import annotations

import re

ESCAPE = "\x1b"

# ECMA-48, 5.3 to 5.6: control sequences such as colours; control strings such as titles and links, up to BEL or ST; and
# the other sequences of a few characters. What is cut off costs its beginning only, not the text behind it, and a scan
# ends at the next ESC, so the time is linear whatever a line holds.
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]?|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)|[ -/]*[0-~]?)")


def strip_escapes(text: str) -> str:
    """The text without its escape sequences; newlines and other control characters stay."""
    return _SEQUENCE.sub("", text) if ESCAPE in text else text
